use std::collections::HashMap;

use rusqlite::Connection;
use serde::Serialize;
use serde_json::value::RawValue;
use wasmeter_receipt::{
    AdjustedLine, Chain, CommitLine, Hash, KeyLine, PublicKey, ReceiptLine, SheetLine, Skipped, SkippedLine,
    Statement, StatementLine, prove, record_hash,
};
use wasmeter_usage::wire::{ExportCursor, MAX_PAGE};
use wasmeter_usage::{Pico, PriceSheet};

use super::chain::Placed;
use super::one::damaged;
use super::seal::{self, Of, Signed};
use super::{adjusted, chain, keys};
use crate::open::load_sheets;
use crate::sums::{read_sum, sums_sql, time};
use crate::{LedgerError, Reader};

/// A page ends after this many bytes of lines. With the longest record and commit behind it, escaped as JSON, it stays
/// below the wire's limit.
const PAGE_BYTES: usize = 4 << 20;

/// Entries of a tenant, in ledger order, without a sort.
pub(crate) const PAGE_SQL: &str =
    "SELECT position, end_ns, cost_pico, sheet, record, invocation FROM entry INDEXED BY entry_page
  WHERE tenant = ?1 AND position > ?2 AND position <= ?3 ORDER BY position LIMIT ?4";

impl Reader {
    /// A page of an export of the invocations that ended in `from_ns .. to_ns`, as lines of JSON: a signed statement of what
    /// it holds, the entries in ledger order, after those of a commit the commit, sheets and keys before their first use.
    /// Between the first and the last entry, those of the tenant that ended outside the window are shown as links.
    ///
    /// The export is as of the last commit when its first page is asked for. The second value is what to pass for the next
    /// page, `None` after the last.
    ///
    /// # Errors
    /// SQLite's, [`LedgerError::Damaged`]; [`LedgerError::NoSigner`] of a reader that is not from
    /// [`Ledger::reader`](crate::Ledger::reader).
    pub fn export(
        &self,
        tenant: &str,
        (from_ns, to_ns): (u64, u64),
        cursor: Option<ExportCursor>,
        limit: u32,
        now_ns: u64,
    ) -> Result<(String, Option<ExportCursor>), LedgerError> {
        let snapshot = self.conn.unchecked_transaction()?;
        let of = self.of();
        let mut page =
            Page { conn: &snapshot, of, tenant, text: String::new(), commit: None, public: keys(&snapshot)? };
        let mut cursor = match cursor {
            Some(cursor) => cursor,
            None => self.begin(&mut page, (from_ns, to_ns), now_ns)?,
        };
        let more = page.fill(&mut cursor, (from_ns, to_ns), limit.clamp(1, MAX_PAGE))?;
        Ok((page.text, more.then_some(cursor)))
    }

    /// Writes the statement.
    fn begin(
        &self,
        page: &mut Page<'_>,
        (from_ns, to_ns): (u64, u64),
        now_ns: u64,
    ) -> Result<ExportCursor, LedgerError> {
        let signer = self.signer.as_ref().ok_or(LedgerError::NoSigner)?;
        let (commit, commit_hash, upto) = match seal::last(page.conn, &page.of)? {
            Some((commit, _)) => (commit.number, commit.hash(), commit.first_entry + commit.entries - 1),
            None => (0, Hash::ZERO, 0),
        };
        let upto = time(upto);
        let sql = format!(
            "SELECT count(*), coalesce(min(position), 0), coalesce(max(position), 0), {}
             FROM entry INDEXED BY entry_window
             WHERE tenant = ?1 AND end_ns >= ?2 AND end_ns < ?3 AND position <= ?4",
            sums_sql(&["cost_pico"])
        );
        let (entries, first, last, cost) = page.conn.prepare_cached(&sql)?.query_one(
            (page.tenant, time(from_ns), time(to_ns), upto),
            |row| {
                let entries: i64 = row.get(0)?;
                let cost = if entries == 0 { Ok(0) } else { read_sum(row, 3) };
                Ok((entries, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, cost))
            },
        )?;
        let index = |position: i64| {
            if entries == 0 {
                return Ok(0);
            }
            chain::at(page.conn, position).map(|(index, _)| index)
        };
        let (chain, head) = chain::head(page.conn, page.tenant, upto + 1)?.unwrap_or((0, Hash::ZERO));
        let statement = Statement {
            tenant: page.tenant.to_owned(),
            stamp: self.stamp.clone(),
            currency: self.currency.clone(),
            from_ns,
            to_ns,
            entries: entries.cast_unsigned(),
            cost_pico: Pico(cost?),
            first: index(first)?,
            last: index(last)?,
            chain,
            head,
            commit,
            commit_hash,
            made_ns: now_ns,
            key: signer.id,
            adjustments: adjusted::stated(page.conn, page.tenant, (from_ns, to_ns))?,
        };
        let signature = signer.sign(&statement.text())?;
        page.line(&KeyLine { key: signer.public })?;
        page.line(&StatementLine { statement: &statement, signature })?;
        Ok(ExportCursor {
            first: first.cast_unsigned(),
            last: last.cast_unsigned(),
            after: first.cast_unsigned().saturating_sub(1),
            keys: vec![signer.row.cast_unsigned()],
            sheets: Vec::new(),
            adjusted: statement.adjustments.as_ref().map_or(0, |all| all.first.saturating_sub(1)),
            adjusted_last: statement.adjustments.as_ref().map_or(0, |all| all.last),
        })
    }
}

fn keys(conn: &Connection) -> Result<HashMap<i64, PublicKey>, LedgerError> {
    Ok(keys::load(conn)?.into_iter().map(|(row, key, _)| (row, key)).collect())
}

struct Page<'a> {
    conn: &'a Connection,
    of: Of<'a>,
    tenant: &'a str,
    text: String,
    /// The commit of the entries at hand, with the links of its entries.
    commit: Option<(Signed, Vec<Placed>)>,
    public: HashMap<i64, PublicKey>,
}

/// An entry as it is read.
struct Entry {
    position: i64,
    end_ns: u64,
    cost: Pico,
    sheet: i64,
    record: String,
    invocation: String,
}

impl Page<'_> {
    /// Writes entries and commits; tells whether there are more.
    fn fill(
        &mut self,
        cursor: &mut ExportCursor,
        (from_ns, to_ns): (u64, u64),
        limit: u32,
    ) -> Result<bool, LedgerError> {
        let mut shown = self.adjustments(cursor, limit)?;
        if cursor.adjusted < cursor.adjusted_last || shown >= limit {
            return Ok(cursor.adjusted < cursor.adjusted_last || cursor.last > 0);
        }
        let sheets: HashMap<i64, PriceSheet> = load_sheets(self.conn)?.into_iter().collect();
        let mut statement = self.conn.prepare_cached(PAGE_SQL)?;
        // One more than is shown tells where a commit ends, and whether there is another page.
        let mut rows =
            statement.query((self.tenant, time(cursor.after), time(cursor.last), i64::from(limit) + 1))?;
        let mut next = move || -> Result<Option<Entry>, LedgerError> {
            let Some(row) = rows.next()? else { return Ok(None) };
            Ok(Some(Entry {
                position: row.get(0)?,
                end_ns: row.get::<_, i64>(1)?.cast_unsigned(),
                cost: Pico(i128::from(row.get::<_, i64>(2)?)),
                sheet: row.get(3)?,
                record: row.get(4)?,
                invocation: row.get(5)?,
            }))
        };
        let mut entry = next()?;
        let mut previous = match &entry {
            Some(entry) => chain::previous(self.conn, self.tenant, entry.position)?,
            None => return Ok(false),
        };
        while let Some(this) = entry {
            let (index, link) = self.link(this.position)?;
            let place = Chain { index, previous, link };
            previous = link;
            if (from_ns..to_ns).contains(&this.end_ns) {
                let sheet = sheets
                    .get(&this.sheet)
                    .ok_or_else(|| LedgerError::Damaged(format!("price sheet {} is missing", this.sheet)))?;
                if !cursor.sheets.contains(&this.sheet.cast_unsigned()) {
                    cursor.sheets.push(this.sheet.cast_unsigned());
                    self.line(&SheetLine { sheet })?;
                }
                self.receipt(&this, place)?;
            } else {
                let sheet = sheets.get(&this.sheet).map(|sheet| sheet.hash.clone()).unwrap_or_default();
                self.line(&SkippedLine {
                    skipped: Skipped {
                        entry: this.position.cast_unsigned(),
                        end_ns: this.end_ns,
                        cost_pico: this.cost,
                        record: record_hash(&this.record),
                        sheet,
                        chain: place,
                    },
                })?;
            }
            cursor.after = this.position.cast_unsigned();
            shown += 1;
            entry = next()?;
            self.seal(&this, entry.as_ref(), cursor)?;
            if entry.is_some() && (shown == limit || self.text.len() > PAGE_BYTES) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes corrections that are not shown yet; how many.
    fn adjustments(&mut self, cursor: &mut ExportCursor, limit: u32) -> Result<u32, LedgerError> {
        if cursor.adjusted >= cursor.adjusted_last {
            return Ok(0);
        }
        let place = (cursor.adjusted, cursor.adjusted_last);
        let mut shown = 0;
        for sealed in adjusted::page(self.conn, self.of.currency, self.tenant, place, limit)? {
            if !cursor.keys.contains(&sealed.key.cast_unsigned()) {
                cursor.keys.push(sealed.key.cast_unsigned());
                self.line(&KeyLine { key: sealed.public })?;
            }
            self.line(&AdjustedLine { adjustment: &sealed.adjusted, signature: sealed.signature })?;
            cursor.adjusted = sealed.adjusted.index;
            shown += 1;
        }
        Ok(shown)
    }

    fn receipt(&mut self, entry: &Entry, chain: Chain) -> Result<(), LedgerError> {
        let record: &RawValue =
            serde_json::from_str(&entry.record).map_err(|e| damaged(entry.position, &e))?;
        let invocation = entry.invocation.parse().map_err(|_| {
            LedgerError::Damaged(format!("entry {}: invocation {:?}", entry.position, entry.invocation))
        })?;
        let currency = self.of.currency;
        self.line(&ReceiptLine {
            invocation,
            entry: entry.position.cast_unsigned(),
            cost_pico: entry.cost,
            cost: format!("{} {currency}", entry.cost),
            currency,
            record,
            chain,
            proved: None,
        })
    }

    /// The commit of a position: the one at hand, which is always of the entries at hand, or read.
    fn commit_of(&mut self, position: i64) -> Result<(Signed, Vec<Placed>), LedgerError> {
        if let Some(commit) = self.commit.take() {
            return Ok(commit);
        }
        let signed = seal::of_position(self.conn, &self.of, position)?;
        let links = seal::links(self.conn, &signed.0)?;
        Ok((signed, links))
    }

    fn link(&mut self, position: i64) -> Result<Placed, LedgerError> {
        let ((commit, signature), links) = self.commit_of(position)?;
        let place = position.cast_unsigned().checked_sub(commit.first_entry);
        let link = place.and_then(|place| links.get(usize::try_from(place).ok()?)).copied();
        self.commit = Some(((commit, signature), links));
        link.ok_or_else(|| LedgerError::Damaged(format!("entry {position} is in no commit")))
    }

    /// Writes the commit of an entry if none of the entries to come is in it.
    fn seal(
        &mut self,
        entry: &Entry,
        next: Option<&Entry>,
        cursor: &mut ExportCursor,
    ) -> Result<(), LedgerError> {
        let ((commit, (key, signature)), links) = self.commit_of(entry.position)?;
        let end = commit.first_entry.saturating_add(commit.entries);
        if next.is_some_and(|next| next.position.cast_unsigned() < end) {
            self.commit = Some(((commit, (key, signature)), links));
            return Ok(());
        }
        let (first, last) = (cursor.first.max(commit.first_entry), cursor.last.min(end - 1));
        let mut statement = self.conn.prepare_cached(
            "SELECT position FROM entry INDEXED BY entry_page
             WHERE tenant = ?1 AND position BETWEEN ?2 AND ?3 ORDER BY position",
        )?;
        let shown =
            statement.query_map((self.tenant, time(first), time(last)), |row| row.get::<_, i64>(0))?;
        let mut own = Vec::new();
        for position in shown {
            let place = position?.cast_unsigned() - commit.first_entry;
            own.extend(usize::try_from(place));
        }
        let links: Vec<_> = links.into_iter().map(|(_, link)| link).collect();
        let path = prove(&links, &own);
        if !cursor.keys.contains(&key.cast_unsigned()) {
            cursor.keys.push(key.cast_unsigned());
            let public = self.public.get(&key).copied();
            let key =
                public.ok_or_else(|| LedgerError::Damaged(format!("key {key} of receipts is missing")))?;
            self.line(&KeyLine { key })?;
        }
        self.line(&CommitLine { commit: &commit, path, signature })
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), LedgerError> {
        let text = serde_json::to_string(line)
            .map_err(|e| LedgerError::Damaged(format!("a receipt cannot be written: {e}")))?;
        self.text.push_str(&text);
        self.text.push('\n');
        Ok(())
    }
}
