use std::collections::HashMap;

use aws_lc_rs::rand::fill;
use rusqlite::{CachedStatement, Connection, OptionalExtension};
use wasmeter_receipt::{Hash, Link, record_hash};

use crate::LedgerError;

/// The last link of a tenant before a position, without a sort.
pub(crate) const HEAD_SQL: &str = "SELECT l.chain, l.link FROM entry e INDEXED BY entry_page
  CROSS JOIN link l ON l.position = e.position WHERE e.tenant = ?1 AND e.position < ?2
  ORDER BY e.position DESC LIMIT 1";

/// The links that a transaction adds, and where the chains of their tenants are by then.
pub(crate) struct Links<'c> {
    conn: &'c Connection,
    insert: CachedStatement<'c>,
    heads: HashMap<String, (u64, Hash)>,
    pub(super) added: Vec<Hash>,
    pub(super) first_position: Option<i64>,
}

/// What of an entry goes into its link.
pub(crate) struct Linked<'a> {
    pub(crate) position: i64,
    pub(crate) tenant: &'a str,
    pub(crate) end_ns: u64,
    pub(crate) cost_pico: i64,
    pub(crate) sheet: &'a str,
    pub(crate) record: &'a str,
}

impl<'c> Links<'c> {
    pub(crate) fn new(conn: &'c Connection) -> Result<Self, LedgerError> {
        let insert = conn.prepare_cached("INSERT INTO link (position, chain, link) VALUES (?1, ?2, ?3)")?;
        Ok(Self { conn, insert, heads: HashMap::new(), added: Vec::new(), first_position: None })
    }

    /// Adds the link of an entry. The entry may be in its table or not yet, those before it with their links are.
    pub(crate) fn add(&mut self, entry: &Linked<'_>) -> Result<(), LedgerError> {
        let (before, previous) = match self.heads.get(entry.tenant) {
            Some(head) => *head,
            None => match head(self.conn, entry.tenant, entry.position)? {
                Some(head) => head,
                None => (0, begin(self.conn, entry.tenant)?),
            },
        };
        let index = before + 1;
        let link = Link {
            previous,
            index,
            end_ns: entry.end_ns,
            cost_pico: entry.cost_pico,
            record: record_hash(entry.record),
            sheet: entry.sheet,
            tenant: entry.tenant,
        }
        .hash();
        self.insert.execute((entry.position, index.cast_signed(), link.0))?;
        match self.heads.get_mut(entry.tenant) {
            Some(head) => *head = (index, link),
            None => {
                self.heads.insert(entry.tenant.to_owned(), (index, link));
            }
        }
        self.first_position.get_or_insert(entry.position);
        self.added.push(link);
        Ok(())
    }
}

/// Length and last link of a tenant's chain before a position.
pub(crate) fn head(
    conn: &Connection,
    tenant: &str,
    position: i64,
) -> Result<Option<(u64, Hash)>, LedgerError> {
    Ok(conn
        .prepare_cached(HEAD_SQL)?
        .query_row((tenant, position), |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), Hash(row.get::<_, [u8; 32]>(1)?)))
        })
        .optional()?)
}

/// Begins a tenant's chain on random bytes.
fn begin(conn: &Connection, tenant: &str) -> Result<Hash, LedgerError> {
    let mut salt = [0; 32];
    fill(&mut salt).map_err(|_| LedgerError::Damaged("the system gives no random bytes".into()))?;
    conn.prepare_cached("INSERT INTO chain_start (tenant, previous) VALUES (?1, ?2)")?
        .execute((tenant, salt))?;
    Ok(Hash(salt))
}

/// What the first link of a tenant hangs on.
pub(super) fn start(conn: &Connection, tenant: &str) -> Result<Option<Hash>, LedgerError> {
    let mut statement = conn.prepare_cached("SELECT previous FROM chain_start WHERE tenant = ?1")?;
    Ok(statement.query_row([tenant], |row| row.get(0).map(Hash)).optional()?)
}

/// What the link at a position hangs on.
pub(super) fn previous(conn: &Connection, tenant: &str, position: i64) -> Result<Hash, LedgerError> {
    let before = match head(conn, tenant, position)? {
        Some((_, link)) => Some(link),
        None => start(conn, tenant)?,
    };
    before.ok_or_else(|| LedgerError::Damaged(format!("the chain of {tenant:?} has no beginning")))
}
