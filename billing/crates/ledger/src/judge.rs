use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use wasmeter_usage::{PriceSheet, Quantities, RECORD_VERSION, UsageRecord};

/// The longest record that is booked, in bytes of JSON: a receipt page and a frame hold many.
const MAX_RECORD: usize = 256 << 10;

/// How far back an invocation may have ended: what is older, Stripe takes no more (documentation, "Record usage").
const BACK_NS: u64 = 35 * 86_400_000_000_000;

/// How far the sender's clock may be ahead; Stripe takes no more either.
const AHEAD_NS: u64 = 5 * 60_000_000_000;

/// Why a record can never be booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Not a usage record.
    Malformed,
    /// A record version that this build does not know.
    Version,
    /// Longer than any real record.
    TooLarge,
    /// Priced with a sheet that this ledger never had.
    PriceSheet,
    /// A quantity or cost beyond any real one.
    Amount,
    /// It ends before it starts.
    Interval,
    /// It ended more than 35 days ago or more than five minutes from now.
    Clock,
    /// The invocation is booked under another sequence.
    Duplicate,
}

impl Reason {
    /// The stable word in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::Version => "version",
            Reason::TooLarge => "too_large",
            Reason::PriceSheet => "price_sheet",
            Reason::Amount => "amount",
            Reason::Interval => "interval",
            Reason::Clock => "clock",
            Reason::Duplicate => "duplicate",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record that was acknowledged, kept whole and not booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its sequence in its spool.
    pub seq: u64,
    /// The stable word.
    pub reason: Reason,
    /// The particulars.
    pub detail: String,
}

/// A record that can be booked.
pub(crate) struct Booking {
    pub(crate) record: UsageRecord,
    pub(crate) charged: Quantities,
    pub(crate) sheet: i64,
    pub(crate) cost_pico: i64,
}

#[derive(Deserialize)]
struct Version {
    v: u64,
}

/// Decides whether a record can be booked, and at what cost. Whether it is a duplicate is seen on insertion.
pub(crate) fn judge(
    raw: &RawValue,
    sheets: &HashMap<String, (i64, PriceSheet)>,
    now_ns: u64,
) -> Result<Booking, (Reason, String)> {
    let text = raw.get();
    if text.len() > MAX_RECORD {
        return Err((Reason::TooLarge, format!("{} bytes, at most {MAX_RECORD}", text.len())));
    }
    // Lines of receipts carry the text as it is.
    if is_broken(text) {
        return Err((Reason::Malformed, "a record is one line of JSON, this has several".into()));
    }
    // A newer record may have another shape altogether: then its version is what is wrong with it.
    let read = serde_json::from_str::<UsageRecord>(text);
    let v = match &read {
        Ok(record) => u64::from(record.v),
        Err(_) => serde_json::from_str::<Version>(text).map_err(malformed)?.v,
    };
    if v != u64::from(RECORD_VERSION) {
        return Err((Reason::Version, format!("record version {v}, this build knows {RECORD_VERSION}")));
    }
    let record = read.map_err(malformed)?;
    if record.tenant.is_empty() {
        return Err((Reason::Malformed, "tenant is empty".into()));
    }
    if record.end_ns < record.start_ns {
        return Err((Reason::Interval, format!("starts at {}, ends at {}", record.start_ns, record.end_ns)));
    }
    if record.end_ns > now_ns.saturating_add(AHEAD_NS) {
        let ahead = (record.end_ns - now_ns) / 1_000_000_000;
        let what = format!(
            "ends {ahead} s after it was received, at most 300 s are taken: set the clock of its node"
        );
        return Err((Reason::Clock, what));
    }
    if record.end_ns < now_ns.saturating_sub(BACK_NS) {
        let days = (now_ns - record.end_ns) / 86_400_000_000_000;
        let what = format!("ended {days} days before it was received, at most 35 are taken");
        return Err((Reason::Clock, what));
    }
    let (id, sheet) = sheets.get(&record.price_book).ok_or_else(|| {
        (Reason::PriceSheet, format!("sheet {:?} is not in this ledger", shorten(&record.price_book)))
    })?;
    let charged = record.quantities();
    for meter in wasmeter_usage::Meter::ALL {
        if i64::try_from(charged.get(meter)).is_err() {
            return Err((Reason::Amount, format!("{} does not fit", meter.as_str())));
        }
    }
    let cost_pico = sheet
        .rates
        .cost(&charged)
        .and_then(|cost| i64::try_from(cost.0).ok())
        .ok_or_else(|| (Reason::Amount, "the cost does not fit".to_owned()))?;
    Ok(Booking { charged, sheet: *id, cost_pico, record })
}

/// Whether a text has more than one line. To the end in any case: so it is many bytes at a time.
fn is_broken(text: &str) -> bool {
    text.bytes().fold(false, |found, byte| found | matches!(byte, b'\n' | b'\r'))
}

#[allow(clippy::needless_pass_by_value, reason = "shape of map_err")]
fn malformed(error: serde_json::Error) -> (Reason, String) {
    (Reason::Malformed, shorten(&error.to_string()).to_owned())
}

/// The beginning of a text that somebody else wrote.
fn shorten(text: &str) -> &str {
    text.char_indices().nth(200).map_or(text, |(end, _)| &text[..end])
}
