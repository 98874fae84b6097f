use std::collections::HashMap;

use aws_lc_rs::rand::fill;
use rusqlite::{Connection, OptionalExtension};
use wasmeter_receipt::{Hash, Link, record_hash};

use crate::LedgerError;

/// The last entry of a tenant before a position, without a sort.
pub(crate) const LAST_SQL: &str = "SELECT position FROM entry INDEXED BY entry_page
  WHERE tenant = ?1 AND position < ?2 ORDER BY position DESC LIMIT 1";

/// What a commit keeps of the link at a position, without a sort.
pub(crate) const LINK_SQL: &str =
    "SELECT substr(links, (?1 - first_position) * 40 + 1, 40) FROM signed_commit
  WHERE first_position <= ?1 ORDER BY first_position DESC LIMIT 1";

/// Place in its tenant's chain, and link.
pub(crate) type Placed = (u64, Hash);

/// Bytes of one in a commit.
const PLACED: usize = 40;

/// Writes links as a commit keeps them.
fn pack((index, link): &Placed, to: &mut Vec<u8>) {
    to.extend_from_slice(&index.to_be_bytes());
    to.extend_from_slice(&link.0);
}

/// Reads links as a commit keeps them; what is cut off is not there.
pub(crate) fn unpack(links: &[u8]) -> Vec<Placed> {
    let (whole, _) = links.as_chunks::<PLACED>();
    let placed = |one: &[u8; PLACED]| {
        let (index, link) = one.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*index), Hash(link.try_into().ok()?)))
    };
    whole.iter().filter_map(placed).collect()
}

/// Where the chains of tenants are, by tenant. The ledger's one writer keeps them from transaction to transaction: a hundred
/// bytes for each tenant that was booked since it was opened.
pub(crate) type Heads = HashMap<String, Placed>;

/// The links that a transaction adds, and where the chains of their tenants are by then.
pub(crate) struct Links<'c> {
    conn: &'c Connection,
    heads: Heads,
    pub(super) added: Vec<Hash>,
    packed: Vec<u8>,
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
    /// `heads` are of the transaction before, or empty.
    pub(crate) fn new(conn: &'c Connection, heads: Heads) -> Self {
        Self { conn, heads, added: Vec::new(), packed: Vec::new(), first_position: None }
    }

    /// Adds the link of an entry. The entry may be in its table or not yet, those of transactions before are with their links.
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
        match self.heads.get_mut(entry.tenant) {
            Some(head) => *head = (index, link),
            None => {
                self.heads.insert(entry.tenant.to_owned(), (index, link));
            }
        }
        self.first_position.get_or_insert(entry.position);
        self.added.push(link);
        pack(&(index, link), &mut self.packed);
        Ok(())
    }

    /// The links from a place among those added, as a commit keeps them.
    pub(super) fn packed(&self, from: usize, count: usize) -> &[u8] {
        &self.packed[from * PLACED..(from + count) * PLACED]
    }

    /// For the next transaction, when this one is committed.
    pub(crate) fn into_heads(self) -> Heads {
        self.heads
    }
}

/// Length and last link of a tenant's chain before a position.
pub(crate) fn head(conn: &Connection, tenant: &str, position: i64) -> Result<Option<Placed>, LedgerError> {
    let last = conn.prepare_cached(LAST_SQL)?.query_row((tenant, position), |row| row.get(0)).optional()?;
    last.map(|last| at(conn, last)).transpose()
}

/// The link of the entry at a position.
pub(super) fn at(conn: &Connection, position: i64) -> Result<Placed, LedgerError> {
    find(conn, position)?.ok_or_else(|| LedgerError::Damaged(format!("entry {position} has no link")))
}

/// The link of the entry at a position, if it is there.
pub(super) fn find(conn: &Connection, position: i64) -> Result<Option<Placed>, LedgerError> {
    // Of nothing, `substr` is null.
    let packed: Option<Option<Vec<u8>>> =
        conn.prepare_cached(LINK_SQL)?.query_row([position], |row| row.get(0)).optional()?;
    Ok(unpack(&packed.flatten().unwrap_or_default()).first().copied())
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
