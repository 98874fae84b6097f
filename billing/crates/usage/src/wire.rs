//! What travels over `billing.sock`: frames of a little-endian `u32` length and that many bytes of JSON, one
//! [`Reply`] to each [`Call`], in order. The host opens as many connections as it needs.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::{
    BudgetState, BudgetTerms, Budgeted, InvocationId, Lease, LeaseAsk, Meter, Pico, PriceSheet, Standing,
    Unpaid, UsageRecord,
};

/// The version of this protocol, sent in [`Call::Hello`].
pub const PROTOCOL: u16 = 1;

/// No frame is longer than this many bytes; a longer one ends the connection.
pub const MAX_FRAME: usize = 16 << 20;

/// No batch of records is longer than this.
pub const MAX_BATCH: usize = 4096;

/// No page of receipts is longer than this.
pub const MAX_PAGE: u32 = 2000;

/// A question to billing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Call {
    /// First call of each connection.
    Hello {
        /// [`PROTOCOL`].
        protocol: u16,
        /// Name of the calling node.
        node: String,
    },
    /// The last sequence number of `(node, epoch)` that is booked.
    HighWater {
        /// Node.
        node: String,
        /// Epoch of its spool.
        epoch: u64,
    },
    /// Records `first_seq ..` of `(node, epoch)`. Those already booked are skipped; a gap is refused.
    Append {
        /// Node.
        node: String,
        /// Epoch of its spool.
        epoch: u64,
        /// Sequence of the first record; sequences start at 1.
        first_seq: u64,
        /// The records, in order, at most [`MAX_BATCH`].
        records: Vec<UsageRecord>,
    },
    /// Usage of one tenant.
    Usage {
        /// Tenant.
        tenant: String,
        /// Start of the window, by the invocation's end, nanoseconds since the Unix epoch, inclusive.
        from_ns: u64,
        /// End of the window, exclusive.
        to_ns: u64,
        /// Grouping.
        by: UsageBy,
    },
    /// Bill of one tenant over a window (as in `Usage`).
    Bill {
        /// Tenant.
        tenant: String,
        /// Inclusive.
        from_ns: u64,
        /// Exclusive.
        to_ns: u64,
    },
    /// A page of receipts, in ledger order.
    Receipts {
        /// Tenant.
        tenant: String,
        /// Inclusive.
        from_ns: u64,
        /// Exclusive.
        to_ns: u64,
        /// Ledger position after which the page begins; 0 for the first page.
        after: u64,
        /// At most [`MAX_PAGE`].
        limit: u32,
    },
    /// The receipt of one invocation.
    Receipt {
        /// Tenant.
        tenant: String,
        /// Invocation.
        invocation: InvocationId,
    },
    /// A page of an export that can be checked offline, in ledger order.
    Export {
        /// Tenant.
        tenant: String,
        /// Inclusive.
        from_ns: u64,
        /// Exclusive.
        to_ns: u64,
        /// From the page before; absent for the first page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<ExportCursor>,
    },
    /// The receipt of one invocation, with all that it takes to check it offline.
    ReceiptAlone {
        /// Tenant.
        tenant: String,
        /// Invocation.
        invocation: InvocationId,
    },
    /// The public keys of receipts.
    ReceiptKeys,
    /// Which tenants need leases.
    Budgets,
    /// The budget of one tenant.
    Budget {
        /// Tenant.
        tenant: String,
    },
    /// Sets the budget of a tenant, all of it.
    SetBudget {
        /// Tenant.
        tenant: String,
        /// The new terms.
        terms: BudgetTerms,
    },
    /// Grants credits, once for each id.
    GrantCredit {
        /// Tenant.
        tenant: String,
        /// What tells a repeated grant from a second one.
        id: String,
        /// More than nothing.
        amount: Pico,
        /// For the books.
        note: String,
    },
    /// Adds a correction of what a tenant owes, once for each id.
    Adjust {
        /// Tenant.
        tenant: String,
        /// What tells a repeated one from a second one.
        id: String,
        /// Whose cost is given back, at most once and at most all of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        invocation: Option<InvocationId>,
        /// Below zero for what the tenant gets back; the whole cost of the invocation if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        amount: Option<Pico>,
        /// Why, for the books and the bill.
        reason: String,
    },
    /// What calls of a function cost lately.
    Quote {
        /// Tenant.
        tenant: String,
        /// Function.
        function: String,
        /// How many calls `all` is about.
        calls: u64,
    },
    /// Asks for money to spend.
    Lease(LeaseAsk),
    /// Asks for the page on which a tenant subscribes.
    Checkout {
        /// Tenant.
        tenant: String,
        /// Where the page leads to afterwards.
        success_url: String,
        /// Where the page leads to otherwise.
        cancel_url: String,
    },
    /// Asks for the page on which a tenant manages subscription, cards and invoices.
    Portal {
        /// Tenant.
        tenant: String,
        /// Where the page leads back to.
        return_url: String,
    },
    /// Hands over a webhook of Stripe's, byte for byte.
    Webhook {
        /// The `Stripe-Signature` header.
        signature: String,
        /// The body, base64 (standard alphabet, padded).
        body_base64: String,
    },
    /// Where a tenant stands with its payments.
    Standing {
        /// Tenant.
        tenant: String,
    },
    /// What is under way to Stripe and to those who want to be told.
    UnderWay,
}

/// Grouping of usage rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// By function name.
    Function,
    /// By model and version.
    Model,
    /// By meter.
    Meter,
    /// By UTC hour of the invocation's end.
    Hour,
}

/// An answer of billing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "re", rename_all = "snake_case")]
pub enum Reply {
    /// To `Hello`.
    Hello {
        /// [`PROTOCOL`].
        protocol: u16,
        /// What the ledger was stamped with for ever: `twin`, `test` or `live`.
        stamp: String,
        /// Current list prices.
        prices: PriceSheet,
    },
    /// To `HighWater` and `Append`: everything up to and including this is booked; 0 if nothing.
    Acked {
        /// Last booked sequence.
        acked_seq: u64,
    },
    /// To `Usage`.
    Usage {
        /// One row a group, sorted by key.
        rows: Vec<UsageRow>,
    },
    /// To `Bill`.
    Bill(Bill),
    /// To `Receipts`.
    Receipts {
        /// The page.
        lines: Vec<Receipt>,
        /// Pass as `after` for the next page; `None` if this was the last.
        next: Option<u64>,
    },
    /// To `Receipt`.
    Receipt {
        /// `None` if the tenant has no such invocation.
        receipt: Option<Box<Receipt>>,
    },
    /// To `Export`.
    Export {
        /// Lines of JSON. Billing alone writes them, and whoever passes them on leaves every byte as it is: what is hashed
        /// is among them.
        text: String,
        /// For the next page; `None` if this was the last.
        next: Option<ExportCursor>,
    },
    /// To `ReceiptAlone`.
    ReceiptAlone {
        /// One line of JSON, as in `Export`; `None` if the tenant has no such invocation.
        text: Option<String>,
    },
    /// To `ReceiptKeys`: the oldest first.
    ReceiptKeys {
        /// All that ever signed.
        keys: Vec<ReceiptKey>,
    },
    /// To `Budgets`: sorted by tenant.
    Budgets {
        /// Those that need leases; all others spend freely.
        budgets: Vec<Budgeted>,
        /// Those that are not admitted because of their subscription, sorted by tenant.
        #[serde(default)]
        unpaid: Vec<Unpaid>,
    },
    /// To `Budget`, `SetBudget` and `GrantCredit`.
    Budget(Box<BudgetState>),
    /// To `Adjust`.
    Adjustment(Adjustment),
    /// To `Quote`.
    Quote(Quote),
    /// To `Lease`.
    Lease(Lease),
    /// To `Checkout` and `Portal`.
    Page {
        /// Address of a page of Stripe's, good for a short time and for this tenant alone.
        url: String,
    },
    /// To `Webhook`.
    Webhook {
        /// The HTTP status for Stripe: 200 taken, 400 forged, stale or malformed, 503 send it again.
        status: u16,
        /// Why, for its log.
        message: String,
    },
    /// To `Standing`.
    Standing(Standing),
    /// To `UnderWay`.
    UnderWay(UnderWay),
    /// The call was refused; nothing changed.
    Refused {
        /// Stable word, such as `gap`, `protocol`, `malformed`, `internal`; about payments `stripe_off` (no Stripe is
        /// configured), `stripe_away` (try again) and `no_customer`.
        code: String,
        /// What, which, and what to do.
        message: String,
    },
}

/// What is not delivered yet. Where nobody is charged there are no buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// Buckets of usage by state: `open`, `waiting` (for a subscription), `ready`, `sending`, `parked`, `refused`.
    pub buckets: BTreeMap<String, u64>,
    /// For how long the oldest bucket that is to be delivered waits, in seconds.
    pub oldest_s: u64,
    /// Entries that are not yet counted in buckets; 0 where nobody is charged.
    pub uncounted: u64,
    /// Drafts of invoices by state: `held`, or `differs` where a person must look.
    pub invoices: BTreeMap<String, u64>,
    /// Alerts of budgets that are to be told.
    pub alerts: u64,
}

/// What a function's calls cost at list price, from those of its charged calls that are among the tenant's last ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// On how many charged calls of the function it stands; with none, all amounts are zero and say nothing.
    pub stands_on: u64,
    /// Of how many calls of the tenant, the latest.
    pub of_latest: u64,
    /// Of one call: by rank among those that were made.
    pub one: Spread,
    /// Of as many calls as were asked for, together, as if each were like those: mean and variance of a call times the
    /// number, as a normal distribution; the largest is the number times the dearest.
    pub all: Spread,
}

/// How much it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Half cost no more.
    pub p50: Pico,
    /// Of a hundred, 95 cost no more.
    pub p95: Pico,
    /// None cost more.
    pub max: Pico,
}

/// One row of usage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// Function, `model@version`, meter or RFC 3339 hour.
    pub key: String,
    /// Invocations.
    pub requests: u64,
    /// Fuel units.
    pub fuel: u64,
    /// Nanoseconds.
    pub cpu_ns: u64,
    /// Nanoseconds.
    pub gpu_ns: u64,
    /// Count.
    #[serde(default)]
    pub tokens_in: u64,
    /// Count.
    #[serde(default)]
    pub tokens_out: u64,
    /// Bytes.
    pub egress_bytes: u64,
    /// List price.
    pub cost_pico: Pico,
}

/// What a window costs by the price book. The window is one billing period: tiers, included quantities and the minimum
/// begin anew at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// Tenant.
    pub tenant: String,
    /// Nanoseconds since the Unix epoch.
    pub from_ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub to_ns: u64,
    /// ISO 4217.
    pub currency: String,
    /// Charged invocations.
    pub invocations: u64,
    /// One line a meter and way of pricing it.
    pub lines: Vec<BillLine>,
    /// Sum of the invocations' list prices, exactly.
    pub list_total_pico: Pico,
    /// Where the price book has a minimum and the lines do not reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<BillMinimum>,
    /// Refunds and other corrections that were made in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjustments: Option<BillAdjustments>,
    /// What is due, in the smallest currency unit (cents): the sum of what the lines, the minimum and the adjustments
    /// say is due.
    pub due_minor: i64,
}

/// One line of a bill: a meter over the window, at one list price and the same terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillLine {
    /// Meter.
    pub meter: Meter,
    /// In the meter's unit; the sum over the parts.
    pub quantity: u64,
    /// List price of one `price_unit`.
    pub rate_pico: Pico,
    /// Such as `million fuel`, `second`, `request`, `GB`.
    pub price_unit: String,
    /// Quantity times list price, rounded down to a pico. Over the lines, this may sum to a few pico more than the
    /// list total, because each invocation is rounded down once.
    pub list_pico: Pico,
    /// What the quantity is priced by, in the order of the tiers. One, at list price, where the book has no more to say.
    pub parts: Vec<BillPart>,
    /// Sum of the parts' amounts.
    pub amount_pico: Pico,
    /// Sum of what the parts say is due, in the smallest currency unit.
    pub due_minor: i64,
}

/// A part of a quantity at one price. An invoice has a line for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillPart {
    /// In the meter's unit.
    pub quantity: u64,
    /// The last unit of the tier, in the meter's unit; none for the last tier and where there are no tiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<u64>,
    /// Whether it is the included quantity, which costs nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub included: bool,
    /// Price of one `price_unit`.
    pub rate_pico: Pico,
    /// Quantity times price, rounded down to a pico.
    pub amount_pico: Pico,
    /// The amount in the smallest currency unit, rounded half up: the one rounding of a line of an invoice.
    pub due_minor: i64,
}

/// What a window costs at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillMinimum {
    /// The minimum of the price book, in the smallest currency unit.
    pub minimum_minor: i64,
    /// What the lines lack of it: a line of its own on an invoice.
    pub due_minor: i64,
}

/// No bill shows more adjustments one by one; its sum is of all of them.
pub const MAX_ADJUSTMENTS: usize = 1000;

/// All corrections of a window: one line of an invoice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillAdjustments {
    /// How many there are.
    pub count: u64,
    /// Their exact sum; below zero for what the tenant gets back.
    pub amount_pico: Pico,
    /// The sum in the smallest currency unit, rounded half away from zero.
    pub due_minor: i64,
    /// The first [`MAX_ADJUSTMENTS`] of them.
    pub entries: Vec<Adjustment>,
}

/// A correction of what a tenant owes: an entry that is added, while what it corrects stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    /// As the operator named it: tells a repeated one from a second one.
    pub id: String,
    /// Whose cost it gives back, if it is about one invocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<InvocationId>,
    /// Below zero for what the tenant gets back.
    pub amount_pico: Pico,
    /// Why.
    pub reason: String,
    /// When it was made, nanoseconds since the Unix epoch. It belongs to that period, whatever it corrects.
    pub made_ns: u64,
}

/// One invocation in the ledger, as the customer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Invocation (also in `record`); its presence tells an invocation line from a batch commit.
    pub invocation: InvocationId,
    /// Ledger position.
    pub entry: u64,
    /// Booked list price.
    pub cost_pico: Pico,
    /// ISO 4217.
    pub currency: String,
    /// Everything that the cost is computed from.
    pub record: UsageRecord,
}

/// How far an export is. Whoever asks gives it back as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportCursor {
    /// Ledger position of the first entry.
    pub first: u64,
    /// Ledger position of the last.
    pub last: u64,
    /// Ledger position after which the page begins.
    pub after: u64,
    /// Keys that were shown.
    pub keys: Vec<u64>,
    /// Price sheets that were shown.
    pub sheets: Vec<u64>,
    /// The last correction that was shown.
    #[serde(default)]
    pub adjusted: u64,
    /// The last one that is.
    #[serde(default)]
    pub adjusted_last: u64,
}

/// A public key of receipts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptKey {
    /// What commits name it by.
    pub id: String,
    /// Ed25519, 64 hexadecimal digits.
    pub public: String,
    /// When it came, nanoseconds since the Unix epoch.
    pub added_ns: u64,
    /// Whether it signs now.
    pub current: bool,
}

/// Writes one frame.
///
/// # Errors
/// The writer's, or `InvalidData` if the message is longer than [`MAX_FRAME`].
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    seal(&mut frame)?;
    Ok(frame)
}

/// The frame of a [`Call::Append`] whose records are JSON already, one after another with commas between them: what was
/// written once need not be read and written again on its way. `pressing` says that much more waits behind it.
/// It replaces what the buffer held: half a megabyte of fresh memory for each would be mostly page faults.
///
/// # Errors
/// As [`encode`].
pub fn encode_append(
    frame: &mut Vec<u8>,
    node: &str,
    epoch: u64,
    first_seq: u64,
    pressing: bool,
    records: &[u8],
) -> io::Result<()> {
    frame.clear();
    frame.reserve(records.len() + node.len() + 128);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(br#"{"op":"append","node":"#);
    serde_json::to_writer(&mut *frame, node)?;
    write!(frame, r#","epoch":{epoch},"first_seq":{first_seq},"pressing":{pressing},"records":["#)?;
    frame.extend_from_slice(records);
    frame.extend_from_slice(b"]}");
    seal(frame)
}

/// Writes the length into the four bytes before the body.
fn seal(frame: &mut [u8]) -> io::Result<()> {
    let body = frame.len() - 4;
    if body > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("frame of {body} bytes, at most {MAX_FRAME}"),
        ));
    }
    let length = u32::try_from(body).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// The length in a frame's first four bytes.
///
/// # Errors
/// `InvalidData` if it is more than [`MAX_FRAME`].
pub fn body_length(prefix: [u8; 4]) -> io::Result<usize> {
    match usize::try_from(u32::from_le_bytes(prefix)) {
        Ok(length) if length <= MAX_FRAME => Ok(length),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame is at most {MAX_FRAME} bytes"))),
    }
}

/// Reads one frame from a blocking reader; `None` at a clean end.
///
/// # Errors
/// The reader's, `InvalidData` for a frame that is too long or not a `T`.
pub fn read<T: for<'de> Deserialize<'de>>(reader: &mut impl Read) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    match reader.read(&mut prefix)? {
        0 => return Ok(None),
        n => reader.read_exact(&mut prefix[n..])?,
    }
    let mut body = vec![0; body_length(prefix)?];
    reader.read_exact(&mut body)?;
    serde_json::from_slice(&body).map(Some).map_err(Into::into)
}

/// Writes one frame to a blocking writer.
///
/// # Errors
/// As [`encode`], and the writer's.
pub fn write<T: Serialize>(writer: &mut impl Write, message: &T) -> io::Result<()> {
    writer.write_all(&encode(message)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip() {
        let mut bytes = Vec::new();
        write(&mut bytes, &Call::HighWater { node: "n1".into(), epoch: 3 }).unwrap();
        let mut reader = bytes.as_slice();
        assert!(matches!(read::<Call>(&mut reader).unwrap(), Some(Call::HighWater { epoch: 3, .. })));
        assert!(read::<Call>(&mut reader).unwrap().is_none());
    }

    #[test]
    fn payments_travel_by_stable_words() {
        let text = |value: &Reply| serde_json::to_string(value).unwrap();
        let standing = Reply::Standing(Standing {
            tenant: "a".into(),
            state: crate::StandingState::Grace,
            customer: Some("cus_1".into()),
            subscription: None,
            since_ns: 5,
            grace_ends_ns: Some(9),
        });
        assert_eq!(
            text(&standing),
            r#"{"re":"standing","tenant":"a","state":"grace","customer":"cus_1","since_ns":5,"grace_ends_ns":9}"#
        );
        let page = Reply::Page { url: "https://x".into() };
        assert_eq!(text(&page), r#"{"re":"page","url":"https://x"}"#);
        let call = Call::Webhook { signature: "t=1,v1=00".into(), body_base64: "e30=".into() };
        assert_eq!(
            serde_json::to_string(&call).unwrap(),
            r#"{"op":"webhook","signature":"t=1,v1=00","body_base64":"e30="}"#
        );
        // From a billing that knows no subscriptions.
        let old: Reply = serde_json::from_str(r#"{"re":"budgets","budgets":[]}"#).unwrap();
        assert!(matches!(old, Reply::Budgets { unpaid, .. } if unpaid.is_empty()));
    }

    #[test]
    fn an_append_of_texts_is_the_same_call() {
        let mut frame = vec![7; 9];
        encode_append(&mut frame, "n \"1\"", 3, 5, true, b"").unwrap();
        let mut reader = frame.as_slice();
        let Some(Call::Append { node, epoch, first_seq, records }) = read(&mut reader).unwrap() else {
            panic!("not an append")
        };
        assert_eq!((node.as_str(), epoch, first_seq, records.len()), ("n \"1\"", 3, 5, 0));
    }

    #[test]
    fn refuses_a_frame_that_claims_too_much() {
        let mut reader: &[u8] = &[0xff; 8];
        assert_eq!(read::<Call>(&mut reader).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
