use std::path::PathBuf;

use wasmeter_rating::AmountError;

/// Why the ledger could not be opened, written or asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite failed: disk full, input or output, corruption.
    #[error("ledger database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Some other program's database.
    #[error("{} is not a wasmeter ledger; name another data directory", path.display())]
    NotALedger {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer build.
    #[error("ledger schema is version {found}, this build knows {known}; run the newer wasmeter-billing")]
    NewerSchema {
        /// In the file.
        found: i64,
        /// Of this build.
        known: i64,
    },
    /// Written by an older build and opened for reading only.
    #[error(
        "ledger schema is version {found}, this build needs {known}; run `wasmeter-billing serve` once to migrate it"
    )]
    OlderSchema {
        /// In the file.
        found: i64,
        /// Of this build.
        known: i64,
    },
    /// A ledger keeps its stamp for ever.
    #[error(
        "ledger is stamped `{found}` for ever, not `{asked}`; use --stamp {found} or another data directory"
    )]
    Stamp {
        /// In the file.
        found: String,
        /// Asked for.
        asked: String,
    },
    /// A ledger keeps its currency for ever.
    #[error(
        "ledger sums {found} for ever, the prices are in {asked}; use prices in {found} or another data directory"
    )]
    Currency {
        /// In the file.
        found: String,
        /// Of the price sheet.
        asked: String,
    },
    /// The sheet's hash is not that of its rates.
    #[error("price sheet {0} is not what its hash says; take it from a price book")]
    SheetHash(String),
    /// The private key of receipts cannot be used.
    #[error("receipt key {} {what}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// A statement is asked of a reader that was opened without the private key.
    #[error("this connection to the ledger cannot sign; ask `wasmeter-billing serve`")]
    NoSigner,
    /// The file contradicts itself.
    #[error("ledger is damaged: {0}; run `wasmeter-billing check` and restore a backup")]
    Damaged(String),
    /// A sum that no bill can carry.
    #[error(transparent)]
    Amount(#[from] AmountError),
}
