//! Versions of a SQLite file: `user_version` counts the migrations that it has had.

use rusqlite::{Connection, TransactionBehavior};

/// A file that this build cannot use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrateError {
    #[error("it has version {found}, this build knows up to {known}: run a newer wasmeter")]
    Newer { found: u32, known: usize },
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// Applies the migrations that the file has not had, each wholly or not at all.
pub(crate) fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), MigrateError> {
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found as usize > migrations.len() {
            return Err(MigrateError::Newer { found, known: migrations.len() });
        }
        let Some(next) = migrations.get(found as usize) else { return Ok(()) };
        transaction.execute_batch(next)?;
        transaction.pragma_update(None, "user_version", found + 1)?;
        transaction.commit()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_migration_runs_once_and_a_broken_one_changes_nothing() {
        let mut db = Connection::open_in_memory().unwrap();
        let first = "CREATE TABLE a (x INTEGER)";
        migrate(&mut db, &[first]).unwrap();
        migrate(&mut db, &[first]).unwrap();
        assert!(migrate(&mut db, &[first, "CREATE TABLE b (x INTEGER); NONSENSE"]).is_err());
        let tables = |db: &Connection| -> i64 {
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).unwrap()
        };
        assert_eq!(tables(&db), 1);
        migrate(&mut db, &[first, "CREATE TABLE b (x INTEGER)"]).unwrap();
        assert_eq!(tables(&db), 2);
        assert!(matches!(migrate(&mut db, &[first]), Err(MigrateError::Newer { found: 2, known: 1 })));
    }
}
