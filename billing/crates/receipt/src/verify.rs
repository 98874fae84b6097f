use std::collections::{HashMap, HashSet};

use wasmeter_rating::sheet_hash;
use wasmeter_usage::{InvocationId, Pico, PriceSheet, RECORD_VERSION, UsageRecord};

use crate::line::{Line, Receipt, parse};
use crate::{
    Adjusted, Chain, Commit, Fault, Hash, Link, MAX_COMMIT, Made, PublicKey, Signature, Skipped, Statement,
    UNSTAMPED, Wrong, rebuild, record_hash,
};

/// Price sheets and keys of one export, at most.
const MAX_KNOWN: usize = 1 << 16;

/// So many invocations are compared with each other; beyond, memory would grow with the export.
const MAX_COMPARED: usize = 1 << 20;

/// What was found in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Tenant.
    pub tenant: String,
    /// ISO 4217.
    pub currency: String,
    /// What the ledger is stamped with.
    pub stamp: String,
    /// Receipts.
    pub receipts: u64,
    /// Entries outside the window of which only links are shown.
    pub skipped: u64,
    /// Commits.
    pub commits: u64,
    /// What the receipts cost together.
    pub cost: Pico,
    /// Refunds and other corrections.
    pub adjustments: u64,
    /// Their sum; below zero for what the tenant gets back.
    pub adjusted: Pico,
    /// What the export says of itself; `None` of receipts that stand alone.
    pub statement: Option<Statement>,
    /// Keys whose signatures were checked.
    pub keys: Vec<PublicKey>,
    /// What cannot be known from this file.
    pub unknown: Vec<String>,
}

/// Checks receipts line by line: an export, or receipts that stand alone.
pub struct Verifier {
    pinned: Option<HashSet<Hash>>,
    keys: HashMap<Hash, PublicKey>,
    used: Vec<PublicKey>,
    sheets: HashMap<String, PriceSheet>,
    line: u64,
    form: Form,
    /// What the line before was for: the next must need it.
    owed: Option<Owed>,
    tenant: Option<String>,
    stamp: String,
    currency: String,
    last: Option<(u64, Hash, u64)>,
    /// Shown entries that no commit has covered yet: position and link.
    open: Vec<(u64, Hash)>,
    commit: Option<(Commit, Hash)>,
    seen: HashSet<InvocationId>,
    receipts: u64,
    skipped: u64,
    commits: u64,
    adopted: u64,
    jumps: u64,
    cost: Pico,
    corrections: Corrections,
    unstamped: u64,
}

/// The corrections that were shown.
#[derive(Default)]
struct Corrections {
    count: u64,
    sum: Pico,
    adopted: u64,
    /// Place, hash and time of the last.
    last: Option<(u64, Hash, u64)>,
    /// What is given back of an invocation.
    refunds: HashMap<InvocationId, Pico>,
    /// The link at a place in the chain of entries, as one of them names it.
    anchors: HashMap<u64, Hash>,
}

/// What kind of file it is.
enum Form {
    Unknown,
    Alone,
    Export(Box<Statement>),
}

enum Owed {
    Sheet(String),
    Key(Hash),
}

/// What is wrong with a line, before its number is added.
type Refused = (Wrong, String);

impl Verifier {
    /// With `pinned`, only signatures by these keys are accepted; without, whatever keys the file carries.
    #[must_use]
    pub fn new(pinned: Option<&[PublicKey]>) -> Self {
        Self {
            pinned: pinned.map(|keys| keys.iter().map(PublicKey::id).collect()),
            keys: HashMap::new(),
            used: Vec::new(),
            sheets: HashMap::new(),
            line: 0,
            form: Form::Unknown,
            owed: None,
            tenant: None,
            stamp: String::new(),
            currency: String::new(),
            last: None,
            open: Vec::new(),
            commit: None,
            seen: HashSet::new(),
            receipts: 0,
            skipped: 0,
            commits: 0,
            adopted: 0,
            jumps: 0,
            cost: Pico::ZERO,
            corrections: Corrections::default(),
            unstamped: 0,
        }
    }

    /// Checks the next line, without its line break.
    ///
    /// # Errors
    /// The first fault; then the file is refused, whatever follows.
    pub fn line(&mut self, text: &str) -> Result<(), Fault> {
        self.line += 1;
        let mut invocation = None;
        self.take(text, &mut invocation).map_err(|(wrong, message)| Fault {
            line: self.line,
            invocation,
            wrong,
            message,
        })
    }

    /// Checks that nothing is missing at the end.
    ///
    /// # Errors
    /// What is missing.
    pub fn finish(self) -> Result<Report, Fault> {
        let line = self.line + 1;
        self.close().map_err(|(wrong, message)| Fault { line, invocation: None, wrong, message })
    }

    fn take(&mut self, text: &str, invocation: &mut Option<InvocationId>) -> Result<(), Refused> {
        let line = parse(text).map_err(|what| (Wrong::Shape, what))?;
        self.pay_debt(&line)?;
        match (&self.form, line) {
            (Form::Unknown | Form::Alone, Line::Receipt(receipt)) if receipt.proved.is_some() => {
                self.form = Form::Alone;
                self.alone(&receipt, invocation)
            }
            (Form::Unknown, Line::Statement { statement, signature }) => self.begin(statement, &signature),
            (Form::Unknown | Form::Export(_), Line::Key(key)) => self.learn_key(key),
            (Form::Export(_), Line::Receipt(receipt)) if receipt.proved.is_none() => {
                self.entry(&receipt, invocation)
            }
            (Form::Export(_), Line::Skipped(skipped)) => self.skip(&skipped),
            (Form::Export(_), Line::Sheet(sheet)) => self.learn_sheet(sheet),
            (Form::Export(_), Line::Adjusted { adjustment, signature }) => {
                self.adjust(&adjustment, &signature)
            }
            (Form::Export(_), Line::Commit { commit, path, signature }) => {
                self.seal(commit, &path, &signature)
            }
            (Form::Unknown, _) => Err((
                Wrong::Order,
                "receipts begin with a key and the statement of what they hold; these are cut off".into(),
            )),
            _ => Err((Wrong::Order, "a line of this kind cannot stand here".into())),
        }
    }

    /// A sheet or key stands directly before the line that needs it, so that none can be moved or put in.
    fn pay_debt(&mut self, line: &Line<'_>) -> Result<(), Refused> {
        let paid = match (self.owed.take(), line) {
            (None, _) => true,
            (Some(Owed::Sheet(hash)), Line::Receipt(receipt)) => {
                // A record that does not parse is refused with a better reason.
                serde_json::from_str::<UsageRecord>(receipt.record.get())
                    .is_ok_and(|record| record.price_book == hash)
            }
            (Some(Owed::Key(id)), Line::Commit { commit, .. }) => commit.key == id,
            (Some(Owed::Key(id)), Line::Statement { statement, .. }) => statement.key == id,
            (Some(Owed::Key(id)), Line::Adjusted { adjustment, .. }) => adjustment.key == id,
            _ => false,
        };
        if paid {
            Ok(())
        } else {
            Err((Wrong::Order, "the line before is a price sheet or key that this line does not use".into()))
        }
    }

    fn learn_key(&mut self, key: PublicKey) -> Result<(), Refused> {
        let id = key.id();
        if self.pinned.as_ref().is_some_and(|pinned| !pinned.contains(&id)) {
            return Err((Wrong::Key, format!("key {key} is none of those that were named")));
        }
        if self.keys.len() >= MAX_KNOWN || self.keys.insert(id, key).is_some() {
            return Err((Wrong::Order, format!("key {key} stands here again")));
        }
        self.used.push(key);
        self.owed = Some(Owed::Key(id));
        Ok(())
    }

    fn learn_sheet(&mut self, sheet: PriceSheet) -> Result<(), Refused> {
        self.check_sheet(&sheet)?;
        let hash = sheet.hash.clone();
        if self.sheets.len() >= MAX_KNOWN || self.sheets.insert(hash.clone(), sheet).is_some() {
            return Err((Wrong::Order, format!("price sheet {hash} stands here again")));
        }
        self.owed = Some(Owed::Sheet(hash));
        Ok(())
    }

    fn check_sheet(&self, sheet: &PriceSheet) -> Result<(), Refused> {
        let hash = sheet_hash(sheet);
        if hash != sheet.hash {
            return Err((Wrong::Sheet, format!("price sheet {} hashes to {hash}", sheet.hash)));
        }
        if sheet.currency != self.currency {
            let message =
                format!("price sheet {hash} is in {}, the rest in {}", sheet.currency, self.currency);
            return Err((Wrong::Sheet, message));
        }
        Ok(())
    }

    fn check_signature(&self, id: Hash, text: &str, signature: &Signature) -> Result<(), Refused> {
        let key = self.keys.get(&id).ok_or_else(|| (Wrong::Key, format!("key {id} is not in the file")))?;
        if key.signed(text, signature) {
            Ok(())
        } else {
            Err((Wrong::Signature, format!("the signature is not by key {key} over what the line says")))
        }
    }

    fn begin(&mut self, statement: Statement, signature: &Signature) -> Result<(), Refused> {
        self.check_signature(statement.key, &statement.text(), signature)?;
        self.tenant = Some(statement.tenant.clone());
        self.stamp.clone_from(&statement.stamp);
        self.currency.clone_from(&statement.currency);
        self.form = Form::Export(Box::new(statement));
        Ok(())
    }

    /// A receipt: its record, cost and link. What it says twice, it says the same.
    fn receipt(
        &mut self,
        receipt: &Receipt<'_>,
        sheet: Option<&PriceSheet>,
        invocation: &mut Option<InvocationId>,
    ) -> Result<u64, Refused> {
        let record: UsageRecord = serde_json::from_str(receipt.record.get())
            .map_err(|e| (Wrong::Record, format!("the record does not parse: {e}")))?;
        *invocation = Some(record.invocation);
        if record.v != RECORD_VERSION {
            let message = format!("record version {}, this build knows {RECORD_VERSION}", record.v);
            return Err((Wrong::Record, message));
        }
        if receipt.invocation != record.invocation.to_string() {
            let message = format!("the line is about {}, its record about another", receipt.invocation);
            return Err((Wrong::Record, message));
        }
        if let Some(tenant) = self.tenant.as_ref().filter(|tenant| **tenant != record.tenant) {
            return Err((
                Wrong::Record,
                format!("the record is of tenant {:?}, not {tenant:?}", record.tenant),
            ));
        }
        let sheet = sheet
            .or_else(|| self.sheets.get(&record.price_book))
            .filter(|sheet| sheet.hash == record.price_book)
            .ok_or_else(|| (Wrong::Sheet, format!("price sheet {} is missing", record.price_book)))?;
        let cost = sheet
            .cost(&record)
            .ok_or_else(|| (Wrong::Cost, "the record's quantities are beyond any amount".to_owned()))?;
        if receipt.cost_pico != cost.0.to_string() {
            let message = format!(
                "cost_pico is {}, the record costs {} under its price sheet",
                receipt.cost_pico, cost.0
            );
            return Err((Wrong::Cost, message));
        }
        if receipt.currency != sheet.currency || receipt.cost != format!("{cost} {}", sheet.currency) {
            let message = format!(
                "the line says {:?} in {:?}, the record costs {cost} {}",
                receipt.cost, receipt.currency, sheet.currency
            );
            return Err((Wrong::Cost, message));
        }
        let link = Link {
            previous: receipt.chain.previous,
            index: receipt.chain.index,
            end_ns: record.end_ns,
            cost_pico: narrow(cost)?,
            record: record_hash(receipt.record.get()),
            sheet: &record.price_book,
            tenant: &record.tenant,
        };
        if link.hash() != receipt.chain.link {
            return Err((
                Wrong::Chain,
                "the link is not made of this record, cost, sheet and link before: one of them was changed"
                    .into(),
            ));
        }
        if let Some(refund) = self.corrections.refunds.get(&record.invocation)
            && refund.0.checked_neg().is_none_or(|back| back > cost.0)
        {
            let message = format!("a correction of {refund} is of an invocation that cost {cost}");
            return Err((Wrong::Sum, message));
        }
        if self.seen.len() < MAX_COMPARED && !self.seen.insert(record.invocation) {
            return Err((Wrong::Order, "this invocation was there before".into()));
        }
        self.receipts += 1;
        self.cost = self
            .cost
            .checked_add(cost)
            .ok_or_else(|| (Wrong::Sum, "the costs sum up to more than any amount".to_owned()))?;
        if self.tenant.is_none() {
            self.tenant = Some(record.tenant);
        }
        Ok(record.end_ns)
    }

    fn entry(&mut self, receipt: &Receipt<'_>, invocation: &mut Option<InvocationId>) -> Result<(), Refused> {
        let end_ns = self.receipt(receipt, None, invocation)?;
        if !self.within(end_ns) {
            return Err((Wrong::Window, format!("the invocation ended at {end_ns}, outside the window")));
        }
        self.follow(receipt.entry, &receipt.chain)
    }

    fn skip(&mut self, skipped: &Skipped) -> Result<(), Refused> {
        let link = Link {
            previous: skipped.chain.previous,
            index: skipped.chain.index,
            end_ns: skipped.end_ns,
            cost_pico: narrow(skipped.cost_pico)?,
            record: skipped.record,
            sheet: &skipped.sheet,
            tenant: self.tenant.as_deref().unwrap_or_default(),
        };
        if link.hash() != skipped.chain.link {
            return Err((Wrong::Chain, "the link is not made of what the line says".into()));
        }
        if self.within(skipped.end_ns) {
            let message =
                format!("an entry that ended at {}, within the window, is not shown", skipped.end_ns);
            return Err((Wrong::Window, message));
        }
        self.skipped += 1;
        self.follow(skipped.entry, &skipped.chain)
    }

    /// A correction: signed, the next in its chain, of this window.
    fn adjust(&mut self, adjusted: &Adjusted, signature: &Signature) -> Result<(), Refused> {
        let Form::Export(statement) = &self.form else { return Ok(()) };
        let order = |message: String| Err((Wrong::Order, message));
        if self.last.is_some() || self.commit.is_some() {
            return order("corrections stand before the first entry".to_owned());
        }
        let Some(stated) = statement.adjustments.clone() else {
            return Err((Wrong::Sum, "the statement says that there is no correction".to_owned()));
        };
        self.check_signature(adjusted.key, &adjusted.text(), signature)?;
        if self.tenant.as_ref() != Some(&adjusted.tenant)
            || adjusted.currency != self.currency
            || (adjusted.stamp != self.stamp && adjusted.stamp != UNSTAMPED)
        {
            let Adjusted { tenant, stamp, currency, .. } = adjusted;
            let message =
                format!("the correction is of tenant {tenant:?}, of a ledger {stamp} in {currency}");
            return Err((Wrong::Record, message));
        }
        let index = adjusted.index;
        let (expected, before, since) = match self.corrections.last {
            None => (Some(stated.first), None, 0),
            Some((index, hash, made_ns)) => (index.checked_add(1), Some(hash), made_ns),
        };
        if Some(index) != expected || index > stated.last || index == 0 {
            return Err((Wrong::Chain, format!("correction {index} cannot stand here")));
        }
        if before.is_some_and(|hash| hash != adjusted.previous)
            || (index == 1 && adjusted.previous != Hash::ZERO)
            || (index == stated.chain && adjusted.hash() != stated.head)
        {
            return Err((Wrong::Chain, format!("correction {index} does not hang on those around it")));
        }
        if adjusted.made_ns < since || !self.within(adjusted.made_ns) {
            let message =
                format!("the correction was made at {}, outside the window or of order", adjusted.made_ns);
            return Err((Wrong::Window, message));
        }
        let known = self.corrections.refunds.len().max(self.corrections.anchors.len());
        if known >= MAX_COMPARED {
            return order("too many corrections".to_owned());
        }
        if let Some(text) = &adjusted.invocation {
            let invocation: InvocationId = text
                .parse()
                .ok()
                .filter(|invocation: &InvocationId| invocation.to_string() == *text)
                .ok_or_else(|| (Wrong::Record, format!("{text:?} is no invocation")))?;
            if self.corrections.refunds.insert(invocation, adjusted.amount_pico).is_some() {
                return order(format!("invocation {invocation} is refunded twice"));
            }
        }
        if let Some(other) = self.corrections.anchors.insert(adjusted.chain, adjusted.head)
            && other != adjusted.head
        {
            return Err((Wrong::Chain, format!("two links are said to be link {}", adjusted.chain)));
        }
        let sum = self.corrections.sum.checked_add(adjusted.amount_pico);
        self.corrections.sum =
            sum.ok_or_else(|| (Wrong::Sum, "the corrections sum up to more than any amount".to_owned()))?;
        self.corrections.count += 1;
        self.corrections.adopted += u64::from(adjusted.made == Made::Adopted);
        self.corrections.last = Some((index, adjusted.hash(), adjusted.made_ns));
        Ok(())
    }

    fn within(&self, end_ns: u64) -> bool {
        match &self.form {
            Form::Export(statement) => (statement.from_ns..statement.to_ns).contains(&end_ns),
            _ => true,
        }
    }

    /// The chain goes on where it was, and positions rise.
    fn follow(&mut self, entry: u64, chain: &Chain) -> Result<(), Refused> {
        let Form::Export(statement) = &self.form else { return Ok(()) };
        match self.last {
            None if chain.index != statement.first => {
                let message =
                    format!("the chain begins at {}, the statement says {}", chain.index, statement.first);
                return Err((Wrong::Chain, message));
            }
            Some((index, _, _)) if Some(chain.index) != index.checked_add(1) => {
                return Err((Wrong::Chain, format!("link {} follows link {index}", chain.index)));
            }
            Some((index, link, _)) if chain.previous != link => {
                return Err((Wrong::Chain, format!("link {} does not hang on link {index}", chain.index)));
            }
            Some((_, _, before)) if entry <= before => {
                return Err((Wrong::Order, format!("ledger position {entry} follows {before}")));
            }
            _ => {}
        }
        if chain.index > statement.last {
            let message = format!("link {} is beyond the statement's last, {}", chain.index, statement.last);
            return Err((Wrong::Sum, message));
        }
        if chain.index == statement.chain && chain.link != statement.head {
            return Err((
                Wrong::Chain,
                format!("link {} is not the chain's end as it was stated", chain.index),
            ));
        }
        if self.corrections.anchors.get(&chain.index).is_some_and(|link| *link != chain.link) {
            let message = format!("link {} is not the one that a correction names", chain.index);
            return Err((Wrong::Chain, message));
        }
        if let Some(first) = self.open.first()
            && self.open.len() >= MAX_COMMIT
        {
            return Err((
                Wrong::Order,
                format!("no commit follows the entry at ledger position {}", first.0),
            ));
        }
        self.last = Some((chain.index, chain.link, entry));
        self.open.push((entry, chain.link));
        Ok(())
    }

    fn seal(&mut self, commit: Commit, path: &[Hash], signature: &Signature) -> Result<(), Refused> {
        let open = std::mem::take(&mut self.open);
        self.check_commit(&commit, &open, path, signature)?;
        let hash = commit.hash();
        if let Form::Export(statement) = &self.form {
            if commit.number > statement.commit {
                let message =
                    format!("commit {} is after the statement's, {}", commit.number, statement.commit);
                return Err((Wrong::Commit, message));
            }
            if commit.number == statement.commit && hash != statement.commit_hash {
                return Err((
                    Wrong::Commit,
                    format!("commit {} is not the one that was stated", commit.number),
                ));
            }
        }
        if let Some((before, before_hash)) = &self.commit {
            let next = before.number.checked_add(1);
            let end = before.first_entry.saturating_add(before.entries);
            if Some(commit.number) < next || commit.first_entry < end {
                let message =
                    format!("commit {} does not come after commit {}", commit.number, before.number);
                return Err((Wrong::Order, message));
            }
            if Some(commit.number) == next {
                if commit.previous != *before_hash || commit.first_entry != end {
                    let message =
                        format!("commit {} does not hang on commit {}", commit.number, before.number);
                    return Err((Wrong::Commit, message));
                }
            } else {
                self.jumps += 1;
            }
        }
        self.commit = Some((commit, hash));
        Ok(())
    }

    /// Signature, and that the commit holds these entries.
    fn check_commit(
        &mut self,
        commit: &Commit,
        open: &[(u64, Hash)],
        path: &[Hash],
        signature: &Signature,
    ) -> Result<(), Refused> {
        self.check_signature(commit.key, &commit.text(), signature)?;
        // What stands alone shows no statement: the first that is stamped says with what.
        if matches!(self.form, Form::Alone) && self.stamp == UNSTAMPED {
            self.stamp.clone_from(&commit.stamp);
        }
        let early = commit.stamp == UNSTAMPED && self.stamp != UNSTAMPED;
        self.unstamped += u64::from(early);
        if (commit.stamp != self.stamp && !early) || commit.currency != self.currency {
            let message = format!("the commit is of a ledger {} in {}", commit.stamp, commit.currency);
            return Err((Wrong::Commit, message));
        }
        let count = usize::try_from(commit.entries)
            .ok()
            .filter(|count| *count <= MAX_COMMIT)
            .ok_or_else(|| (Wrong::Commit, format!("a commit of {} entries", commit.entries)))?;
        if open.is_empty() {
            return Err((Wrong::Order, "a commit without any entry before it".into()));
        }
        let own: Option<Vec<_>> = open
            .iter()
            .map(|(entry, link)| Some((usize::try_from(entry.checked_sub(commit.first_entry)?).ok()?, *link)))
            .collect();
        if own.and_then(|own| rebuild(count, &own, path)) != Some(commit.root) {
            let message = format!(
                "commit {} does not hold {} at these ledger positions",
                commit.number,
                if open.len() == 1 { "this entry" } else { "all of these entries" }
            );
            return Err((Wrong::Commit, message));
        }
        self.commits += 1;
        if commit.made == Made::Adopted {
            self.adopted += 1;
        }
        Ok(())
    }

    fn alone(&mut self, receipt: &Receipt<'_>, invocation: &mut Option<InvocationId>) -> Result<(), Refused> {
        let Some(proved) = &receipt.proved else { return Ok(()) };
        if self.currency.is_empty() {
            self.currency.clone_from(&proved.commit.currency);
            self.stamp.clone_from(&proved.commit.stamp);
        }
        let id = proved.key.id();
        if self.pinned.as_ref().is_some_and(|pinned| !pinned.contains(&id)) {
            return Err((Wrong::Key, format!("key {} is none of those that were named", proved.key)));
        }
        if !self.keys.contains_key(&id) {
            if self.keys.len() >= MAX_KNOWN {
                return Err((Wrong::Key, "too many keys".into()));
            }
            self.keys.insert(id, proved.key);
            self.used.push(proved.key);
        }
        self.check_sheet(&proved.sheet)?;
        self.receipt(receipt, Some(&proved.sheet), invocation)?;
        let open = [(receipt.entry, receipt.chain.link)];
        if proved.commit.key != id {
            let message = format!("the commit names key {}, the receipt carries {id}", proved.commit.key);
            return Err((Wrong::Key, message));
        }
        self.check_commit(&proved.commit, &open, &proved.path, &proved.signature)
    }

    fn close(mut self) -> Result<Report, Refused> {
        if let Some((entry, _)) = self.open.first() {
            return Err((Wrong::Order, format!("no commit follows the entry at ledger position {entry}")));
        }
        if self.owed.is_some() {
            return Err((Wrong::Order, "the line that needs the last price sheet or key is missing".into()));
        }
        let mut unknown = Vec::new();
        if self.pinned.is_none() {
            unknown.push(
                "the keys came with the file: compare them with those that the operator publishes, or name one"
                    .to_owned(),
            );
        }
        let statement = match std::mem::replace(&mut self.form, Form::Unknown) {
            Form::Unknown => return Err((Wrong::Order, "there is nothing in it".into())),
            Form::Alone => {
                unknown
                    .push("receipts that stand alone say nothing about others: there may be more".to_owned());
                None
            }
            Form::Export(statement) => {
                self.check_sums(&statement)?;
                unknown.push(format!(
                    "what was booked after commit {} is not in it, whenever it ended",
                    statement.commit
                ));
                Some(*statement)
            }
        };
        if self.jumps > 0 {
            unknown.push(format!(
                "commits between those shown hold entries of others alone; {} times the chain of commits is not shown \
                 whole",
                self.jumps
            ));
        }
        if self.unstamped > 0 {
            unknown.push(format!(
                "{} commits were signed before it was chosen what the ledger charges to",
                self.unstamped
            ));
        }
        if self.corrections.adopted > 0 {
            unknown.push(format!(
                "{} corrections were signed when the ledger was migrated, after they were made",
                self.corrections.adopted
            ));
        }
        if self.adopted > 0 {
            unknown.push(format!(
                "{} commits were signed when the ledger was migrated, after their entries were booked",
                self.adopted
            ));
        }
        if self.receipts > self.seen.len() as u64 {
            unknown.push(format!(
                "only the first {} invocations were compared with each other",
                self.seen.len()
            ));
        }
        Ok(Report {
            tenant: self.tenant.unwrap_or_default(),
            currency: self.currency,
            stamp: self.stamp,
            receipts: self.receipts,
            skipped: self.skipped,
            commits: self.commits,
            cost: self.cost,
            adjustments: self.corrections.count,
            adjusted: self.corrections.sum,
            statement,
            keys: self.used,
            unknown,
        })
    }

    fn check_sums(&self, statement: &Statement) -> Result<(), Refused> {
        if self.receipts != statement.entries {
            let message = format!(
                "{} receipts, the statement says {}: some were cut off or added",
                self.receipts, statement.entries
            );
            return Err((Wrong::Sum, message));
        }
        let last = self.last.map_or(0, |(index, _, _)| index);
        if last != statement.last {
            let message = format!("the last link is {last}, the statement says {}", statement.last);
            return Err((Wrong::Sum, message));
        }
        if let Some(stated) = &statement.adjustments {
            let last = self.corrections.last.map_or(0, |(index, _, _)| index);
            let shown = (self.corrections.count, self.corrections.sum, last);
            if shown != (stated.count, stated.amount_pico, stated.last) {
                let message = format!(
                    "{} corrections of together {}, the statement says {} of {}: some were cut off",
                    shown.0, shown.1.0, stated.count, stated.amount_pico.0
                );
                return Err((Wrong::Sum, message));
            }
        }
        if self.cost != statement.cost_pico {
            let message =
                format!("the costs sum up to {}, the statement says {}", self.cost.0, statement.cost_pico.0);
            return Err((Wrong::Sum, message));
        }
        Ok(())
    }
}

/// A cost as a link holds it.
fn narrow(cost: Pico) -> Result<i64, Refused> {
    i64::try_from(cost.0).map_err(|_| (Wrong::Cost, "a cost beyond any that is booked".to_owned()))
}
