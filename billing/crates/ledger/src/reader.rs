use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use wasmeter_receipt::UNSTAMPED;
use wasmeter_usage::Pico;

use crate::open::{find, meta, open_read_only, unstamped};
use crate::receipt::Signer;
use crate::receipt::seal::Of;
use crate::{LedgerError, adjust, append, balance};

/// A connection for questions. It sees whole commits, and neither blocks the writer nor waits for it.
pub struct Reader {
    pub(crate) conn: Connection,
    pub(crate) currency: String,
    pub(crate) stamp: String,
    pub(crate) unstamped: u64,
    pub(crate) signer: Option<Arc<Signer>>,
}

impl Reader {
    /// Opens a ledger that exists, without its private key.
    ///
    /// # Errors
    /// [`LedgerError`] if it is not a ledger of this build's schema.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let conn = open_read_only(path)?;
        let currency = meta(&conn, "currency")?;
        let stamp = find(&conn, "stamp")?.unwrap_or_else(|| UNSTAMPED.to_owned());
        let unstamped = unstamped(&conn)?;
        Ok(Self { conn, currency, stamp, unstamped, signer: None })
    }

    /// The ledger's one currency.
    #[must_use]
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// What all commits say.
    pub(crate) fn of(&self) -> Of<'_> {
        Of { stamp: &self.stamp, currency: &self.currency, unstamped: self.unstamped }
    }

    /// The ledger's stamp; `unstamped` before it has one.
    #[must_use]
    pub fn stamp(&self) -> &str {
        &self.stamp
    }

    /// The last sequence of a spool that is booked or rejected; 0 for one that never sent.
    ///
    /// # Errors
    /// SQLite's.
    pub fn high_water(&self, node: &str, epoch: u64) -> Result<u64, LedgerError> {
        Ok(append::spool(&self.conn, node, epoch)?.map_or(0, |(_, seq)| seq))
    }

    /// Whether anything of a node was ever booked or rejected.
    ///
    /// # Errors
    /// SQLite's.
    pub fn has_node(&self, node: &str) -> Result<bool, LedgerError> {
        let mut statement = self.conn.prepare_cached("SELECT 1 FROM high_water WHERE node = ?1 LIMIT 1")?;
        Ok(statement.exists([node])?)
    }

    /// List price of everything that a tenant ever used, with all corrections.
    ///
    /// # Errors
    /// SQLite's.
    pub fn balance(&self, tenant: &str) -> Result<Pico, LedgerError> {
        Ok(balance::cost(&self.conn, tenant)? + Pico(adjust::since(&self.conn, tenant, 0)?))
    }

    /// Writes a copy of the ledger as of one commit to a new file, while the writer goes on.
    ///
    /// # Errors
    /// SQLite's, also where the file exists.
    pub fn back_up(&self, to: &Path) -> Result<(), LedgerError> {
        let name = to.to_str().ok_or_else(|| LedgerError::Damaged(format!("{} is no text", to.display())))?;
        self.conn.execute("VACUUM INTO ?1", [name])?;
        Ok(())
    }

    /// How many entries there are.
    ///
    /// # Errors
    /// SQLite's.
    pub fn entries(&self) -> Result<u64, LedgerError> {
        let last: i64 =
            self.conn.query_one("SELECT coalesce(max(position), 0) FROM entry", [], |row| row.get(0))?;
        Ok(last.cast_unsigned())
    }

    /// How many records were rejected so far.
    ///
    /// # Errors
    /// SQLite's.
    pub fn rejected(&self) -> Result<u64, LedgerError> {
        let count: i64 = self.conn.query_one("SELECT count(*) FROM rejected", [], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }
}

#[cfg(test)]
mod tests {
    use crate::receipt::{chain, export, page};
    use crate::{Ledger, Stamp, bill, quote, usage};

    /// Every question of the wire searches an index; none walks or sorts a table.
    #[test]
    fn questions_are_answered_by_index() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&dir.path().join("l"), Stamp::Twin, "USD", 1).unwrap();
        let plan = |sql: &str| {
            let mut statement = ledger.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let params = statement.parameter_count();
            let rows = statement
                .query_map(rusqlite::params_from_iter(vec![1; params]), |row| row.get::<_, String>(3));
            rows.unwrap().collect::<Result<Vec<_>, _>>().unwrap().join("; ")
        };
        let window = "(tenant=? AND end_ns>? AND end_ns<?)";
        for sql in [bill::by_sheet_sql(), usage::by_function_sql(), usage::by_hour_sql()] {
            assert!(
                plan(&sql).contains(&format!("SEARCH entry USING INDEX entry_window {window}")),
                "{}",
                plan(&sql)
            );
        }
        assert!(plan(&usage::by_model_sql()).contains(&format!("USING PRIMARY KEY {window}")));
        assert!(plan(page::FIRST_SQL).contains(&format!("USING COVERING INDEX entry_window {window}")));
        let page = plan(page::PAGE_SQL);
        assert!(
            page.contains("USING INDEX entry_page (tenant=? AND position>?)") && !page.contains("SORT"),
            "{page}"
        );
        assert!(!page.contains("TEMP B-TREE"), "{page}");
        for sql in [chain::LAST_SQL, export::PAGE_SQL] {
            let page = plan(sql);
            assert!(page.contains("INDEX entry_page (tenant=? AND position"), "{page}");
            assert!(!page.contains("SORT") && !page.contains("TEMP B-TREE"), "{page}");
        }
        let link = plan(chain::LINK_SQL);
        assert!(link.contains("(first_position<?)") && !link.contains("TEMP B-TREE"), "{link}");
        assert!(plan(page::ONE_SQL).contains("(tenant=? AND invocation=?)"));
        let latest = plan(quote::LATEST_SQL);
        assert!(
            latest.contains("USING INDEX entry_page (tenant=?)") && !latest.contains("TEMP B-TREE"),
            "{latest}"
        );
    }
}
