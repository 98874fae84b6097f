use rusqlite::{Connection, OptionalExtension, Row};
use wasmeter_receipt::{Commit, Hash, MAX_COMMIT, Made, PublicKey, Signature, UNSTAMPED, root};

use super::chain::{Placed, unpack};
use super::{Links, Signer};
use crate::LedgerError;

/// What all commits of a ledger say.
pub(crate) struct Of<'a> {
    pub(crate) stamp: &'a str,
    pub(crate) currency: &'a str,
    /// The last commit that was signed before the ledger was stamped.
    pub(crate) unstamped: u64,
}

impl<'a> Of<'a> {
    /// What a commit says that the ledger is stamped with.
    fn stamp_of(&self, number: u64) -> &'a str {
        if number <= self.unstamped { UNSTAMPED } else { self.stamp }
    }
}

/// Signs the links of a transaction: one commit, or several where there are very many. Without links it does nothing.
pub(crate) fn seal(
    conn: &Connection,
    signer: &Signer,
    of: &Of<'_>,
    made: Made,
    links: &Links<'_>,
    now_ns: u64,
) -> Result<(), LedgerError> {
    let Some(mut position) = links.first_position else { return Ok(()) };
    let (mut number, mut previous) = match last(conn, of)? {
        Some((commit, _)) => (commit.number, commit.hash()),
        None => (0, Hash::ZERO),
    };
    for (nth, part) in links.added.chunks(MAX_COMMIT).enumerate() {
        number += 1;
        let commit = Commit {
            number,
            made,
            stamp: of.stamp_of(number).to_owned(),
            currency: of.currency.to_owned(),
            first_entry: position.cast_unsigned(),
            entries: part.len() as u64,
            root: root(part),
            previous,
            committed_ns: now_ns,
            key: signer.id,
        };
        let signature = signer.sign(&commit.text())?;
        conn.prepare_cached(
            "INSERT INTO signed_commit (number, made, first_position, entries, root, previous, committed_ns, key,
               signature, links) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute((
            number.cast_signed(),
            made.as_str(),
            position,
            commit.entries.cast_signed(),
            commit.root.0,
            previous.0,
            now_ns.cast_signed(),
            signer.row,
            signature.0,
            links.packed(nth * MAX_COMMIT, part.len()),
        ))?;
        previous = commit.hash();
        position += commit.entries.cast_signed();
    }
    Ok(())
}

/// A commit with what signed it.
pub(crate) type Signed = (Commit, (i64, Signature));

/// The columns that [`read`] expects.
pub(crate) const COLUMNS: &str =
    "c.number, c.made, c.first_position, c.entries, c.root, c.previous, c.committed_ns,
  c.key, c.signature, k.public FROM signed_commit c JOIN receipt_key k ON k.id = c.key";

/// The ledger's last commit.
pub(crate) fn last(conn: &Connection, of: &Of<'_>) -> Result<Option<Signed>, LedgerError> {
    let sql = format!("SELECT {COLUMNS} ORDER BY c.number DESC LIMIT 1");
    let found = conn.prepare_cached(&sql)?.query_row([], |row| Ok(read(row, of))).optional()?;
    found.transpose()
}

/// The commit of a position.
pub(super) fn of_position(conn: &Connection, of: &Of<'_>, position: i64) -> Result<Signed, LedgerError> {
    let sql = format!("SELECT {COLUMNS} WHERE c.first_position <= ?1 ORDER BY c.first_position DESC LIMIT 1");
    let found = conn.prepare_cached(&sql)?.query_row([position], |row| Ok(read(row, of))).optional()?;
    found.transpose()?.ok_or_else(|| LedgerError::Damaged(format!("entry {position} is in no commit")))
}

pub(super) fn read(row: &Row<'_>, of: &Of<'_>) -> Result<Signed, LedgerError> {
    let number: i64 = row.get(0)?;
    let damaged = |what: &str| LedgerError::Damaged(format!("{what} of commit {number} cannot be read"));
    let made: String = row.get(1)?;
    let public: String = row.get(9)?;
    let commit = Commit {
        number: number.cast_unsigned(),
        made: Made::parse(&made).ok_or_else(|| damaged("`made`"))?,
        stamp: of.stamp_of(number.cast_unsigned()).to_owned(),
        currency: of.currency.to_owned(),
        first_entry: row.get::<_, i64>(2)?.cast_unsigned(),
        entries: row.get::<_, i64>(3)?.cast_unsigned(),
        root: Hash(row.get(4)?),
        previous: Hash(row.get(5)?),
        committed_ns: row.get::<_, i64>(6)?.cast_unsigned(),
        key: PublicKey::parse(&public).ok_or_else(|| damaged("the key"))?.id(),
    };
    Ok((commit, (row.get(7)?, Signature(row.get(8)?))))
}

/// The links that a commit keeps.
pub(super) fn kept_links(conn: &Connection, number: u64) -> Result<Vec<Placed>, LedgerError> {
    let mut statement = conn.prepare_cached("SELECT links FROM signed_commit WHERE number = ?1")?;
    Ok(statement.query_row([number.cast_signed()], |row| {
        Ok(unpack(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?))
    })?)
}

/// The links of a commit's entries, in order.
pub(super) fn links(conn: &Connection, commit: &Commit) -> Result<Vec<Placed>, LedgerError> {
    let links = kept_links(conn, commit.number)?;
    if links.len() as u64 == commit.entries {
        Ok(links)
    } else {
        Err(LedgerError::Damaged(format!("commit {} lacks links of its entries", commit.number)))
    }
}
