use rusqlite::{Connection, TransactionBehavior};
use wasmeter_receipt::{MAX_COMMIT, Made};

use super::chain::{Heads, Linked};
use super::seal::{Of, seal};
use super::{Links, Signer};
use crate::LedgerError;

/// Entries of one adopting transaction: what a crash in the middle repeats.
const PART: i64 = 16_384;

const _: () = assert!(PART as usize <= MAX_COMMIT);

/// Chains and signs the entries that a ledger from before there were commits brings. A crash in between loses nothing: the
/// next start goes on behind the last commit.
pub(crate) fn adopt(
    conn: &mut Connection,
    signer: &Signer,
    of: &Of<'_>,
    now_ns: u64,
) -> Result<u64, LedgerError> {
    let mut adopted = 0;
    let mut heads = Heads::new();
    loop {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut links = Links::new(&tx, std::mem::take(&mut heads));
        let mut count = 0;
        {
            let mut statement = tx.prepare_cached(
                "SELECT e.position, e.tenant, e.end_ns, e.cost_pico, s.hash, e.record
                 FROM entry e JOIN price_sheet s ON s.id = e.sheet
                 WHERE e.position > coalesce((
                   SELECT first_position + entries - 1 FROM signed_commit ORDER BY number DESC LIMIT 1), 0)
                 ORDER BY e.position LIMIT ?1",
            )?;
            let mut rows = statement.query([PART])?;
            while let Some(row) = rows.next()? {
                let text = |at| row.get_ref(at).and_then(|value| Ok(value.as_str()?));
                let entry = Linked {
                    position: row.get(0)?,
                    tenant: text(1)?,
                    end_ns: row.get::<_, i64>(2)?.cast_unsigned(),
                    cost_pico: row.get(3)?,
                    sheet: text(4)?,
                    record: text(5)?,
                };
                links.add(&entry)?;
                count += 1;
            }
        }
        if count == 0 {
            return Ok(adopted);
        }
        seal(&tx, signer, of, Made::Adopted, &links, now_ns)?;
        heads = links.into_heads();
        tx.commit()?;
        adopted += count;
    }
}
