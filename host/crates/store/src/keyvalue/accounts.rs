use std::collections::HashMap;

use rusqlite::Connection;
use wasmeter_catalog::{Author, KeyValueError};
use wasmeter_types::{FunctionName, TenantName};

/// Keys and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) keys: i64,
    pub(super) bytes: i64,
}

/// What functions and tenants have: counting the rows at each change would grow with them.
#[derive(Default)]
pub(super) struct Accounts {
    functions: HashMap<TenantName, HashMap<FunctionName, Sum>>,
    tenants: HashMap<TenantName, i64>,
    /// Since the last commit.
    journal: Vec<(TenantName, FunctionName, Sum)>,
}

impl Accounts {
    pub(super) fn read(connection: &Connection) -> Result<Self, Box<dyn std::error::Error>> {
        let mut accounts = Self::default();
        let mut select = connection.prepare(
            "SELECT tenant, function, count(*), sum(length(CAST(key AS BLOB)) + length(value))
             FROM pair JOIN space ON space.id = pair.space WHERE doomed = 0 GROUP BY tenant, function",
        )?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (tenant, function): (String, String) = (row.get(0)?, row.get(1)?);
            let sum = Sum { keys: row.get(2)?, bytes: row.get(3)? };
            accounts.add(&tenant.parse()?, &function.parse()?, sum);
        }
        accounts.keep();
        Ok(accounts)
    }

    pub(super) fn of(&self, tenant: &TenantName, function: &FunctionName) -> Sum {
        self.functions.get(tenant).and_then(|f| f.get(function)).copied().unwrap_or_default()
    }

    /// Whether there is room for what comes. What grows nothing is always taken, also above a quota that was lowered.
    pub(super) fn admit(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        author: &Author,
        more: Sum,
        tenant_total: u64,
    ) -> Result<(), KeyValueError> {
        let beyond = |sum: i64, most: u64| u64::try_from(sum).unwrap_or(0) > most;
        let has = self.of(tenant, function);
        let limits = &author.limits;
        if more.keys > 0 && beyond(has.keys + more.keys, limits.keys) {
            return Err(KeyValueError::Keys(limits.keys));
        }
        if more.bytes > 0 && beyond(has.bytes + more.bytes, limits.total) {
            return Err(KeyValueError::Bytes(limits.total));
        }
        let tenant_has = self.tenants.get(tenant).copied().unwrap_or_default();
        if more.bytes > 0 && beyond(tenant_has + more.bytes, tenant_total) {
            return Err(KeyValueError::TenantBytes(tenant_total));
        }
        Ok(())
    }

    pub(super) fn add(&mut self, tenant: &TenantName, function: &FunctionName, more: Sum) {
        self.count(tenant, function, more);
        self.journal.push((tenant.clone(), function.clone(), more));
    }

    /// After a commit.
    pub(super) fn keep(&mut self) {
        self.journal.clear();
    }

    /// After a commit that failed.
    pub(super) fn undo(&mut self) {
        for (tenant, function, more) in std::mem::take(&mut self.journal) {
            self.count(&tenant, &function, Sum { keys: -more.keys, bytes: -more.bytes });
        }
    }

    fn count(&mut self, tenant: &TenantName, function: &FunctionName, more: Sum) {
        let functions = self.functions.entry(tenant.clone()).or_default();
        let sum = functions.entry(function.clone()).or_default();
        sum.keys += more.keys;
        sum.bytes += more.bytes;
        // Who keeps nothing takes no room here either.
        if *sum == Sum::default() {
            functions.remove(function);
        }
        let all = self.tenants.entry(tenant.clone()).or_default();
        *all += more.bytes;
        if functions.is_empty() && *all == 0 {
            self.functions.remove(tenant);
            self.tenants.remove(tenant);
        }
    }
}
