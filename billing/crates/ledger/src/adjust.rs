use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior};
use serde::Deserialize;
use wasmeter_rating::due_minor;
use wasmeter_receipt::Made;
use wasmeter_usage::wire::{Adjustment, BillAdjustments, MAX_ADJUSTMENTS};
use wasmeter_usage::{Draw, InvocationId, Pico};

use crate::budget::{amount, month};
use crate::open::stamp_word;
use crate::receipt::adjusted;
use crate::receipt::seal::Of;
use crate::sums::time;
use crate::{BudgetRefused, Ledger, LedgerError, Reader};

/// No adjustment is larger: 10^9 of the currency unit.
const MOST: i128 = Pico::UNIT * 1_000_000_000;

/// The longest id or reason.
const MAX_TEXT: usize = 512;

/// A correction that is asked for.
#[derive(Clone, Debug)]
pub struct AdjustmentAsk {
    /// Tenant.
    pub tenant: String,
    /// Tells a repeated one from a second one.
    pub id: String,
    /// The invocation whose cost is given back.
    pub invocation: Option<InvocationId>,
    /// Below zero for what the tenant gets back; the whole cost of the invocation if absent.
    pub amount: Option<Pico>,
    /// Why.
    pub reason: String,
}

/// The part of a record that says what it drew on.
#[derive(Deserialize)]
struct Drawn {
    #[serde(default)]
    draw: Option<Draw>,
}

impl Ledger {
    /// Adds a correction; the same one again, by its id, changes nothing. An invocation is refunded once and at most by
    /// what it cost.
    ///
    /// # Errors
    /// SQLite's, and then nothing is added.
    pub fn adjust(
        &mut self,
        ask: &AdjustmentAsk,
        now_ns: u64,
    ) -> Result<Result<Adjustment, BudgetRefused>, LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let made = adjust(&tx, ask, now_ns)?;
        let done = match made {
            Ok((adjustment, new)) => {
                if let Some(row) = new {
                    let of = Of {
                        stamp: stamp_word(self.stamp),
                        currency: &self.currency,
                        unstamped: self.unstamped,
                    };
                    adjusted::seal(&tx, &self.signer, &of, Made::Booked, row)?;
                }
                Ok(adjustment)
            }
            Err(refused) => Err(refused),
        };
        tx.commit()?;
        Ok(done)
    }
}

impl Reader {
    /// The corrections that were made in a window; none if there are none.
    pub(crate) fn adjustments(
        &self,
        tenant: &str,
        from_ns: u64,
        to_ns: u64,
    ) -> Result<Option<BillAdjustments>, LedgerError> {
        let sql = format!("{SELECT} WHERE tenant = ?1 AND made_ns >= ?2 AND made_ns < ?3 ORDER BY id");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query((tenant, time(from_ns), time(to_ns)))?;
        let mut all = BillAdjustments::default();
        while let Some(row) = rows.next()? {
            let one = read(row)?;
            all.count += 1;
            all.amount_pico = all.amount_pico + one.amount_pico;
            if all.entries.len() < MAX_ADJUSTMENTS {
                all.entries.push(one);
            }
        }
        if all.count == 0 {
            return Ok(None);
        }
        all.due_minor = due_minor(all.amount_pico, &self.currency)?;
        Ok(Some(all))
    }
}

const SELECT: &str = "SELECT name, invocation, amount_pico, reason, made_ns FROM adjustment";

fn read(row: &Row<'_>) -> Result<Adjustment, LedgerError> {
    let id: String = row.get(0)?;
    let invocation = match row.get::<_, Option<String>>(1)? {
        Some(text) => Some(
            text.parse()
                .map_err(|_| LedgerError::Damaged(format!("adjustment {id:?} is of no invocation")))?,
        ),
        None => None,
    };
    Ok(Adjustment {
        invocation,
        amount_pico: Pico(amount(&row.get::<_, String>(2)?)?),
        reason: row.get(3)?,
        made_ns: row.get::<_, i64>(4)?.cast_unsigned(),
        id,
    })
}

fn find(
    conn: &Connection,
    column: &str,
    tenant: &str,
    value: &str,
) -> Result<Option<Adjustment>, LedgerError> {
    let sql = format!("{SELECT} WHERE tenant = ?1 AND {column} = ?2");
    let mut statement = conn.prepare_cached(&sql)?;
    statement.query_row((tenant, value), |row| Ok(read(row))).optional()?.transpose()
}

/// The correction, and its row if it is new.
fn adjust(
    tx: &Connection,
    ask: &AdjustmentAsk,
    now_ns: u64,
) -> Result<Result<(Adjustment, Option<i64>), BudgetRefused>, LedgerError> {
    let refuse = |what: String| Ok(Err(BudgetRefused(what)));
    let AdjustmentAsk { tenant, id, invocation, amount: asked, reason } = ask;
    if [tenant, id, reason].iter().any(|text| !(1..=MAX_TEXT).contains(&text.len())) {
        return refuse(format!("an adjustment has an id and a reason of 1 to {MAX_TEXT} bytes"));
    }
    if let Some(known) = find(tx, "name", tenant, id)? {
        let same = known.invocation == *invocation && asked.is_none_or(|amount| amount == known.amount_pico);
        return if same {
            Ok(Ok((known, None)))
        } else {
            refuse(format!("adjustment {id} was made before, of something else: take a new id"))
        };
    }
    let (amount, key) = match (invocation, asked) {
        (None, None) => return refuse("an adjustment is of an invocation or of an amount".to_owned()),
        (None, Some(Pico(0))) => return refuse("an adjustment of nothing changes nothing".to_owned()),
        (None, Some(amount)) if amount.0.abs() > MOST => {
            return refuse("an adjustment is of at most 10^9 currency units".to_owned());
        }
        (None, Some(amount)) => (*amount, None),
        (Some(invocation), asked) => {
            let found = tx
                .prepare_cached("SELECT cost_pico, record FROM entry WHERE tenant = ?1 AND invocation = ?2")?
                .query_row((tenant, invocation.to_string()), |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
                })
                .optional()?;
            let Some((cost, record)) = found else {
                return refuse(format!("tenant {tenant} has no invocation {invocation} in the ledger"));
            };
            if let Some(other) = find(tx, "invocation", tenant, &invocation.to_string())? {
                return refuse(format!("invocation {invocation} was refunded before, as {}", other.id));
            }
            let cost = i128::from(cost);
            let amount = asked.unwrap_or(Pico(-cost));
            if amount.0 >= 0 || amount.0 < -cost {
                let cost = Pico(cost);
                return refuse(format!(
                    "a refund of {amount} is not possible: invocation {invocation} cost {cost}, give back some of that"
                ));
            }
            let Drawn { draw } = serde_json::from_str(&record).map_err(|e| {
                LedgerError::Damaged(format!("the record of {invocation} does not parse: {e}"))
            })?;
            (amount, draw.and_then(|draw| draw.key))
        }
    };
    // A clock that went back: the corrections of a tenant are in the order of their times.
    let latest: i64 = tx.query_one(
        "SELECT coalesce(max(made_ns), 0) FROM adjustment WHERE tenant = ?1",
        [tenant],
        |row| row.get(0),
    )?;
    let now_ns = now_ns.max(latest.cast_unsigned());
    tx.execute(
        "INSERT INTO adjustment (tenant, name, invocation, draw_key, amount_pico, reason, month, made_ns)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        (
            tenant,
            id,
            invocation.map(|i| i.to_string()),
            key,
            amount.0.to_string(),
            reason,
            month(now_ns),
            now_ns.cast_signed(),
        ),
    )?;
    let (id, reason) = (id.clone(), reason.clone());
    let made = Adjustment { id, invocation: *invocation, amount_pico: amount, reason, made_ns: now_ns };
    Ok(Ok((made, Some(tx.last_insert_rowid()))))
}

/// The sum of a tenant's corrections in a month; of those of a key with a cap, if that is not empty.
pub(crate) fn in_month(conn: &Connection, tenant: &str, key: &str, month: &str) -> Result<i128, LedgerError> {
    sum(
        conn.prepare_cached(
            "SELECT amount_pico FROM adjustment WHERE tenant = ?1 AND month = ?2 AND (?3 = '' OR draw_key = ?3)",
        )?
        .query((tenant, month, key))?,
    )
}

/// The sum of a tenant's corrections after one of them; 0 is before the first.
pub(crate) fn since(conn: &Connection, tenant: &str, id: i64) -> Result<i128, LedgerError> {
    sum(conn
        .prepare_cached("SELECT amount_pico FROM adjustment WHERE tenant = ?1 AND id > ?2")?
        .query((tenant, id))?)
}

fn sum(mut rows: rusqlite::Rows<'_>) -> Result<i128, LedgerError> {
    let mut sum = 0;
    while let Some(row) = rows.next()? {
        sum += amount(&row.get::<_, String>(0)?)?;
    }
    Ok(sum)
}
