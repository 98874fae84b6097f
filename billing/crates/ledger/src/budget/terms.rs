use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use wasmeter_usage::{BudgetState, BudgetTerms, Budgeted, MAX_KEYS, MAX_THRESHOLDS, Pico};

use super::catch_up::catch_up;
use super::{credit, month, reserved, spent};
use crate::{Ledger, LedgerError, Reader};

/// No amount is larger: 10^15 of the currency unit.
const MOST: i128 = Pico::UNIT * 1_000_000_000_000_000;

/// The longest name of a key, a grant, an address or a note.
const MAX_TEXT: usize = 512;

/// Why a budget was not set, a credit not granted or a lease not given. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BudgetRefused(pub(crate) String);

impl BudgetRefused {
    /// With the reason, for who asked.
    #[must_use]
    pub fn new(reason: String) -> Self {
        Self(reason)
    }
}

type Done<T> = Result<Result<T, BudgetRefused>, LedgerError>;

impl Ledger {
    /// Sets the budget of a tenant, all of it. From the first time that it is prepaid, credits pay.
    ///
    /// # Errors
    /// SQLite's.
    pub fn set_budget(&mut self, tenant: &str, terms: &BudgetTerms, now_ns: u64) -> Done<BudgetState> {
        if let Err(refused) = check(tenant, terms) {
            return Ok(Err(refused));
        }
        let currency = self.currency().to_owned();
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        store(&tx, tenant, terms, now_ns)?;
        let state = state(&tx, tenant, &currency, now_ns)?;
        tx.commit()?;
        Ok(Ok(state))
    }

    /// Grants credits; the same id again changes nothing. A tenant is prepaid from its first grant on.
    ///
    /// # Errors
    /// SQLite's.
    pub fn grant_credit(
        &mut self,
        tenant: &str,
        id: &str,
        amount: Pico,
        note: &str,
        now_ns: u64,
    ) -> Done<BudgetState> {
        let fits = [tenant, id].iter().all(|t| (1..=MAX_TEXT).contains(&t.len())) && note.len() <= MAX_TEXT;
        if !fits || !(1..=MOST).contains(&amount.0) {
            return Ok(Err(BudgetRefused(format!(
                "a grant has an id, a note of at most {MAX_TEXT} bytes and an amount above zero"
            ))));
        }
        let currency = self.currency().to_owned();
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let known = tx
            .query_row("SELECT amount_pico FROM credit WHERE tenant = ?1 AND id = ?2", (tenant, id), |row| {
                row.get::<_, String>(0)
            })
            .optional()?;
        match known {
            Some(text) if text != amount.0.to_string() => {
                return Ok(Err(BudgetRefused(format!(
                    "grant {id} was made before, of another amount: take a new id"
                ))));
            }
            Some(_) => {}
            None => {
                tx.execute(
                    "INSERT INTO credit VALUES (?1, ?2, ?3, ?4, ?5)",
                    (tenant, id, amount.0.to_string(), note, now_ns.cast_signed()),
                )?;
                let before = current(&tx, tenant)?.unwrap_or_default();
                if !before.prepaid {
                    store(&tx, tenant, &BudgetTerms { prepaid: true, ..before }, now_ns)?;
                }
            }
        }
        let state = state(&tx, tenant, &currency, now_ns)?;
        tx.commit()?;
        Ok(Ok(state))
    }

    /// A tenant's budget, and what became of it up to now.
    ///
    /// # Errors
    /// SQLite's.
    pub fn budget(&mut self, tenant: &str, now_ns: u64) -> Result<BudgetState, LedgerError> {
        let currency = self.currency().to_owned();
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let state = state(&tx, tenant, &currency, now_ns)?;
        tx.commit()?;
        Ok(state)
    }
}

impl Reader {
    /// The tenants that need leases, sorted.
    ///
    /// # Errors
    /// SQLite's.
    pub fn budgets(&self) -> Result<Vec<Budgeted>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT tenant, terms FROM budget WHERE id IN (SELECT max(id) FROM budget GROUP BY tenant)
             ORDER BY tenant",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        let mut all = Vec::new();
        for row in rows {
            let (tenant, text): (String, String) = row?;
            let terms = parse(&tenant, &text)?;
            if terms.is_limited() || !terms.keys.is_empty() {
                let limited = terms.is_limited();
                all.push(Budgeted { tenant, limited, keys: terms.keys.into_keys().collect() });
            }
        }
        Ok(all)
    }
}

/// The terms of a tenant now; `None` if none were ever set.
pub(crate) fn current(conn: &Connection, tenant: &str) -> Result<Option<BudgetTerms>, LedgerError> {
    let text = conn
        .prepare_cached("SELECT terms FROM budget WHERE tenant = ?1 ORDER BY id DESC LIMIT 1")?
        .query_row([tenant], |row| row.get::<_, String>(0))
        .optional()?;
    text.map(|text| parse(tenant, &text)).transpose()
}

fn parse(tenant: &str, text: &str) -> Result<BudgetTerms, LedgerError> {
    serde_json::from_str(text)
        .map_err(|e| LedgerError::Damaged(format!("the budget of {tenant:?} does not parse: {e}")))
}

fn store(conn: &Connection, tenant: &str, terms: &BudgetTerms, now_ns: u64) -> Result<(), LedgerError> {
    catch_up(conn, tenant, now_ns)?;
    if terms.prepaid {
        let Pico(cost) = crate::balance::cost(conn, tenant)?;
        conn.execute(
            "UPDATE budget_read SET since_pico = ?2,
               since_adjustment = (SELECT coalesce(max(id), 0) FROM adjustment)
             WHERE tenant = ?1 AND since_pico IS NULL",
            (tenant, cost.to_string()),
        )?;
    }
    if current(conn, tenant)?.as_ref() == Some(terms) {
        return Ok(());
    }
    let text = serde_json::to_string(terms).map_err(|e| LedgerError::Damaged(e.to_string()))?;
    conn.execute(
        "INSERT INTO budget (tenant, terms, set_ns) VALUES (?1, ?2, ?3)",
        (tenant, text, now_ns.cast_signed()),
    )?;
    Ok(())
}

fn state(conn: &Connection, tenant: &str, currency: &str, now_ns: u64) -> Result<BudgetState, LedgerError> {
    let terms = current(conn, tenant)?;
    if terms.is_some() {
        catch_up(conn, tenant, now_ns)?;
    }
    let month = month(now_ns);
    let mut keys_spent = BTreeMap::new();
    for key in terms.iter().flat_map(|t| t.keys.keys()) {
        keys_spent.insert(key.clone(), Pico(spent(conn, tenant, key, &month)?));
    }
    let reserved = reserved(conn, tenant, "", now_ns)?;
    let (granted, left) = credit(conn, tenant)?;
    Ok(BudgetState {
        tenant: tenant.to_owned(),
        currency: currency.to_owned(),
        terms,
        spent: Pico(spent(conn, tenant, "", &month)?),
        month,
        reserved: Pico(reserved),
        granted: Pico(granted),
        credit_left: Pico(left),
        keys_spent,
        fired: crate::alert::latest(conn, tenant)?,
    })
}

fn check(tenant: &str, terms: &BudgetTerms) -> Result<(), BudgetRefused> {
    let refuse = |what: String| Err(BudgetRefused(what));
    if tenant.is_empty() || tenant.len() > MAX_TEXT {
        return refuse("a budget is of a tenant".to_owned());
    }
    let amounts = terms.monthly.iter().chain(terms.keys.values());
    if let Some(amount) = amounts.into_iter().find(|a| !(0..=MOST).contains(&a.0)) {
        return refuse(format!("a budget of {amount} is not possible: use 0 to 10^15"));
    }
    if terms.keys.len() > MAX_KEYS {
        return refuse(format!("{} keys have caps; a tenant has at most {MAX_KEYS}", terms.keys.len()));
    }
    if let Some(key) = terms.keys.keys().find(|k| !(1..=MAX_TEXT).contains(&k.len())) {
        return refuse(format!("a key has 1 to {MAX_TEXT} bytes, not {}", key.len()));
    }
    let alerts = &terms.alerts;
    if alerts.percent.len() > MAX_THRESHOLDS || alerts.percent.iter().any(|p| !(1..=1000).contains(p)) {
        return refuse(format!("alerts are at most {MAX_THRESHOLDS} thresholds of 1 to 1000 per cent"));
    }
    if alerts.webhook.iter().chain(&alerts.email).any(|text| text.len() > MAX_TEXT) {
        return refuse(format!("an address of an alert has at most {MAX_TEXT} bytes"));
    }
    let told = alerts.webhook.is_some() || alerts.email.is_some();
    if told && alerts.percent.is_empty() {
        return refuse(
            "alerts have an address and no thresholds: say at which per cent, such as 80 and 100".to_owned(),
        );
    }
    if !told && !alerts.percent.is_empty() {
        return refuse("alerts name nobody: say who is told, a webhook or a mail address".to_owned());
    }
    if told && !terms.is_limited() {
        return refuse(
            "alerts are of a monthly budget or of credits, and there is neither: set a monthly budget too"
                .to_owned(),
        );
    }
    Ok(())
}
