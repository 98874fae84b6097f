use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior};
use wasmeter_receipt::{Adjusted, Adjustments, Hash, Made, PublicKey, Signature};
use wasmeter_usage::Pico;

use super::seal::Of;
use super::{Signer, chain};
use crate::LedgerError;
use crate::budget::amount;
use crate::sums::time;

/// Corrections of one adopting transaction.
const PART: u32 = 1_000;

/// A correction with its seal, as [`read`] takes it.
const SELECT: &str =
    "SELECT a.id, a.tenant, a.name, a.invocation, a.amount_pico, a.reason, a.made_ns, s.chain, s.made,
  s.stamp, s.entries, s.head, s.previous, s.hash, s.key, s.signature, k.public
  FROM adjustment a JOIN adjustment_seal s ON s.adjustment = a.id JOIN receipt_key k ON k.id = s.key";

/// A correction as it was signed, the hash that is kept, and what signed it.
pub(crate) struct Sealed {
    pub(crate) adjusted: Adjusted,
    pub(crate) hash: Hash,
    pub(crate) key: i64,
    pub(crate) public: PublicKey,
    pub(crate) signature: Signature,
}

/// Signs a correction, as the next of its tenant's.
pub(crate) fn seal(
    conn: &Connection,
    signer: &Signer,
    of: &Of<'_>,
    made: Made,
    id: i64,
) -> Result<(), LedgerError> {
    let (tenant, name, invocation, pico, reason, made_ns) = conn.query_one(
        "SELECT tenant, name, invocation, amount_pico, reason, made_ns FROM adjustment WHERE id = ?1",
        [id],
        |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get::<_, String>(3)?,
                row.get(4)?,
                row.get::<_, i64>(5)?.cast_unsigned(),
            ))
        },
    )?;
    let (before, previous) = last(conn, &tenant)?.unwrap_or((0, Hash::ZERO));
    let (entries, head) = chain::head(conn, &tenant, i64::MAX)?.unwrap_or((0, Hash::ZERO));
    let adjusted = Adjusted {
        stamp: of.stamp.to_owned(),
        currency: of.currency.to_owned(),
        made,
        index: before + 1,
        previous,
        id: name,
        invocation,
        amount_pico: Pico(amount(&pico)?),
        reason,
        made_ns,
        chain: entries,
        head,
        key: signer.id,
        tenant,
    };
    let signature = signer.sign(&adjusted.text())?;
    conn.execute(
        "INSERT INTO adjustment_seal VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        (
            id,
            &adjusted.tenant,
            adjusted.index.cast_signed(),
            made.as_str(),
            &adjusted.stamp,
            entries.cast_signed(),
            head.0,
            previous.0,
            adjusted.hash().0,
            signer.row,
            signature.0,
        ),
    )?;
    Ok(())
}

/// Signs the corrections that a ledger from before they were signed brings.
pub(crate) fn adopt(conn: &mut Connection, signer: &Signer, of: &Of<'_>) -> Result<(), LedgerError> {
    loop {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let bare: Vec<i64> = tx
            .prepare_cached(
                "SELECT id FROM adjustment WHERE id NOT IN (SELECT adjustment FROM adjustment_seal)
                 ORDER BY tenant, made_ns, id LIMIT ?1",
            )?
            .query_map([PART], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if bare.is_empty() {
            return Ok(());
        }
        for id in bare {
            seal(&tx, signer, of, Made::Adopted, id)?;
        }
        tx.commit()?;
    }
}

/// Number and hash of a tenant's last correction.
fn last(conn: &Connection, tenant: &str) -> Result<Option<(u64, Hash)>, LedgerError> {
    Ok(conn
        .prepare_cached(
            "SELECT chain, hash FROM adjustment_seal WHERE tenant = ?1 ORDER BY chain DESC LIMIT 1",
        )?
        .query_row([tenant], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), Hash(row.get(1)?))))
        .optional()?)
}

/// What a statement says of a window; `None` where the tenant never had a correction.
pub(crate) fn stated(
    conn: &Connection,
    tenant: &str,
    (from_ns, to_ns): (u64, u64),
) -> Result<Option<Adjustments>, LedgerError> {
    let Some((chain, head)) = last(conn, tenant)? else { return Ok(None) };
    let mut all = Adjustments { count: 0, amount_pico: Pico::ZERO, first: 0, last: 0, chain, head };
    let mut statement = conn.prepare_cached(
        "SELECT s.chain, a.amount_pico FROM adjustment a JOIN adjustment_seal s ON s.adjustment = a.id
         WHERE a.tenant = ?1 AND a.made_ns >= ?2 AND a.made_ns < ?3 ORDER BY s.chain",
    )?;
    let mut rows = statement.query((tenant, time(from_ns), time(to_ns)))?;
    while let Some(row) = rows.next()? {
        let index = row.get::<_, i64>(0)?.cast_unsigned();
        if all.count == 0 {
            all.first = index;
        }
        all.last = index;
        all.count += 1;
        all.amount_pico = all.amount_pico + Pico(amount(&row.get::<_, String>(1)?)?);
    }
    Ok(Some(all))
}

/// A tenant's corrections after one place and up to another, in order.
pub(crate) fn page(
    conn: &Connection,
    currency: &str,
    tenant: &str,
    (after, last): (u64, u64),
    limit: u32,
) -> Result<Vec<Sealed>, LedgerError> {
    let sql =
        format!("{SELECT} WHERE s.tenant = ?1 AND s.chain > ?2 AND s.chain <= ?3 ORDER BY s.chain LIMIT ?4");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query((tenant, time(after), time(last), limit))?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row, currency)?);
    }
    Ok(all)
}

/// Hands over all corrections, by tenant and place.
pub(crate) fn each(
    conn: &Connection,
    currency: &str,
    mut take: impl FnMut(i64, Sealed) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let mut statement = conn.prepare(&format!("{SELECT} ORDER BY s.tenant, s.chain"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row.get(0)?, read(row, currency)?)?;
    }
    Ok(())
}

fn read(row: &Row<'_>, currency: &str) -> Result<Sealed, LedgerError> {
    let id: i64 = row.get(0)?;
    let damaged = |what: &str| LedgerError::Damaged(format!("{what} of adjustment {id} cannot be read"));
    let made: String = row.get(8)?;
    let public: String = row.get(16)?;
    let public = PublicKey::parse(&public).ok_or_else(|| damaged("the key"))?;
    let adjusted = Adjusted {
        tenant: row.get(1)?,
        stamp: row.get(9)?,
        currency: currency.to_owned(),
        made: Made::parse(&made).ok_or_else(|| damaged("`made`"))?,
        index: row.get::<_, i64>(7)?.cast_unsigned(),
        previous: Hash(row.get(12)?),
        id: row.get(2)?,
        invocation: row.get(3)?,
        amount_pico: Pico(amount(&row.get::<_, String>(4)?)?),
        reason: row.get(5)?,
        made_ns: row.get::<_, i64>(6)?.cast_unsigned(),
        chain: row.get::<_, i64>(10)?.cast_unsigned(),
        head: Hash(row.get(11)?),
        key: public.id(),
    };
    Ok(Sealed {
        adjusted,
        hash: Hash(row.get(13)?),
        key: row.get(14)?,
        public,
        signature: Signature(row.get(15)?),
    })
}
