use std::collections::{BTreeMap, HashMap};

use rusqlite::{CachedStatement, Connection, OptionalExtension, TransactionBehavior};
use serde_json::value::RawValue;
use wasmeter_receipt::Made;
use wasmeter_usage::wire::MAX_BATCH;
use wasmeter_usage::{DeviceClass, PriceSheet, UsageRecord};

use crate::balance::Deltas;
use crate::judge::{Booking, judge};
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
    /// rows, high-water marks, and one signed commit over all of it. What is booked already is skipped; a batch that would leave a gap is refused, the others are
    /// booked nonetheless.
    ///
    /// # Errors
    /// SQLite's, and then no batch is booked.
    pub fn append(
        &mut self,
        batches: &[Batch],
        now_ns: u64,
    ) -> Result<Vec<Result<Committed, Refusal>>, LedgerError> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut entries, mut deltas, mut links) = (Entries::new(&tx)?, Deltas::default(), Links::new(&tx)?);
        let outcomes = batches
            .iter()
            .map(|batch| append_one(&mut entries, &self.sheets, batch, now_ns, &mut deltas, &mut links))
            .collect::<Result<Vec<_>, _>>()?;
        deltas.store(&tx)?;
        let of = Of { stamp: stamp_word(self.stamp), currency: &self.currency, unstamped: self.unstamped };
        seal(&tx, &self.signer, &of, Made::Booked, &links, now_ns)?;
        drop((entries, links));
        tx.commit()?;
        Ok(outcomes)
    }
}

/// What writes entries: a statement that is looked up once a transaction.
struct Entries<'c> {
    tx: &'c Connection,
    insert: CachedStatement<'c>,
}

impl<'c> Entries<'c> {
    fn new(tx: &'c Connection) -> Result<Self, LedgerError> {
        let insert = tx.prepare_cached(
            "INSERT INTO entry (spool, seq, tenant, invocation, end_ns, function, sheet, requests, fuel, cpu_ns,
               gpu_ns, tokens_in, tokens_out, egress_bytes, cost_pico, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
             ON CONFLICT (tenant, invocation) DO NOTHING",
        )?;
        Ok(Self { tx, insert })
    }
}

fn append_one(
    entries: &mut Entries<'_>,
    sheets: &HashMap<String, (i64, PriceSheet)>,
    batch: &Batch,
    now_ns: u64,
    deltas: &mut Deltas,
    links: &mut Links<'_>,
) -> Result<Result<Committed, Refusal>, LedgerError> {
    let tx = entries.tx;
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
    // The mark first: entries refer to it.
    let spool = raise(tx, spool, batch, last_seq)?;
    let mut positions: Option<(i64, i64)> = None;
    for (seq, raw) in fresh {
        match book(entries, sheets, (spool, seq), raw, now_ns)? {
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
            Err((reason, detail)) => {
                tx.prepare_cached(
                    "INSERT INTO rejected (spool, seq, reason, detail, raw, rejected_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute((spool, seq.cast_signed(), reason.as_str(), &detail, raw.get(), now_ns.cast_signed()))?;
                done.rejected.push(Rejection { seq, reason, detail });
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

/// An entry's position and what it booked, or why it cannot be booked.
type Booked = Result<(i64, Booking), (Reason, String)>;

/// Judges and inserts; the unique index over invocations has the last word.
fn book(
    entries: &mut Entries<'_>,
    sheets: &HashMap<String, (i64, PriceSheet)>,
    (spool, seq): (i64, u64),
    raw: &RawValue,
    now_ns: u64,
) -> Result<Booked, LedgerError> {
    let booking = match judge(raw, sheets, now_ns) {
        Ok(booking) => booking,
        Err(rejection) => return Ok(Err(rejection)),
    };
    Ok(match insert(entries, spool, seq, raw, &booking)? {
        Some(position) => Ok((position, booking)),
        None => {
            Err((Reason::Duplicate, format!("invocation {} is already booked", booking.record.invocation)))
        }
    })
}

/// The new entry's position; `None` if the invocation is booked already.
fn insert(
    entries: &mut Entries<'_>,
    spool: i64,
    seq: u64,
    raw: &RawValue,
    booking: &Booking,
) -> Result<Option<i64>, LedgerError> {
    let Booking { record, charged, sheet, cost_pico } = booking;
    let tx = entries.tx;
    let inserted = entries.insert.execute((
        spool,
        seq.cast_signed(),
        &record.tenant,
        record.invocation.to_string(),
        record.end_ns.cast_signed(),
        &record.function,
        sheet,
        charged.requests.cast_signed(),
        charged.fuel.cast_signed(),
        charged.cpu_ns.cast_signed(),
        charged.gpu_ns.cast_signed(),
        charged.tokens_in.cast_signed(),
        charged.tokens_out.cast_signed(),
        charged.egress_bytes.cast_signed(),
        cost_pico,
        raw.get(),
    ))?;
    if inserted == 0 {
        return Ok(None);
    }
    let position = tx.last_insert_rowid();
    for ((model, version), (cpu_ns, gpu_ns)) in charged_models(record) {
        tx.prepare_cached(
            "INSERT INTO entry_model (tenant, end_ns, position, model, version, sheet, cpu_ns, gpu_ns)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute((
            &record.tenant,
            record.end_ns.cast_signed(),
            position,
            model,
            version,
            sheet,
            cpu_ns.cast_signed(),
            gpu_ns.cast_signed(),
        ))?;
    }
    Ok(Some(position))
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
