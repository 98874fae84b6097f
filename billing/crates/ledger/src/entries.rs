use rusqlite::{CachedStatement, Connection, ErrorCode};
use serde_json::value::RawValue;

use crate::LedgerError;
use crate::append::charged_models;
use crate::judge::Booking;

/// Rows of the statement that inserts many: it finds its way into the tree of each index once, not once a row.
pub(crate) const ROWS: usize = 64;

/// Columns of an entry that are given; its position is SQLite's, one more than the last.
const COLUMNS: &str =
    "spool, seq, tenant, invocation, end_ns, function, sheet, requests, fuel, cpu_ns, gpu_ns, tokens_in,
  tokens_out, egress_bytes, cost_pico, record";
const WIDTH: usize = 16;

/// An entry to be.
pub(crate) struct Row<'a> {
    pub(crate) spool: i64,
    pub(crate) seq: u64,
    pub(crate) raw: &'a RawValue,
    pub(crate) booking: &'a Booking,
}

/// What writes entries: statements that are looked up once a transaction.
pub(crate) struct Entries<'c> {
    tx: &'c Connection,
    one: CachedStatement<'c>,
    many: CachedStatement<'c>,
}

impl<'c> Entries<'c> {
    pub(crate) fn new(tx: &'c Connection) -> Result<Self, LedgerError> {
        let row = format!("(?{})", ", ?".repeat(WIDTH - 1));
        let one =
            format!("INSERT INTO entry ({COLUMNS}) VALUES {row} ON CONFLICT (tenant, invocation) DO NOTHING");
        // FAIL keeps the rows before the one that fails. To take them back, as is the default, SQLite would first write each
        // page that it changes to another file.
        let many = format!(
            "INSERT OR FAIL INTO entry ({COLUMNS}) VALUES {row}{}",
            format!(", {row}").repeat(ROWS - 1)
        );
        Ok(Self { tx, one: tx.prepare_cached(&one)?, many: tx.prepare_cached(&many)? })
    }

    /// Inserts [`ROWS`] rows at most; the position of each, `None` where the invocation is booked already: the unique index
    /// over invocations has the last word.
    pub(crate) fn insert(&mut self, rows: &[Row<'_>]) -> Result<Vec<Option<i64>>, LedgerError> {
        let mut positions = Vec::with_capacity(rows.len());
        if rows.len() == ROWS {
            let inserted = self.insert_many(rows)?;
            let last = self.tx.last_insert_rowid();
            positions.extend((0..inserted).rev().map(|before| Some(last - before)));
        }
        for row in &rows[positions.len()..] {
            positions.push(self.insert_one(row)?);
        }
        for (row, position) in rows.iter().zip(&positions) {
            if let Some(position) = *position {
                self.insert_models(row, position)?;
            }
        }
        Ok(positions)
    }

    /// Inserts rows up to the first that cannot be; how many.
    fn insert_many(&mut self, rows: &[Row<'_>]) -> Result<i64, LedgerError> {
        for (n, row) in rows.iter().enumerate() {
            bind(&mut self.many, n * WIDTH, row)?;
        }
        let inserted = match self.many.raw_execute() {
            Ok(inserted) => inserted as u64,
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => self.tx.changes(),
            Err(e) => return Err(e.into()),
        };
        Ok(inserted.cast_signed())
    }

    fn insert_one(&mut self, row: &Row<'_>) -> Result<Option<i64>, LedgerError> {
        bind(&mut self.one, 0, row)?;
        Ok((self.one.raw_execute()? > 0).then(|| self.tx.last_insert_rowid()))
    }

    fn insert_models(&self, row: &Row<'_>, position: i64) -> Result<(), LedgerError> {
        let Booking { record, sheet, .. } = row.booking;
        for ((model, version), (cpu_ns, gpu_ns)) in charged_models(record) {
            self.tx
                .prepare_cached(
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
        Ok(())
    }
}

/// Binds the columns of a row to the parameters after `at`.
fn bind(statement: &mut CachedStatement<'_>, at: usize, row: &Row<'_>) -> rusqlite::Result<()> {
    let Booking { record, charged, sheet, cost_pico } = row.booking;
    statement.raw_bind_parameter(at + 1, row.spool)?;
    statement.raw_bind_parameter(at + 2, row.seq.cast_signed())?;
    statement.raw_bind_parameter(at + 3, &record.tenant)?;
    statement.raw_bind_parameter(at + 4, record.invocation.to_string())?;
    statement.raw_bind_parameter(at + 5, record.end_ns.cast_signed())?;
    statement.raw_bind_parameter(at + 6, &record.function)?;
    statement.raw_bind_parameter(at + 7, sheet)?;
    statement.raw_bind_parameter(at + 8, charged.requests.cast_signed())?;
    statement.raw_bind_parameter(at + 9, charged.fuel.cast_signed())?;
    statement.raw_bind_parameter(at + 10, charged.cpu_ns.cast_signed())?;
    statement.raw_bind_parameter(at + 11, charged.gpu_ns.cast_signed())?;
    statement.raw_bind_parameter(at + 12, charged.tokens_in.cast_signed())?;
    statement.raw_bind_parameter(at + 13, charged.tokens_out.cast_signed())?;
    statement.raw_bind_parameter(at + 14, charged.egress_bytes.cast_signed())?;
    statement.raw_bind_parameter(at + 15, cost_pico)?;
    statement.raw_bind_parameter(at + 16, row.raw.get())
}
