use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Row};
use wasmeter_rating::sheet_hash;
use wasmeter_usage::{Pico, PriceSheet, UsageRecord};

use crate::append::charged_models;
use crate::balance::Deltas;
use crate::open::load_sheets;
use crate::receipt::check::ChainCheck;
use crate::receipt::check_adjusted;
use crate::{LedgerError, Reader};

/// Only so many faults are told one by one.
const MAX_FAULTS: usize = 100;

/// What [`Reader::check`] found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Entries recomputed.
    pub entries: u64,
    /// Tenants with a balance.
    pub tenants: u64,
    /// Spools with a high-water mark.
    pub spools: u64,
    /// Signed commits.
    pub commits: u64,
    /// Rejected records by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Sum of all entries' costs.
    pub list_total: Pico,
    /// Refunds and other corrections recomputed.
    pub adjustments: u64,
    /// Their sum.
    pub adjusted: Pico,
    /// How many faults there are.
    pub faults: u64,
    /// The first hundred of them.
    pub first_faults: Vec<String>,
}

impl CheckReport {
    pub(crate) fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.first_faults.len() < MAX_FAULTS {
            self.first_faults.push(what);
        }
    }
}

/// Model, version -> uses, CPU and accelerator nanoseconds, by tenant.
type ModelSums = BTreeMap<(String, String, i64), (i128, i128, i128)>;

impl Reader {
    /// Recomputes, on one snapshot, every entry from its record and price sheet, all balances, the rows by model, all links,
    /// commits, corrections and signatures, and whether sequences, batches and positions have no gap. `progress` is told the entries done and their number.
    ///
    /// # Errors
    /// SQLite's. Faults in the data are no errors: they are in the report.
    pub fn check(&self, mut progress: impl FnMut(u64, u64)) -> Result<CheckReport, LedgerError> {
        let snapshot = self.conn.unchecked_transaction()?;
        let mut report = CheckReport::default();
        let sound: String = snapshot.query_one("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            report.fault(format!("SQLite finds: {sound}"));
        }
        let sheets = check_sheets(&snapshot, &self.currency, &mut report)?;
        let total: i64 = snapshot.query_one("SELECT count(*) FROM entry", [], |row| row.get(0))?;
        let (mut balances, mut models) = (Deltas::default(), ModelSums::new());

        let mut statement = snapshot.prepare(
            "SELECT position, tenant, invocation, end_ns, function, sheet, requests, fuel, cpu_ns, gpu_ns, tokens_in,
               tokens_out, egress_bytes, cost_pico, record, spool, seq
             FROM entry ORDER BY position",
        )?;
        let mut rows = statement.query([])?;
        let mut chains = ChainCheck::new(&snapshot, self.of())?;
        let mut sequences = SequenceCheck::default();
        while let Some(row) = rows.next()? {
            report.entries += 1;
            let position: i64 = row.get(0)?;
            if position.cast_unsigned() != report.entries {
                report.fault(format!("entry {position} stands at place {}", report.entries));
            }
            if let Err(what) = check_entry(row, &sheets, &mut balances, &mut models, &mut report.list_total)?
            {
                report.fault(format!("entry {position}: {what}"));
            }
            chains.entry(row, &sheets, &mut report)?;
            sequences.entry(&snapshot, row.get(15)?, row.get(16)?)?;
            progress(report.entries, total.cast_unsigned());
        }
        chains.finish(&mut report)?;
        check_models(&snapshot, models, &mut report)?;
        report.tenants = balances.0.len() as u64;
        let stored = Deltas::load(&snapshot)?;
        for tenant in balances.0.keys().chain(stored.0.keys().filter(|t| !balances.0.contains_key(*t))) {
            if balances.0.get(tenant) != stored.0.get(tenant) {
                report.fault(format!("balance of {tenant:?} is not the sum of its entries"));
            }
        }
        check_adjusted::check(&snapshot, (&self.stamp, &self.currency), &mut report)?;
        sequences.finish(&snapshot, &mut report)?;
        check_batches(&snapshot, &mut report)?;
        let mut statement = snapshot.prepare("SELECT reason, count(*) FROM rejected GROUP BY reason")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            report.rejected.insert(row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned());
        }
        Ok(report)
    }
}

fn check_sheets(
    conn: &Connection,
    currency: &str,
    report: &mut CheckReport,
) -> Result<HashMap<i64, PriceSheet>, LedgerError> {
    let sheets: HashMap<_, _> = load_sheets(conn)?.into_iter().collect();
    for (id, sheet) in &sheets {
        if sheet_hash(sheet) != sheet.hash || sheet.currency != currency {
            report.fault(format!(
                "price sheet {id} is not what its hash {} says, or not in {currency}",
                sheet.hash
            ));
        }
    }
    Ok(sheets)
}

/// Compares one entry with what its record says, and adds what it says to the sums.
fn check_entry(
    row: &Row<'_>,
    sheets: &HashMap<i64, PriceSheet>,
    balances: &mut Deltas,
    models: &mut ModelSums,
    total: &mut Pico,
) -> Result<Result<(), &'static str>, LedgerError> {
    let text = row.get_ref(14)?.as_str().map_err(rusqlite::Error::from)?;
    let Ok(record) = serde_json::from_str::<UsageRecord>(text) else {
        return Ok(Err("the record does not parse"));
    };
    let cost_pico: i64 = row.get(13)?;
    *total = *total + Pico(i128::from(cost_pico));
    let charged = record.quantities();
    balances.add(&record.tenant, &charged, cost_pico);
    for ((model, version), (cpu_ns, gpu_ns)) in charged_models(&record) {
        let key = (record.tenant.clone(), model.to_owned(), i64::from(version));
        let sum = models.entry(key).or_insert((0, 0, 0));
        *sum = (sum.0 + 1, sum.1 + i128::from(cpu_ns), sum.2 + i128::from(gpu_ns));
    }
    let columns = (row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, i64>(3)?, row.get(4)?);
    let told = (
        record.tenant.clone(),
        record.invocation.to_string(),
        record.end_ns.cast_signed(),
        record.function.clone(),
    );
    if columns != told {
        return Ok(Err("tenant, invocation, end or function are not the record's"));
    }
    let columns = (6..13).map(|at| row.get::<_, i64>(at)).collect::<Result<Vec<_>, _>>()?;
    let told = [
        charged.requests,
        charged.fuel,
        charged.cpu_ns,
        charged.gpu_ns,
        charged.tokens_in,
        charged.tokens_out,
        charged.egress_bytes,
    ];
    if columns != told.map(u64::cast_signed) {
        return Ok(Err("the quantities are not the record's"));
    }
    match sheets.get(&row.get(5)?) {
        Some(sheet) if sheet.hash != record.price_book => Ok(Err("the price sheet is not the record's")),
        Some(sheet) if sheet.cost(&record) != Some(Pico(i128::from(cost_pico))) => {
            Ok(Err("the cost is not that of the record under its price sheet"))
        }
        Some(_) => Ok(Ok(())),
        None => Ok(Err("the price sheet is missing")),
    }
}

fn check_models(conn: &Connection, mut told: ModelSums, report: &mut CheckReport) -> Result<(), LedgerError> {
    // Row by row, because SQLite's sums fail beyond 64 bits.
    let mut statement = conn.prepare("SELECT tenant, model, version, cpu_ns, gpu_ns FROM entry_model")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = (row.get(0)?, row.get(1)?, row.get(2)?);
        let sum = told.entry(key).or_insert((0, 0, 0));
        *sum =
            (sum.0 - 1, sum.1 - i128::from(row.get::<_, i64>(3)?), sum.2 - i128::from(row.get::<_, i64>(4)?));
    }
    for ((tenant, model, version), left) in told {
        if left != (0, 0, 0) {
            report.fault(format!("rows of model {model}@{version} of {tenant:?} are not the entries'"));
        }
    }
    Ok(())
}

/// Sequences 1 to the high-water mark of each spool, each booked or rejected exactly once. A spool's entries stand in the
/// order of their sequences.
#[derive(Default)]
struct SequenceCheck {
    spools: HashMap<i64, Sequences>,
}

/// Of one spool, so far.
#[derive(Default)]
struct Sequences {
    /// The last that was met.
    last: i64,
    /// How many before it are rejected.
    rejected: i64,
    gap: Option<String>,
}

impl SequenceCheck {
    fn entry(&mut self, conn: &Connection, spool: i64, seq: i64) -> Result<(), LedgerError> {
        let of = self.spools.entry(spool).or_default();
        let last = of.last;
        if !of.go_on(conn, spool, seq)? && of.gap.is_none() {
            of.gap = Some(format!("sequence {seq} follows {last}"));
        }
        Ok(())
    }

    fn finish(mut self, conn: &Connection, report: &mut CheckReport) -> Result<(), LedgerError> {
        let mut marks = conn.prepare("SELECT spool, node, epoch, seq FROM high_water ORDER BY spool")?;
        let mut rejected =
            conn.prepare("SELECT count(*), coalesce(max(seq), 0) FROM rejected WHERE spool = ?1")?;
        let mut rows = marks.query([])?;
        while let Some(row) = rows.next()? {
            report.spools += 1;
            let (spool, node, epoch, mark): (i64, String, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let mut of = self.spools.remove(&spool).unwrap_or_default();
            let (count, last_rejected): (i64, i64) =
                rejected.query_row([spool], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let last = of.last.max(last_rejected);
            let to_the_mark = of.go_on(conn, spool, mark.saturating_add(1))?;
            if of.gap.is_none() && (!to_the_mark || last > mark) {
                of.gap = Some(format!("the last sequence is {last}, the mark {mark}"));
            }
            if of.gap.is_none() && of.rejected != count {
                of.gap = Some("a sequence is booked and rejected".to_owned());
            }
            if let Some(what) = of.gap {
                report.fault(format!("spool {node:?} epoch {}: {what}", epoch.cast_unsigned()));
            }
        }
        for spool in self.spools.keys() {
            report.fault(format!("spool {spool} has entries and no mark"));
        }
        Ok(())
    }
}

impl Sequences {
    /// Goes on to a sequence; whether all between it and the last are rejected.
    fn go_on(&mut self, conn: &Connection, spool: i64, seq: i64) -> Result<bool, LedgerError> {
        let last = std::mem::replace(&mut self.last, seq);
        if last.checked_add(1) == Some(seq) {
            return Ok(true);
        }
        let rejected: i64 = conn
            .prepare_cached("SELECT count(*) FROM rejected WHERE spool = ?1 AND seq > ?2 AND seq < ?3")?
            .query_row((spool, last, seq), |row| row.get(0))?;
        self.rejected += rejected;
        Ok(seq.checked_sub(last).is_some_and(|step| step > 0 && rejected == step - 1))
    }
}

/// Batches follow each other without a gap, in positions and, by spool, in sequences.
fn check_batches(conn: &Connection, report: &mut CheckReport) -> Result<(), LedgerError> {
    let mut statement = conn.prepare(
        "SELECT id, spool, first_seq, last_seq, first_position, last_position FROM batch ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut last_position = 0i64;
    let mut last_seq: HashMap<i64, i64> = HashMap::new();
    while let Some(row) = rows.next()? {
        let (id, spool, first, last): (i64, i64, i64, i64) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let before = last_seq.insert(spool, last).unwrap_or(0);
        if first != before + 1 || last < first {
            report.fault(format!("batch {id}: sequences {first} to {last} follow {before}"));
        }
        if let (Some(first), Some(last)) = (row.get::<_, Option<i64>>(4)?, row.get::<_, Option<i64>>(5)?) {
            if first != last_position + 1 || last < first {
                report.fault(format!("batch {id}: positions {first} to {last} follow {last_position}"));
            }
            last_position = last;
        }
    }
    if last_position.cast_unsigned() != report.entries {
        report.fault(format!("batches end at position {last_position}, entries at {}", report.entries));
    }
    Ok(())
}
