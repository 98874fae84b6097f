use rusqlite::{Connection, TransactionBehavior};

use crate::LedgerError;

/// One script a version, in order; `PRAGMA user_version` counts those that have run.
const MIGRATIONS: [&str; 9] = [
    include_str!("../migrations/0001.sql"),
    include_str!("../migrations/0002.sql"),
    include_str!("../migrations/0003.sql"),
    include_str!("../migrations/0004.sql"),
    include_str!("../migrations/0005.sql"),
    include_str!("../migrations/0006.sql"),
    include_str!("../migrations/0007.sql"),
    include_str!("../migrations/0008.sql"),
    include_str!("../migrations/0009.sql"),
];

/// The schema version of this build.
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// `wmtr`: tells the file from other SQLite databases.
const APPLICATION_ID: i64 = 0x776d_7472;

/// What a file says about itself.
pub(crate) enum Found {
    Empty,
    Ledger { version: i64 },
    Foreign,
}

pub(crate) fn identify(conn: &Connection) -> Result<Found, LedgerError> {
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (id, version) = match (pragma("application_id"), pragma("user_version")) {
        (Ok(id), Ok(version)) => (id, version),
        (Err(e), _) | (_, Err(e)) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            return Ok(Found::Foreign);
        }
        (Err(e), _) | (_, Err(e)) => return Err(e.into()),
    };
    let tables: i64 = conn.query_one("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (id, version, tables) {
        (APPLICATION_ID, version, _) if version > 0 => Found::Ledger { version },
        (0 | APPLICATION_ID, 0, 0) => Found::Empty,
        _ => Found::Foreign,
    })
}

/// Runs the scripts after `from`, each with its version in a transaction of its own.
pub(crate) fn migrate(conn: &mut Connection, from: i64) -> Result<(), LedgerError> {
    for (version, script) in (1i64..).zip(MIGRATIONS).filter(|(version, _)| *version > from) {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(script)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", version)?;
        tx.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// Ledgers in the field were made by exactly these scripts.
    #[test]
    fn released_migrations_do_not_change() {
        let hashes = MIGRATIONS.map(|script| {
            let digest = Sha256::digest(script);
            digest[..8].iter().map(|b| format!("{b:02x}")).collect::<String>()
        });
        assert_eq!(
            hashes,
            [
                "e5cf92f9d1f72b90",
                "0391321c60730c32",
                "c676f310107c7702",
                "23e10d101e6aece3",
                "fa09d9167d64d7d1",
                "4b844e0176ff5b53",
                "1303d5d2ae459ac5",
                "d9a7e53de0b0f2fc",
                "75c120c1275e4c44"
            ]
        );
    }

    #[test]
    fn migrates_an_empty_file_once() {
        let mut conn = Connection::open_in_memory().unwrap();
        assert!(matches!(identify(&conn).unwrap(), Found::Empty));
        migrate(&mut conn, 0).unwrap();
        assert!(matches!(identify(&conn).unwrap(), Found::Ledger { version: SCHEMA_VERSION }));
        migrate(&mut conn, SCHEMA_VERSION).unwrap();
    }

    #[test]
    fn leaves_a_foreign_database_alone() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(matches!(identify(&conn).unwrap(), Found::Foreign));
    }
}
