use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wasmeter_usage::{InvocationId, Pico, PriceSheet};

use crate::{Adjusted, Commit, Hash, PublicKey, Signature, Statement};

/// No line is longer than this many bytes: the longest is a commit of which every second entry is shown.
pub const MAX_LINE: usize = 8 << 20;

/// One invocation.
#[derive(Serialize)]
pub struct ReceiptLine<'a> {
    /// Invocation (also in `record`).
    pub invocation: InvocationId,
    /// Ledger position.
    pub entry: u64,
    /// Booked list price.
    pub cost_pico: Pico,
    /// The same for people, such as `0.000000001100 USD`.
    pub cost: String,
    /// ISO 4217.
    pub currency: &'a str,
    /// What the host wrote, to the byte.
    pub record: &'a RawValue,
    /// Its place in the tenant's chain.
    pub chain: Chain,
    /// In a receipt that stands alone: all else that it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proved: Option<Proved>,
}

/// A place in a tenant's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// From 1.
    pub index: u64,
    /// The link before.
    pub previous: Hash,
    /// This link.
    pub link: Hash,
}

/// What a receipt that stands alone carries beside the entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proved {
    /// The prices.
    pub sheet: PriceSheet,
    /// The public key of the signature. Compare it with one that came by another way.
    pub key: PublicKey,
    /// The commit that the entry is in.
    pub commit: Commit,
    /// From the entry to the commit's root.
    pub path: Vec<Hash>,
    /// Over the commit.
    pub signature: Signature,
}

/// An entry of the tenant that ended outside the window and lies between two that did not.
#[derive(Serialize)]
pub struct SkippedLine {
    /// The entry.
    pub skipped: Skipped,
}

/// What its link is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Ledger position.
    pub entry: u64,
    /// When it ended, nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// Booked list price.
    pub cost_pico: Pico,
    /// [`record_hash`](crate::record_hash).
    pub record: Hash,
    /// The hash of the price sheet.
    pub sheet: String,
    /// Its place in the tenant's chain.
    pub chain: Chain,
}

/// A price sheet, directly before the first receipt with it.
#[derive(Serialize)]
pub struct SheetLine<'a> {
    /// The sheet.
    pub sheet: &'a PriceSheet,
}

/// A public key, directly before the first signature by it.
#[derive(Serialize)]
pub struct KeyLine {
    /// The key.
    pub key: PublicKey,
}

/// A commit, after those of its entries that are shown.
#[derive(Serialize)]
pub struct CommitLine<'a> {
    /// The commit.
    pub commit: &'a Commit,
    /// From these entries to its root: [`prove`](crate::prove).
    pub path: Vec<Hash>,
    /// Over [`Commit::text`].
    pub signature: Signature,
}

/// A correction. All of a window stand between the statement and the first entry.
#[derive(Serialize)]
pub struct AdjustedLine<'a> {
    /// The correction.
    pub adjustment: &'a Adjusted,
    /// Over [`Adjusted::text`].
    pub signature: Signature,
}

/// The first line of an export, but for its key.
#[derive(Serialize)]
pub struct StatementLine<'a> {
    /// What the export holds.
    pub statement: &'a Statement,
    /// Over [`Statement::text`].
    pub signature: Signature,
}

/// A line as it is read: any of the above.
pub(crate) enum Line<'a> {
    Receipt(Box<Receipt<'a>>),
    Skipped(Skipped),
    Sheet(PriceSheet),
    Key(PublicKey),
    Commit { commit: Commit, path: Vec<Hash>, signature: Signature },
    Statement { statement: Statement, signature: Signature },
    Adjusted { adjustment: Box<Adjusted>, signature: Signature },
}

/// A receipt as it is read.
///
/// Texts stay texts where one value has several: a changed letter must not pass because it means the same.
pub(crate) struct Receipt<'a> {
    pub(crate) invocation: Cow<'a, str>,
    pub(crate) entry: u64,
    pub(crate) cost_pico: Cow<'a, str>,
    pub(crate) cost: Cow<'a, str>,
    pub(crate) currency: Cow<'a, str>,
    pub(crate) record: &'a RawValue,
    pub(crate) chain: Chain,
    pub(crate) proved: Option<Proved>,
}

/// All keys that a line may have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Any<'a> {
    #[serde(borrow)]
    invocation: Option<Cow<'a, str>>,
    entry: Option<u64>,
    #[serde(borrow)]
    cost_pico: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cost: Option<Cow<'a, str>>,
    #[serde(borrow)]
    currency: Option<Cow<'a, str>>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    chain: Option<Chain>,
    proved: Option<Proved>,
    skipped: Option<Skipped>,
    sheet: Option<PriceSheet>,
    key: Option<PublicKey>,
    commit: Option<Commit>,
    path: Option<Vec<Hash>>,
    statement: Option<Statement>,
    adjustment: Option<Adjusted>,
    signature: Option<Signature>,
}

/// Reads one line; else what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Line<'_>, String> {
    let mut any: Any<'_> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let line = take(&mut any).ok_or("not a line of receipts: keys are missing")?;
    let Any { invocation, entry, cost_pico, cost, currency, record, chain, proved, .. } = &any;
    let Any { skipped, sheet, key, commit, path, statement, adjustment, signature, .. } = &any;
    let rest = invocation.is_some()
        || entry.is_some()
        || cost_pico.is_some()
        || cost.is_some()
        || currency.is_some()
        || record.is_some()
        || chain.is_some()
        || proved.is_some()
        || skipped.is_some()
        || sheet.is_some()
        || key.is_some()
        || commit.is_some()
        || path.is_some()
        || statement.is_some()
        || adjustment.is_some()
        || signature.is_some();
    if rest { Err("keys of two kinds of lines".into()) } else { Ok(line) }
}

fn take<'a>(any: &mut Any<'a>) -> Option<Line<'a>> {
    if let Some(invocation) = any.invocation.take() {
        return Some(Line::Receipt(Box::new(Receipt {
            invocation,
            entry: any.entry.take()?,
            cost_pico: any.cost_pico.take()?,
            cost: any.cost.take()?,
            currency: any.currency.take()?,
            record: any.record.take()?,
            chain: any.chain.take()?,
            proved: any.proved.take(),
        })));
    }
    if let Some(skipped) = any.skipped.take() {
        return Some(Line::Skipped(skipped));
    }
    if let Some(sheet) = any.sheet.take() {
        return Some(Line::Sheet(sheet));
    }
    if let Some(key) = any.key.take() {
        return Some(Line::Key(key));
    }
    if let Some(commit) = any.commit.take() {
        return Some(Line::Commit { commit, path: any.path.take()?, signature: any.signature.take()? });
    }
    if let Some(adjustment) = any.adjustment.take() {
        return Some(Line::Adjusted { adjustment: Box::new(adjustment), signature: any.signature.take()? });
    }
    let statement = any.statement.take()?;
    Some(Line::Statement { statement, signature: any.signature.take()? })
}
