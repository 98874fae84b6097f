use rusqlite::OptionalExtension;
use serde_json::value::RawValue;
use wasmeter_receipt::{Chain, Proved, ReceiptLine, prove};
use wasmeter_usage::{InvocationId, Pico, PriceSheet};

use super::seal;
use super::{chain, keys};
use crate::{LedgerError, Reader};

impl Reader {
    /// The receipt of one invocation as one line of JSON, with the price sheet, the signed commit and the way to its root:
    /// all that it takes to check it. `None` if the tenant has no such.
    ///
    /// # Errors
    /// SQLite's, [`LedgerError::Damaged`].
    pub fn receipt_alone(
        &self,
        tenant: &str,
        invocation: InvocationId,
    ) -> Result<Option<String>, LedgerError> {
        let snapshot = self.conn.unchecked_transaction()?;
        let mut statement = snapshot.prepare_cached(
            "SELECT e.position, e.cost_pico, e.record, s.json
             FROM entry e JOIN price_sheet s ON s.id = e.sheet
             WHERE e.tenant = ?1 AND e.invocation = ?2",
        )?;
        let found = statement
            .query_row((tenant, invocation.to_string()), |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, String>(3)?,
                ))
            })
            .optional()?;
        let Some((position, cost, record, sheet)) = found else { return Ok(None) };
        let sheet: PriceSheet = serde_json::from_str(&sheet).map_err(|e| damaged(position, &e))?;
        let of = self.of();
        let (commit, (key_row, signature)) = seal::of_position(&snapshot, &of, position)?;
        let links = seal::links(&snapshot, &commit)?;
        let place = position.cast_unsigned().checked_sub(commit.first_entry);
        let place = place.and_then(|place| usize::try_from(place).ok()).filter(|place| *place < links.len());
        let place = place.ok_or_else(|| LedgerError::Damaged(format!("entry {position} is in no commit")))?;
        let (index, link) = links[place];
        let links: Vec<_> = links.into_iter().map(|(_, link)| link).collect();
        let key = keys::load(&snapshot)?.into_iter().find(|(row, _, _)| *row == key_row);
        let (_, key, _) =
            key.ok_or_else(|| LedgerError::Damaged(format!("key {key_row} of receipts is missing")))?;
        let cost = Pico(i128::from(cost));
        let raw: &RawValue = serde_json::from_str(&record).map_err(|e| damaged(position, &e))?;
        let line = ReceiptLine {
            invocation,
            entry: position.cast_unsigned(),
            cost_pico: cost,
            cost: format!("{cost} {}", self.currency),
            currency: &self.currency,
            record: raw,
            chain: Chain { index, previous: chain::previous(&snapshot, tenant, position)?, link },
            proved: Some(Proved { sheet, key, path: prove(&links, &[place]), commit, signature }),
        };
        serde_json::to_string(&line).map(Some).map_err(|e| damaged(position, &e))
    }
}

/// What the ledger holds cannot be read or written as JSON.
pub(super) fn damaged(position: i64, error: &serde_json::Error) -> LedgerError {
    LedgerError::Damaged(format!("entry {position} cannot be shown: {error}"))
}
