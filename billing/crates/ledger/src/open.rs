use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use wasmeter_rating::sheet_hash;
use wasmeter_receipt::UNSTAMPED;
use wasmeter_usage::PriceSheet;

use crate::receipt::adopt::adopt;
use crate::receipt::chain::Heads;
use crate::receipt::seal::Of;
use crate::receipt::{Signer, adjusted};
use crate::schema::{self, Found, SCHEMA_VERSION};
use crate::{LedgerError, Reader};

/// What kind of money a ledger counts. Fixed at creation: play money and money never meet in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Charged to the stand-in for Stripe, or to nobody.
    Twin,
    /// Charged to Stripe in test mode.
    Test,
    /// Charged to customers.
    Live,
}

impl Stamp {
    /// The word in the file, on the wire and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stamp::Twin => "twin",
            Stamp::Test => "test",
            Stamp::Live => "live",
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Stamp {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [Stamp::Twin, Stamp::Test, Stamp::Live]
            .into_iter()
            .find(|stamp| stamp.as_str() == s)
            .ok_or_else(|| format!("stamp {s:?} is unknown; use twin, test or live"))
    }
}

/// Bytes of a page.
const PAGE: i64 = 8192;

/// Pages that the writer keeps, in KiB: the ends of the indices of hundreds of tenants.
const CACHE_KIB: i64 = 16 << 10;

/// The one writer of a ledger.
pub struct Ledger {
    pub(crate) conn: Connection,
    pub(crate) sheets: HashMap<String, (i64, PriceSheet)>,
    pub(crate) signer: Arc<Signer>,
    pub(crate) heads: Heads,
    pub(crate) stamp: Option<Stamp>,
    /// The last commit that was signed before it had one.
    pub(crate) unstamped: u64,
    pub(crate) currency: String,
    path: PathBuf,
}

impl Ledger {
    /// Opens the ledger and stamps it, for ever; without a stamp it stays as it is: a ledger that nobody charges from has
    /// none until somebody does. Creates it where there is none, migrates it where it is older. The private key of its receipts
    /// is `keys/receipt.key` beside it, made where there is none: moving it away is how a key is changed, since the public
    /// keys stay in the ledger.
    ///
    /// The caller makes sure that no second process writes the file.
    ///
    /// # Errors
    /// [`LedgerError`]; most likely a stamp or currency other than the ledger was created with.
    pub fn open(
        path: &Path,
        stamp: impl Into<Option<Stamp>>,
        currency: &str,
        now_ns: u64,
    ) -> Result<Self, LedgerError> {
        let asked = stamp.into();
        let mut conn = Connection::open(path)?;
        conn.busy_timeout(Duration::from_secs(10))?;
        let version = match schema::identify(&conn)? {
            Found::Foreign => return Err(LedgerError::NotALedger { path: path.to_owned() }),
            Found::Empty => 0,
            Found::Ledger { version } if version > SCHEMA_VERSION => {
                return Err(LedgerError::NewerSchema { found: version, known: SCHEMA_VERSION });
            }
            Found::Ledger { version } => version,
        };
        // WAL lets readers go on while a batch commits; FULL flushes each commit, because the spool forgets what
        // was acknowledged.
        // Of a new file alone. A record takes half a kilobyte, so that larger pages are fewer to write, twice each.
        conn.pragma_update(None, "page_size", PAGE)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "foreign_keys", true)?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
        conn.pragma_update(None, "trusted_schema", false)?;
        conn.set_prepared_statement_cache_capacity(32);
        schema::migrate(&mut conn, version)?;

        let tx = conn.transaction()?;
        fix(&tx, "created_ns", &now_ns.to_string())?;
        let stamp = imprint(&tx, asked)?;
        let unstamped = unstamped(&tx)?;
        let found = fix(&tx, "currency", currency)?;
        if found != currency {
            return Err(LedgerError::Currency { found, asked: currency.to_owned() });
        }
        tx.commit()?;
        let sheets =
            load_sheets(&conn)?.into_iter().map(|(id, sheet)| (sheet.hash.clone(), (id, sheet))).collect();
        let signer = Signer::open(&conn, path, now_ns)?;
        let of = Of { stamp: stamp_word(stamp), currency: &found, unstamped };
        adopt(&mut conn, &signer, &of, now_ns)?;
        adjusted::adopt(&mut conn, &signer, &of)?;
        let (signer, heads, path) = (Arc::new(signer), Heads::new(), path.to_owned());
        Ok(Self { conn, sheets, signer, heads, stamp, unstamped, currency: found, path })
    }

    /// Makes a price sheet known, so that records priced with it can be booked, now and for ever.
    ///
    /// # Errors
    /// [`LedgerError::Currency`], [`LedgerError::SheetHash`], or SQLite's.
    pub fn add_sheet(&mut self, sheet: &PriceSheet, now_ns: u64) -> Result<(), LedgerError> {
        if self.sheets.contains_key(&sheet.hash) {
            return Ok(());
        }
        if sheet.currency != self.currency {
            return Err(LedgerError::Currency {
                found: self.currency.clone(),
                asked: sheet.currency.clone(),
            });
        }
        if sheet_hash(sheet) != sheet.hash {
            return Err(LedgerError::SheetHash(sheet.hash.clone()));
        }
        let json = serde_json::to_string(sheet).map_err(|e| LedgerError::Damaged(e.to_string()))?;
        self.conn.execute(
            "INSERT INTO price_sheet (hash, json, added_ns) VALUES (?1, ?2, ?3)",
            (&sheet.hash, json, now_ns.cast_signed()),
        )?;
        self.sheets.insert(sheet.hash.clone(), (self.conn.last_insert_rowid(), sheet.clone()));
        Ok(())
    }

    pub(crate) fn currency(&self) -> &str {
        &self.currency
    }

    /// Runs a statement of somebody else's: tests see by it that what must not change cannot.
    ///
    /// # Errors
    /// SQLite's.
    #[doc(hidden)]
    pub fn try_statement(&self, sql: &str) -> Result<usize, LedgerError> {
        Ok(self.conn.execute(sql, [])?)
    }

    /// What the ledger is stamped with; `None` before it has a stamp.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// A further connection for questions, which can sign what it answers.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn reader(&self) -> Result<Reader, LedgerError> {
        let mut reader = Reader::open(&self.path)?;
        reader.signer = Some(Arc::clone(&self.signer));
        Ok(reader)
    }
}

/// Writes a fact of the ledger unless it is there, and returns what is there.
fn fix(conn: &Connection, key: &str, value: &str) -> Result<String, LedgerError> {
    conn.execute("INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING", (key, value))?;
    meta(conn, key)
}

/// Stamps a ledger that has no stamp; what it is stamped with afterwards.
fn imprint(tx: &Connection, asked: Option<Stamp>) -> Result<Option<Stamp>, LedgerError> {
    let found = find(tx, "stamp")?;
    match (found, asked) {
        (Some(found), Some(asked)) if found != asked.as_str() => {
            Err(LedgerError::Stamp { found, asked: asked.to_string() })
        }
        (Some(found), _) => found.parse().map(Some).map_err(LedgerError::Damaged),
        (None, None) => Ok(None),
        (None, Some(asked)) => {
            let commits: i64 =
                tx.query_one("SELECT coalesce(max(number), 0) FROM signed_commit", [], |row| row.get(0))?;
            fix(tx, "stamp", asked.as_str())?;
            fix(tx, "unstamped_commits", &commits.to_string())?;
            Ok(Some(asked))
        }
    }
}

/// The word of a stamp in receipts.
pub(crate) fn stamp_word(stamp: Option<Stamp>) -> &'static str {
    stamp.map_or(UNSTAMPED, Stamp::as_str)
}

/// The last commit that was signed before the ledger was stamped; 0 without one.
pub(crate) fn unstamped(conn: &Connection) -> Result<u64, LedgerError> {
    let Some(text) = find(conn, "unstamped_commits")? else { return Ok(0) };
    text.parse().map_err(|_| LedgerError::Damaged(format!("meta: {text:?} is no number of commits")))
}

/// A fact, if it is there.
pub(crate) fn find(conn: &Connection, key: &str) -> Result<Option<String>, LedgerError> {
    Ok(conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?)
}

/// A fact that was fixed at creation.
pub(crate) fn meta(conn: &Connection, key: &str) -> Result<String, LedgerError> {
    find(conn, key)?.ok_or_else(|| LedgerError::Damaged(format!("meta has no {key}")))
}

/// All price sheets with their row ids, in the order in which they came.
pub(crate) fn load_sheets(conn: &Connection) -> Result<Vec<(i64, PriceSheet)>, LedgerError> {
    let mut statement = conn.prepare_cached("SELECT id, json FROM price_sheet ORDER BY id")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (id, json) = row?;
        let sheet = serde_json::from_str(&json)
            .map_err(|e| LedgerError::Damaged(format!("price sheet {id} does not parse: {e}")))?;
        Ok((id, sheet))
    })
    .collect()
}

/// Opens for reading only.
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, LedgerError> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.set_prepared_statement_cache_capacity(32);
    match schema::identify(&conn)? {
        Found::Ledger { version: SCHEMA_VERSION } => Ok(conn),
        Found::Ledger { version } if version > SCHEMA_VERSION => {
            Err(LedgerError::NewerSchema { found: version, known: SCHEMA_VERSION })
        }
        Found::Ledger { version } => Err(LedgerError::OlderSchema { found: version, known: SCHEMA_VERSION }),
        Found::Empty | Found::Foreign => Err(LedgerError::NotALedger { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use wasmeter_rating::{DEFAULT_PRICES, PriceBook, sheet};
    use wasmeter_usage::Rates;

    use super::*;

    #[test]
    fn keeps_stamp_currency_and_sheets_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.sqlite");
        let book = PriceBook::parse(DEFAULT_PRICES).unwrap();
        let mut ledger = Ledger::open(&path, Stamp::Test, "USD", 1).unwrap();
        ledger.add_sheet(&book.entries()[0].sheet, 1).unwrap();
        assert!(matches!(
            ledger.add_sheet(&sheet("EUR", Rates::default()), 1),
            Err(LedgerError::Currency { .. })
        ));
        let forged = PriceSheet { hash: "00".into(), ..sheet("USD", Rates::default()) };
        assert!(matches!(ledger.add_sheet(&forged, 1), Err(LedgerError::SheetHash(_))));
        drop(ledger);

        let error = Ledger::open(&path, Stamp::Live, "USD", 2).err().unwrap().to_string();
        assert!(error.contains("stamped `test` for ever, not `live`"), "{error}");
        assert!(matches!(Ledger::open(&path, Stamp::Test, "EUR", 2), Err(LedgerError::Currency { .. })));
        let ledger = Ledger::open(&path, Stamp::Test, "USD", 2).unwrap();
        assert_eq!(ledger.sheets.len(), 1);
        assert_eq!(meta(&ledger.conn, "created_ns").unwrap(), "1");
    }

    #[test]
    fn refuses_what_is_no_ledger_and_what_is_newer() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        std::fs::write(&text, "a".repeat(5000)).unwrap();
        assert!(matches!(Ledger::open(&text, Stamp::Twin, "USD", 1), Err(LedgerError::NotALedger { .. })));
        assert_eq!(std::fs::read_to_string(&text).unwrap(), "a".repeat(5000));

        let path = dir.path().join("newer");
        drop(Ledger::open(&path, Stamp::Twin, "USD", 1).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        assert!(matches!(Ledger::open(&path, Stamp::Twin, "USD", 1), Err(LedgerError::NewerSchema { .. })));
        assert!(matches!(Reader::open(&path), Err(LedgerError::NewerSchema { .. })));
    }

    #[test]
    fn entries_cannot_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&dir.path().join("l"), Stamp::Twin, "USD", 1).unwrap();
        let error =
            ledger.conn.execute("UPDATE meta SET value = 'live' WHERE key = 'stamp'", []).unwrap_err();
        assert!(error.to_string().contains("fixed"));
    }
}
