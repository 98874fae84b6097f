use rusqlite::Row;
use wasmeter_rating::AmountError;
use wasmeter_usage::{Pico, Quantities};

use crate::LedgerError;

/// Exact sums of 64-bit columns. SQLite's `sum` fails beyond 64 bits, so each column is summed in two halves of 32
/// bits and put together in Rust.
pub(crate) fn sums_sql(columns: &[&str]) -> String {
    let halves: Vec<_> = columns.iter().map(|c| format!("sum({c} >> 32), sum({c} & 4294967295)")).collect();
    halves.join(", ")
}

/// The columns that [`Sums::read`] expects, in its order.
pub(crate) const COLUMNS: [&str; 8] =
    ["requests", "fuel", "cpu_ns", "gpu_ns", "tokens_in", "tokens_out", "egress_bytes", "cost_pico"];

/// The sum whose two halves begin at column `at`.
pub(crate) fn read_sum(row: &Row<'_>, at: usize) -> Result<i128, LedgerError> {
    let (high, low): (i64, i64) = (row.get(at)?, row.get(at + 1)?);
    Ok((i128::from(high) << 32) + i128::from(low))
}

/// Sums of [`COLUMNS`] over a group of entries.
pub(crate) struct Sums {
    pub(crate) charged: Quantities,
    pub(crate) cost: Pico,
}

impl Sums {
    /// Reads the sums that begin at column `at`.
    pub(crate) fn read(row: &Row<'_>, at: usize) -> Result<Self, LedgerError> {
        let quantity = |index: usize| fit(read_sum(row, at + 2 * index)?);
        Ok(Self {
            charged: Quantities {
                requests: quantity(0)?,
                fuel: quantity(1)?,
                cpu_ns: quantity(2)?,
                gpu_ns: quantity(3)?,
                tokens_in: quantity(4)?,
                tokens_out: quantity(5)?,
                egress_bytes: quantity(6)?,
            },
            cost: Pico(read_sum(row, at + 14)?),
        })
    }
}

/// A summed quantity as the wire carries it.
pub(crate) fn fit(sum: i128) -> Result<u64, LedgerError> {
    u64::try_from(sum).map_err(|_| AmountError("a quantity").into())
}

/// A time of the wire as SQLite compares it.
pub(crate) fn time(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}
