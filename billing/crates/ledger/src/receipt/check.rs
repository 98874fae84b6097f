use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row};
use wasmeter_receipt::{Hash, Link, PublicKey, record_hash, root};
use wasmeter_usage::PriceSheet;

use super::chain::{self, Placed};
use super::keys;
use super::seal::{self, Of, Signed};
use crate::LedgerError;
use crate::check::CheckReport;

/// Recomputes links and commits, entry by entry in ledger order.
pub(crate) struct ChainCheck<'a> {
    conn: &'a Connection,
    of: Of<'a>,
    keys: HashMap<i64, PublicKey>,
    heads: HashMap<String, (u64, Hash)>,
    /// The commit at hand.
    commit: Option<Open>,
    /// Number and hash of the commit before.
    before: (u64, Hash),
    /// An entry without a commit is told once.
    lacking: bool,
}

/// A commit, the links that it keeps, and how many of its entries were met.
struct Open {
    signed: Signed,
    links: Vec<Placed>,
    met: usize,
}

impl<'a> ChainCheck<'a> {
    pub(crate) fn new(conn: &'a Connection, of: Of<'a>) -> Result<Self, LedgerError> {
        Ok(Self {
            conn,
            of,
            keys: keys::load(conn)?.into_iter().map(|(row, key, _)| (row, key)).collect(),
            heads: HashMap::new(),
            commit: None,
            before: (0, Hash::ZERO),
            lacking: false,
        })
    }

    /// Takes a row of position, tenant, …, as `check` reads it.
    pub(crate) fn entry(
        &mut self,
        row: &Row<'_>,
        sheets: &HashMap<i64, PriceSheet>,
        report: &mut CheckReport,
    ) -> Result<(), LedgerError> {
        let position: i64 = row.get(0)?;
        let Some((index, link)) = self.link(position, report)? else { return Ok(()) };
        let tenant: String = row.get(1)?;
        let (before, previous) = match self.heads.get(&tenant) {
            Some(head) => *head,
            None => (0, chain::start(self.conn, &tenant)?.unwrap_or(Hash::ZERO)),
        };
        let text = row.get_ref(14)?.as_str().map_err(rusqlite::Error::from)?;
        let expected = Link {
            previous,
            index: before + 1,
            end_ns: row.get::<_, i64>(3)?.cast_unsigned(),
            cost_pico: row.get(13)?,
            record: record_hash(text),
            sheet: sheets.get(&row.get(5)?).map_or("", |sheet| &sheet.hash),
            tenant: &tenant,
        };
        if index != before + 1 || expected.hash() != link {
            report.fault(format!(
                "entry {position}: link {index} of {tenant:?} is not made of the entry and link {before}"
            ));
        }
        // On from what is stored, so that one fault is told once.
        self.heads.insert(tenant, (index, link));
        Ok(())
    }

    /// The link that is kept of the entry at a position, the next in order.
    fn link(&mut self, position: i64, report: &mut CheckReport) -> Result<Option<Placed>, LedgerError> {
        let mut open = match self.commit.take() {
            Some(open) => open,
            None => match self.load(self.before.0 + 1)? {
                Some(open) => open,
                None => {
                    if !self.lacking {
                        report.fault(format!("entry {position} and those after it are in no commit"));
                    }
                    self.lacking = true;
                    return Ok(None);
                }
            },
        };
        let commit = &open.signed.0;
        if open.met == 0 && commit.first_entry != position.cast_unsigned() {
            report.fault(format!(
                "commit {} begins at entry {}, not {position}",
                commit.number, commit.first_entry
            ));
        }
        let link = open.links.get(open.met).copied();
        if link.is_none() {
            report.fault(format!("entry {position} has no link"));
        }
        open.met += 1;
        if (open.met as u64) < commit.entries {
            self.commit = Some(open);
        } else {
            self.close(&open, report);
        }
        Ok(link)
    }

    fn close(&mut self, open: &Open, report: &mut CheckReport) {
        report.commits += 1;
        let (commit, (key, signature)) = &open.signed;
        let number = commit.number;
        if open.links.len() as u64 != commit.entries {
            report.fault(format!(
                "commit {number} has {} links of {} entries",
                open.links.len(),
                commit.entries
            ));
        }
        let links: Vec<_> = open.links.iter().map(|(_, link)| *link).collect();
        if root(&links) != commit.root {
            report.fault(format!("commit {number}: the root is not that of its entries' links"));
        }
        if commit.previous != self.before.1 {
            report.fault(format!("commit {number} does not hang on the commit before"));
        }
        if !self.keys.get(key).is_some_and(|key| key.signed(&commit.text(), signature)) {
            report.fault(format!("commit {number}: the signature is not by its key over the commit"));
        }
        self.before = (number, commit.hash());
    }

    fn load(&self, number: u64) -> Result<Option<Open>, LedgerError> {
        let sql = format!("SELECT {} WHERE c.number = ?1", seal::COLUMNS);
        let found = self
            .conn
            .prepare_cached(&sql)?
            .query_row([number.cast_signed()], |row| Ok(seal::read(row, &self.of)))
            .optional()?;
        let Some(signed) = found.transpose()? else { return Ok(None) };
        let links = seal::kept_links(self.conn, number)?;
        Ok(Some(Open { signed, links, met: 0 }))
    }

    pub(crate) fn finish(self, report: &mut CheckReport) -> Result<(), LedgerError> {
        let mut last = self.before.0;
        if let Some(Open { signed: (commit, _), met, .. }) = self.commit {
            last = commit.number;
            report.fault(format!("commit {} has {} entries, {met} are there", commit.number, commit.entries));
        }
        let count: i64 = self.conn.query_one("SELECT count(*) FROM signed_commit", [], |row| row.get(0))?;
        if count.cast_unsigned() != last {
            report.fault(format!("{count} commits, of which {last} belong to entries"));
        }
        Ok(())
    }
}
