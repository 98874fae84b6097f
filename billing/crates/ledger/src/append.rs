use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use serde_json::value::RawValue;
use wasmeter_receipt::Made;
use wasmeter_usage::wire::MAX_BATCH;
use wasmeter_usage::{DeviceClass, PriceSheet, UsageRecord};

use crate::balance::Deltas;
use crate::entries::{Entries, ROWS, Row};
use crate::judge::judge;
use crate::open::stamp_word;
use crate::receipt::Links;
use crate::receipt::chain::Linked;
use crate::receipt::seal::{Of, seal};
use crate::{Ledger, LedgerError, Reason, Rejection};

/// The longest node name.
const MAX_NODE: usize = 128;

/// Records `first_seq ..` of one spool, each as the JSON that the host sent, which is kept verbatim.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Node.
    pub node: String,
    /// Epoch of its spool.
    pub epoch: u64,
    /// Sequence of the first record; sequences start at 1.
    pub first_seq: u64,
    /// The records, in order, at most [`MAX_BATCH`].
    pub records: Vec<Box<RawValue>>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Everything up to and including this is booked or rejected, and on disk.
    pub acked_seq: u64,
    /// Records booked by this batch.
    pub booked: u64,
    /// Records that can never be booked; a person must look.
    pub rejected: Vec<Rejection>,
}

/// Why a batch changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Records before it are missing.
    #[error("batch begins at sequence {got}, expected at most {expected}; resend from {expected}")]
    Gap {
        /// The next sequence of this spool.
        expected: u64,
        /// The first of the batch.
        got: u64,
    },
    /// Not a batch.
    #[error("{0}")]
    Malformed(String),
}

impl Ledger {
    /// Books batches in one transaction, one after another, whatever their spools: entries with their links, balances, batch
    /// rows, high-water marks, and one signed commit over all of it. What is booked already is skipped; a batch that would
    /// leave a gap is refused, the others are booked nonetheless.
    ///
    /// # Errors
    /// SQLite's, and then no batch is booked.
    pub fn append(
        &mut self,
        batches: &[Batch],
        now_ns: u64,
    ) -> Result<Vec<Result<Committed, Refusal>>, LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut entries = Entries::new(&tx)?;
        let mut deltas = Deltas::default();
        // Lost where this transaction is: then they are read again.
        let mut links = Links::new(&tx, std::mem::take(&mut self.heads));
        let outcomes = batches
            .iter()
            .map(|batch| append_one(&tx, &mut entries, &self.sheets, batch, now_ns, &mut deltas, &mut links))
            .collect::<Result<Vec<_>, _>>()?;
        deltas.store(&tx)?;
        let of = Of { stamp: stamp_word(self.stamp), currency: &self.currency, unstamped: self.unstamped };
        seal(&tx, &self.signer, &of, Made::Booked, &links, now_ns)?;
        drop(entries);
        let heads = links.into_heads();
        tx.commit()?;
        self.heads = heads;
        Ok(outcomes)
    }
}

fn append_one(
    tx: &Connection,
    entries: &mut Entries<'_>,
    sheets: &HashMap<String, (i64, PriceSheet)>,
    batch: &Batch,
    now_ns: u64,
    deltas: &mut Deltas,
    links: &mut Links<'_>,
) -> Result<Result<Committed, Refusal>, LedgerError> {
    if let Some(what) = malformed(batch) {
        return Ok(Err(Refusal::Malformed(what)));
    }
    let (spool, high) = match spool(tx, &batch.node, batch.epoch)? {
        Some((spool, high)) => (Some(spool), high),
        None => (None, 0),
    };
    if batch.first_seq > high + 1 {
        return Ok(Err(Refusal::Gap { expected: high + 1, got: batch.first_seq }));
    }
    let fresh: Vec<_> = (batch.first_seq..).zip(&batch.records).filter(|(seq, _)| *seq > high).collect();
    let mut done = Committed { acked_seq: high, booked: 0, rejected: Vec::new() };
    let (Some((first_seq, _)), Some((last_seq, _))) = (fresh.first(), fresh.last()) else {
        return Ok(Ok(done));
    };
    let (first_seq, last_seq) = (*first_seq, *last_seq);
    // The mark first: rows refer to it.
    let spool = raise(tx, spool, batch, last_seq)?;
    let mut positions: Option<(i64, i64)> = None;
    for part in fresh.chunks(ROWS) {
        let judged: Vec<_> = part.iter().map(|(_, raw)| judge(raw, sheets, now_ns)).collect();
        let rows: Vec<_> = (part.iter().zip(&judged))
            .filter_map(|(&(seq, raw), judged)| {
                judged.as_ref().ok().map(|booking| Row { spool, seq, raw, booking })
            })
            .collect();
        let mut inserted = entries.insert(&rows)?.into_iter();
        for (&(seq, raw), judged) in part.iter().zip(judged) {
            let booked = judged.and_then(|booking| match inserted.next().flatten() {
                Some(position) => Ok((position, booking)),
                None => {
                    let what = format!("invocation {} is already booked", booking.record.invocation);
                    Err((Reason::Duplicate, what))
                }
            });
            match booked {
                Ok((position, booking)) => {
                    let record = &booking.record;
                    deltas.add(&record.tenant, &booking.charged, booking.cost_pico);
                    let entry = Linked {
                        position,
                        tenant: &record.tenant,
                        end_ns: record.end_ns,
                        cost_pico: booking.cost_pico,
                        sheet: &record.price_book,
                        record: raw.get(),
                    };
                    links.add(&entry)?;
                    positions = Some((positions.map_or(position, |(first, _)| first), position));
                    done.booked += 1;
                }
                Err(why) => done.rejected.push(reject(tx, spool, seq, raw, why, now_ns)?),
            }
        }
    }
    tx.prepare_cached(
        "INSERT INTO batch (spool, first_seq, last_seq, first_position, last_position, committed_ns)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((
        spool,
        first_seq.cast_signed(),
        last_seq.cast_signed(),
        positions.map(|p| p.0),
        positions.map(|p| p.1),
        now_ns.cast_signed(),
    ))?;
    done.acked_seq = last_seq;
    Ok(Ok(done))
}

/// Keeps a record that can never be booked.
fn reject(
    tx: &Connection,
    spool: i64,
    seq: u64,
    raw: &RawValue,
    (reason, detail): (Reason, String),
    now_ns: u64,
) -> Result<Rejection, LedgerError> {
    tx.prepare_cached(
        "INSERT INTO rejected (spool, seq, reason, detail, raw, rejected_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((spool, seq.cast_signed(), reason.as_str(), &detail, raw.get(), now_ns.cast_signed()))?;
    Ok(Rejection { seq, reason, detail })
}

fn malformed(batch: &Batch) -> Option<String> {
    let count = batch.records.len();
    if batch.node.is_empty() || batch.node.len() > MAX_NODE {
        return Some(format!("node name has {} bytes; use 1 to {MAX_NODE}", batch.node.len()));
    }
    if count > MAX_BATCH {
        return Some(format!("batch has {count} records; send at most {MAX_BATCH}"));
    }
    let end = u64::try_from(count).ok().and_then(|count| batch.first_seq.checked_add(count));
    if batch.first_seq == 0 || end.is_none_or(|end| i64::try_from(end).is_err()) {
        return Some(format!("first_seq {} is out of range; sequences start at 1", batch.first_seq));
    }
    None
}

/// Row id and high-water mark of a spool.
pub(crate) fn spool(conn: &Connection, node: &str, epoch: u64) -> Result<Option<(i64, u64)>, LedgerError> {
    Ok(conn
        .prepare_cached("SELECT spool, seq FROM high_water WHERE node = ?1 AND epoch = ?2")?
        .query_row((node, epoch.cast_signed()), |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })
        .optional()?)
}

fn raise(tx: &Connection, spool: Option<i64>, batch: &Batch, seq: u64) -> Result<i64, LedgerError> {
    if let Some(spool) = spool {
        tx.prepare_cached("UPDATE high_water SET seq = ?2 WHERE spool = ?1")?
            .execute((spool, seq.cast_signed()))?;
        return Ok(spool);
    }
    tx.prepare_cached("INSERT INTO high_water (node, epoch, seq) VALUES (?1, ?2, ?3)")?.execute((
        &batch.node,
        batch.epoch.cast_signed(),
        seq.cast_signed(),
    ))?;
    Ok(tx.last_insert_rowid())
}

/// Charged CPU and accelerator nanoseconds by model and version, over all devices.
pub(crate) fn charged_models(record: &UsageRecord) -> BTreeMap<(&str, u32), (u64, u64)> {
    let mut sums = BTreeMap::new();
    if record.outcome.is_charged() {
        for used in &record.models {
            let (cpu_ns, gpu_ns) = sums.entry((used.model.as_str(), used.version)).or_insert((0u64, 0u64));
            // A record whose sums do not fit 63 bits was rejected before.
            match used.class {
                DeviceClass::Cpu => *cpu_ns = cpu_ns.saturating_add(used.device_ns),
                DeviceClass::Gpu => *gpu_ns = gpu_ns.saturating_add(used.device_ns),
            }
        }
    }
    sums
}
