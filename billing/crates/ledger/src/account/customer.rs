use rusqlite::OptionalExtension;

use super::FreeUse;
use super::standing::{Admission, Standings};
use crate::sums::time;
use crate::{Ledger, LedgerError, Reader};

/// A tenant's customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// Tenant.
    pub tenant: String,
    /// `cus_…`.
    pub customer: String,
}

impl Ledger {
    /// Keeps a tenant's new customer; the one that it has wins. What it has afterwards.
    ///
    /// # Errors
    /// SQLite's.
    pub fn keep_customer(
        &mut self,
        tenant: &str,
        customer: &str,
        now_ns: u64,
    ) -> Result<String, LedgerError> {
        let tx = self.conn.transaction()?;
        tx.execute(
            "INSERT INTO stripe_customer (tenant, customer, made_ns) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            (tenant, customer, time(now_ns)),
        )?;
        let found = tx.query_one(
            "SELECT customer FROM stripe_customer WHERE tenant = ?1 AND gone_ns IS NULL",
            [tenant],
            |row| row.get(0),
        )?;
        tx.commit()?;
        Ok(found)
    }

    /// A customer is no more; its subscriptions ended with it. Whether it was one of ours, and still there.
    ///
    /// # Errors
    /// SQLite's.
    pub fn lose_customer(&mut self, customer: &str, now_ns: u64) -> Result<bool, LedgerError> {
        let tx = self.conn.transaction()?;
        let changed = tx.execute(
            "UPDATE stripe_customer SET gone_ns = ?2 WHERE customer = ?1 AND gone_ns IS NULL",
            (customer, time(now_ns)),
        )?;
        let now_s = time(now_ns) / 1_000_000_000;
        tx.execute(
            "UPDATE stripe_subscription SET status = 'canceled', ended_s = coalesce(ended_s, ?2), changed_s = ?2,
               read_ns = ?3 WHERE customer = ?1 AND status <> 'canceled'",
            (customer, now_s, time(now_ns)),
        )?;
        tx.commit()?;
        Ok(changed > 0)
    }
}

impl Reader {
    /// A tenant's customer.
    ///
    /// # Errors
    /// SQLite's.
    pub fn customer(&self, tenant: &str) -> Result<Option<String>, LedgerError> {
        Ok(self
            .conn
            .prepare_cached("SELECT customer FROM stripe_customer WHERE tenant = ?1 AND gone_ns IS NULL")?
            .query_row([tenant], |row| row.get(0))
            .optional()?)
    }

    /// Whose customer it is or was.
    ///
    /// # Errors
    /// SQLite's.
    pub fn tenant_of(&self, customer: &str) -> Result<Option<String>, LedgerError> {
        Ok(self
            .conn
            .prepare_cached("SELECT tenant FROM stripe_customer WHERE customer = ?1")?
            .query_row([customer], |row| row.get(0))
            .optional()?)
    }

    /// All customers that are there, by tenant.
    ///
    /// # Errors
    /// SQLite's.
    pub fn customers(&self) -> Result<Vec<Customer>, LedgerError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT tenant, customer FROM stripe_customer WHERE gone_ns IS NULL ORDER BY tenant",
        )?;
        let rows =
            statement.query_map([], |row| Ok(Customer { tenant: row.get(0)?, customer: row.get(1)? }))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What an idempotency key of a tenant's next customer is made of: the ledger's life, and how many the tenant had.
    ///
    /// # Errors
    /// SQLite's.
    pub fn next_customer(&self, tenant: &str) -> Result<(String, u64), LedgerError> {
        let had: i64 = self.conn.query_one(
            "SELECT count(*) FROM stripe_customer WHERE tenant = ?1",
            [tenant],
            |row| row.get(0),
        )?;
        Ok((crate::outbox::life(&self.conn)?, had.cast_unsigned()))
    }

    /// Where a tenant stands.
    ///
    /// # Errors
    /// SQLite's.
    pub fn standing(
        &self,
        tenant: &str,
        admission: &Admission,
        now_ns: u64,
    ) -> Result<wasmeter_usage::Standing, LedgerError> {
        Standings { conn: &self.conn }.of(tenant, admission, now_ns)
    }

    /// Tenants that are not admitted, sorted.
    ///
    /// # Errors
    /// SQLite's.
    pub fn unpaid(
        &self,
        admission: &Admission,
        free: &mut FreeUse,
        now_ns: u64,
    ) -> Result<Vec<wasmeter_usage::Unpaid>, LedgerError> {
        Standings { conn: &self.conn }.unpaid(admission, free, now_ns)
    }
}
