use rusqlite::{Connection, OptionalExtension};
use serde::Deserialize;
use wasmeter_receipt::{Hash, UNSTAMPED};
use wasmeter_usage::Draw;

use super::adjusted::{Sealed, each};
use super::chain;
use crate::LedgerError;
use crate::budget::month;
use crate::check::CheckReport;

/// The part of a record that says what it drew on.
#[derive(Deserialize)]
struct Drawn {
    #[serde(default)]
    draw: Option<Draw>,
}

/// Recomputes all corrections: their chain and signatures, what they give back of which entry, and their columns.
pub(crate) fn check(
    conn: &Connection,
    (stamp, currency): (&str, &str),
    report: &mut CheckReport,
) -> Result<(), LedgerError> {
    let mut before: Option<(String, u64, Hash, u64)> = None;
    each(conn, currency, |id, sealed| {
        let Sealed { adjusted, hash, public, signature, .. } = &sealed;
        report.adjustments += 1;
        report.adjusted = report.adjusted + adjusted.amount_pico;
        let (index, previous, since) = match &before {
            Some((tenant, index, hash, made_ns)) if *tenant == adjusted.tenant => {
                (index + 1, *hash, *made_ns)
            }
            _ => (1, Hash::ZERO, 0),
        };
        let mut wrong = Vec::new();
        if (adjusted.index, adjusted.previous) != (index, previous) {
            wrong.push("it does not hang on the one before");
        }
        if adjusted.hash() != *hash {
            wrong.push("it does not hash to what is kept");
        }
        if !public.signed(&adjusted.text(), signature) {
            wrong.push("the signature is not by its key over what it says");
        }
        if adjusted.stamp != stamp && adjusted.stamp != UNSTAMPED {
            wrong.push("the stamp is another ledger's");
        }
        if adjusted.made_ns < since {
            wrong.push("it was made before the one before");
        }
        if link(conn, &adjusted.tenant, adjusted.chain)? != Some(adjusted.head) {
            wrong.push("it names a link that is not in the chain of entries");
        }
        wrong.extend(columns(conn, id, &sealed)?);
        for what in wrong {
            report.fault(format!("adjustment {:?} of {:?}: {what}", adjusted.id, adjusted.tenant));
        }
        before = Some((adjusted.tenant.clone(), adjusted.index, *hash, adjusted.made_ns));
        Ok(())
    })?;
    let bare: i64 = conn.query_one(
        "SELECT count(*) FROM adjustment WHERE id NOT IN (SELECT adjustment FROM adjustment_seal)",
        [],
        |row| row.get(0),
    )?;
    if bare > 0 {
        report.fault(format!("{bare} adjustments are not signed"));
    }
    Ok(())
}

/// The month that it counts in, the key that it is given back to, and that no more is given back than was taken.
fn columns(conn: &Connection, id: i64, sealed: &Sealed) -> Result<Vec<&'static str>, LedgerError> {
    let adjusted = &sealed.adjusted;
    let (counted, key): (String, Option<String>) =
        conn.query_one("SELECT month, draw_key FROM adjustment WHERE id = ?1", [id], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let mut wrong = Vec::new();
    if counted != month(adjusted.made_ns) {
        wrong.push("the month is not that of its making");
    }
    let Some(invocation) = &adjusted.invocation else {
        if key.is_some() {
            wrong.push("it is of no invocation and has a key");
        }
        return Ok(wrong);
    };
    let entry: Option<(i64, String)> = conn
        .prepare_cached("SELECT cost_pico, record FROM entry WHERE tenant = ?1 AND invocation = ?2")?
        .query_row((&adjusted.tenant, invocation), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((cost, record)) = entry else {
        wrong.push("its invocation is not in the ledger");
        return Ok(wrong);
    };
    let amount = adjusted.amount_pico.0;
    if amount >= 0 || amount < -i128::from(cost) {
        wrong.push("it gives back more than the invocation cost, or nothing");
    }
    let drawn = serde_json::from_str::<Drawn>(&record).ok().and_then(|d| d.draw).and_then(|d| d.key);
    if drawn != key {
        wrong.push("the key is not the one that the invocation drew on");
    }
    Ok(wrong)
}

/// The link at a place in a tenant's chain; zero before the first.
fn link(conn: &Connection, tenant: &str, place: u64) -> Result<Option<Hash>, LedgerError> {
    if place == 0 {
        return Ok(Some(Hash::ZERO));
    }
    let position: Option<i64> = conn
        .prepare_cached(
            "SELECT position FROM entry INDEXED BY entry_page WHERE tenant = ?1 ORDER BY position LIMIT 1 OFFSET ?2",
        )?
        .query_row((tenant, place.cast_signed() - 1), |row| row.get(0))
        .optional()?;
    let Some(position) = position else { return Ok(None) };
    Ok(chain::find(conn, position)?.map(|(_, link)| link))
}
