use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row};
use wasmeter_receipt::{Hash, Link, PublicKey, record_hash, root};
use wasmeter_usage::PriceSheet;

use super::seal::{self, Of, Signed};
use super::{chain, keys};
use crate::LedgerError;
use crate::check::CheckReport;

/// Recomputes links and commits, entry by entry in ledger order.
pub(crate) struct ChainCheck<'a> {
    conn: &'a Connection,
    of: Of<'a>,
    keys: HashMap<i64, PublicKey>,
    heads: HashMap<String, (u64, Hash)>,
    /// The commit at hand and the links that are there of it.
    commit: Option<(Signed, Vec<Hash>)>,
    /// Number and hash of the commit before.
    before: (u64, Hash),
    /// An entry without a commit is told once.
    lacking: bool,
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
        let stored = (row.get::<_, Option<i64>>(15)?, row.get::<_, Option<[u8; 32]>>(16)?);
        let (Some(index), Some(link)) = stored else {
            report.fault(format!("entry {position} has no link"));
            return Ok(());
        };
        let (index, link) = (index.cast_unsigned(), Hash(link));
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
        self.count(position, link, report)
    }

    fn count(&mut self, position: i64, link: Hash, report: &mut CheckReport) -> Result<(), LedgerError> {
        let (signed, mut links) = match self.commit.take() {
            Some(open) => open,
            None => match self.load(self.before.0 + 1)? {
                Some(signed) => (signed, Vec::new()),
                None => {
                    if !self.lacking {
                        report.fault(format!("entry {position} and those after it are in no commit"));
                    }
                    self.lacking = true;
                    return Ok(());
                }
            },
        };
        let commit = &signed.0;
        if links.is_empty() && commit.first_entry != position.cast_unsigned() {
            report.fault(format!(
                "commit {} begins at entry {}, not {position}",
                commit.number, commit.first_entry
            ));
        }
        links.push(link);
        if (links.len() as u64) < commit.entries {
            self.commit = Some((signed, links));
        } else {
            self.close(&signed, &links, report);
        }
        Ok(())
    }

    fn close(&mut self, (commit, (key, signature)): &Signed, links: &[Hash], report: &mut CheckReport) {
        report.commits += 1;
        let number = commit.number;
        if root(links) != commit.root {
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

    fn load(&self, number: u64) -> Result<Option<Signed>, LedgerError> {
        let sql = format!("SELECT {} WHERE c.number = ?1", seal::COLUMNS);
        let found = self
            .conn
            .prepare_cached(&sql)?
            .query_row([number.cast_signed()], |row| Ok(seal::read(row, &self.of)))
            .optional()?;
        found.transpose()
    }

    pub(crate) fn finish(self, report: &mut CheckReport) -> Result<(), LedgerError> {
        let mut last = self.before.0;
        if let Some(((commit, _), links)) = self.commit {
            last = commit.number;
            report.fault(format!(
                "commit {} has {} entries, {} are there",
                commit.number,
                commit.entries,
                links.len()
            ));
        }
        let (count, links): (i64, i64) = self.conn.query_one(
            "SELECT (SELECT count(*) FROM signed_commit), (SELECT count(*) FROM link)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if count.cast_unsigned() != last {
            report.fault(format!("{count} commits, of which {last} belong to entries"));
        }
        if links.cast_unsigned() != report.entries {
            report.fault(format!("{links} links of {} entries", report.entries));
        }
        Ok(())
    }
}
