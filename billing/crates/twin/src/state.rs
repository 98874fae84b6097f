use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use aws_lc_rs::digest;
use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::error::{ApiError, Result};
use crate::journal::{Journal, JournalError};
use crate::kind::Kind;
use crate::table::Table;

/// A journal that is this much larger than what it holds is written anew at start.
const COMPACT_BYTES: u64 = 64 << 20;

/// All objects, and the changes of the request at hand. Objects are JSON as Stripe shows them; names that begin with an
/// underscore are the twin's own and never leave it: `_due` is when time does something to an object, `_clock` the
/// test clock that it lives by.
pub(crate) struct State {
    tables: BTreeMap<Kind, Table>,
    index: Index,
    journal: Journal,
    /// Ids made so far.
    made: u64,
    seed: u64,
    clock: Clock,
    /// The time at which a step of time is due, while it is made.
    pretended: Option<i64>,
    changes: Vec<Change>,
}

struct Change {
    kind: Kind,
    id: String,
    before: Option<Value>,
}

/// What is looked up often, kept in step with the tables.
#[derive(Default)]
pub(crate) struct Index {
    /// Usage by meter and customer: (timestamp, event) to value.
    usage: HashMap<(String, String), BTreeMap<(i64, String), u64>>,
    /// Meter events by identifier: when it was last taken, and that event's id.
    identifiers: HashMap<String, (i64, String)>,
    /// By test clock (empty for the twin's own): when, and what.
    due: BTreeMap<String, BTreeSet<(i64, Kind, String)>>,
    prices: HashMap<String, String>,
    meters: HashMap<String, String>,
}

impl State {
    /// Reads what is there. A seed makes ids, secrets and faults of a new data directory repeatable.
    pub(crate) fn open(dir: &Path, seed: Option<u64>) -> std::result::Result<Self, JournalError> {
        let mut tables: BTreeMap<Kind, Table> = Kind::ALL.map(|kind| (kind, Table::default())).into();
        let mut made = 0;
        let mut replayed = 0u64;
        let journal = Journal::open(&dir.join("journal"), |change| {
            replayed += 1;
            replay(&mut tables, &mut made, change)
        })?;
        let mut state = Self {
            tables,
            index: Index::default(),
            journal,
            made,
            seed: 0,
            clock: Clock::default(),
            pretended: None,
            changes: Vec::new(),
        };
        for kind in Kind::ALL {
            let table = &state.tables[&kind];
            for value in table.iter() {
                state.index.add(kind, value);
            }
        }
        let fail = |error| JournalError::Io { path: dir.join("journal"), error };
        let live: u64 = state.tables.values().map(|table| table.len() as u64).sum();
        if state.journal.bytes() > COMPACT_BYTES && replayed > live.saturating_mul(2) {
            let (tables, made) = (&state.tables, state.made);
            let rows = tables.iter().flat_map(|(kind, table)| {
                table.iter().map(move |v| json!({"n": made, "p": [[kind.as_str(), v["id"], v]]}))
            });
            state.journal.compact(rows).map_err(fail)?;
        }
        match state.get(Kind::Setting, "seed").and_then(|s| s["seed"].as_u64()) {
            Some(seed) => state.seed = seed,
            None => {
                let seed = seed.unwrap_or_else(|| getrandom::u64().unwrap_or(0x5eed));
                state.seed = seed;
                state.put(Kind::Setting, json!({"id": "seed", "seed": seed}));
                state.commit().map_err(fail)?;
            }
        }
        if let Some(clock) = state.get(Kind::Setting, "clock") {
            state.clock = Clock::from_json(clock);
        }
        Ok(state)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Ids made so far.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn set_clock(&mut self, clock: Clock) {
        let mut value = clock.to_json();
        value["id"] = json!("clock");
        self.put(Kind::Setting, value);
        self.clock = clock;
    }

    /// Shows a time to what is done next: time moves in jumps, and what happened in between has its own.
    pub(crate) fn pretend(&mut self, now: Option<i64>) {
        self.pretended = now;
    }

    /// The twin's time, or that of a test clock.
    pub(crate) fn now(&self, test_clock: &str) -> i64 {
        if let Some(now) = self.pretended {
            return now;
        }
        let frozen = self.get(Kind::TestClock, test_clock).and_then(|clock| clock["frozen_time"].as_i64());
        frozen.unwrap_or_else(|| self.clock.now())
    }

    pub(crate) fn get(&self, kind: Kind, id: &str) -> Option<&Value> {
        self.tables[&kind].get(id)
    }

    /// An object that a path names.
    pub(crate) fn find(&self, kind: Kind, id: &str) -> Result<&Value> {
        self.get(kind, id).ok_or_else(|| ApiError::missing(kind.word(), id))
    }

    /// An object that a parameter names.
    pub(crate) fn find_param(&self, kind: Kind, id: &str, param: &str) -> Result<&Value> {
        self.get(kind, id).ok_or_else(|| ApiError::no_such(kind.word(), id, param))
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.tables[&kind].len()
    }

    /// The oldest first.
    pub(crate) fn all(&self, kind: Kind) -> impl DoubleEndedIterator<Item = &Value> {
        self.tables[&kind].iter()
    }

    /// Whether there is room for another.
    pub(crate) fn room(&self, kind: Kind) -> Result<()> {
        if self.count(kind) < kind.limit() {
            return Ok(());
        }
        Err(ApiError::new(
            429,
            "invalid_request_error",
            format!("The twin holds {} objects of kind {} at most.", kind.limit(), kind.as_str()),
        )
        .code("rate_limit"))
    }

    /// Puts an object by its id.
    pub(crate) fn put(&mut self, kind: Kind, value: Value) {
        let id = value["id"].as_str().unwrap_or_default().to_owned();
        self.set(kind, id, Some(value));
    }

    pub(crate) fn remove(&mut self, kind: Kind, id: &str) {
        self.set(kind, id.to_owned(), None);
    }

    /// Changes an object that is there.
    pub(crate) fn change(&mut self, kind: Kind, id: &str, change: impl FnOnce(&mut Value)) {
        if let Some(value) = self.get(kind, id) {
            let mut value = value.clone();
            change(&mut value);
            self.put(kind, value);
        }
    }

    fn set(&mut self, kind: Kind, id: String, value: Option<Value>) {
        let before = self.set_quietly(kind, &id, value);
        self.changes.push(Change { kind, id, before });
    }

    fn set_quietly(&mut self, kind: Kind, id: &str, value: Option<Value>) -> Option<Value> {
        let table = self.tables.get_mut(&kind)?;
        if let Some(value) = &value {
            if let Some(before) = table.get(id) {
                self.index.take(kind, before);
            }
            self.index.add(kind, value);
            return table.set(id, Some(value.clone()));
        }
        let before = table.set(id, None);
        if let Some(before) = &before {
            self.index.take(kind, before);
        }
        before
    }

    /// A fresh id of a kind.
    pub(crate) fn id(&mut self, kind: Kind) -> String {
        let length = if kind == Kind::Checkout { 48 } else { 24 };
        format!("{}{}", kind.prefix(), self.token(length))
    }

    /// Letters and digits that no other call gives.
    pub(crate) fn token(&mut self, length: usize) -> String {
        const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        self.made += 1;
        let sum = |round: u64| {
            let text = format!("{} {} {round}", self.seed, self.made);
            digest::digest(&digest::SHA256, text.as_bytes())
        };
        let mut token = String::with_capacity(length);
        for round in 0.. {
            for byte in sum(round).as_ref() {
                // Bytes that would favour the first digits are left out.
                if usize::from(*byte) < 248 && token.len() < length {
                    token.push(char::from(DIGITS[usize::from(*byte) % 62]));
                }
            }
            if token.len() == length {
                break;
            }
        }
        token
    }

    /// Makes the changes last: they are in the journal when this returns.
    pub(crate) fn commit(&mut self) -> std::io::Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        let puts: Vec<Value> = self
            .changes
            .iter()
            .filter(|change| seen.insert((change.kind, change.id.clone())))
            .map(|change| json!([change.kind.as_str(), change.id, self.tables[&change.kind].get(&change.id)]))
            .collect();
        let line = json!({ "n": self.made, "p": puts });
        match self.journal.append(&line) {
            Ok(()) => {
                self.changes.clear();
                Ok(())
            }
            Err(error) => {
                self.undo();
                Err(error)
            }
        }
    }

    /// Takes the changes back.
    pub(crate) fn undo(&mut self) {
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            self.set_quietly(change.kind, &change.id, change.before);
        }
        self.clock = self.get(Kind::Setting, "clock").map(Clock::from_json).unwrap_or_default();
    }

    // ---- looked up often ----

    /// Usage of a customer within `from .. to`: (timestamp, value), by time.
    pub(crate) fn usage<'a>(
        &'a self,
        meter: &str,
        customer: &str,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = (i64, u64, &'a str)> + use<'a> {
        let all = self.index.usage.get(&(meter.to_owned(), customer.to_owned()));
        let range = all.map(|all| all.range((from, String::new())..(to.max(from), String::new())));
        range.into_iter().flatten().map(|((time, id), value)| (*time, *value, id.as_str()))
    }

    /// When an identifier was last taken, by the twin's clock, and the event that has it.
    pub(crate) fn identifier(&self, identifier: &str) -> Option<(i64, &str)> {
        self.index.identifiers.get(identifier).map(|(at, id)| (*at, id.as_str()))
    }

    pub(crate) fn price_by_lookup_key(&self, key: &str) -> Option<&Value> {
        self.get(Kind::Price, self.index.prices.get(key)?)
    }

    pub(crate) fn meter_by_name(&self, event_name: &str) -> Option<&Value> {
        self.get(Kind::Meter, self.index.meters.get(event_name)?)
    }

    /// What time does next, if its time has come: when, kind and id, the earliest first.
    pub(crate) fn next_due(&self) -> Option<(i64, Kind, String)> {
        let due = self.index.due.iter().filter_map(|(clock, due)| {
            let (at, kind, id) = due.first()?;
            (*at <= self.now(clock)).then(|| (*at, *kind, id.clone()))
        });
        due.min_by_key(|(at, ..)| *at)
    }
}

impl Index {
    fn add(&mut self, kind: Kind, value: &Value) {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        if let Some(at) = value["_due"].as_i64() {
            self.due.entry(text("_clock")).or_default().insert((at, kind, text("id")));
        }
        match kind {
            Kind::MeterEvent => {
                let at = value["_at"].as_i64().unwrap_or_default();
                let last = self.identifiers.entry(text("identifier")).or_insert((at, text("id")));
                if last.0 <= at {
                    *last = (at, text("id"));
                }
                if let (Some(time), Some(units), false) =
                    (value["timestamp"].as_i64(), value["_value"].as_u64(), value["_canceled"] == true)
                {
                    let usage = self.usage.entry((text("_meter"), text("_customer"))).or_default();
                    usage.insert((time, text("id")), units);
                }
            }
            Kind::Price if value["lookup_key"].is_string() => {
                self.prices.insert(text("lookup_key"), text("id"));
            }
            Kind::Meter if value["status"] == "active" || !self.meters.contains_key(&text("event_name")) => {
                self.meters.insert(text("event_name"), text("id"));
            }
            _ => {}
        }
    }

    fn take(&mut self, kind: Kind, value: &Value) {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        if let Some(at) = value["_due"].as_i64()
            && let Some(due) = self.due.get_mut(&text("_clock"))
        {
            due.remove(&(at, kind, text("id")));
            if due.is_empty() {
                self.due.remove(&text("_clock"));
            }
        }
        match kind {
            Kind::MeterEvent => {
                if self.identifiers.get(&text("identifier")).is_some_and(|(_, id)| *id == text("id")) {
                    self.identifiers.remove(&text("identifier"));
                }
                if let (Some(usage), Some(time)) =
                    (self.usage.get_mut(&(text("_meter"), text("_customer"))), value["timestamp"].as_i64())
                {
                    usage.remove(&(time, text("id")));
                }
            }
            Kind::Price if self.prices.get(&text("lookup_key")) == Some(&text("id")) => {
                self.prices.remove(&text("lookup_key"));
            }
            Kind::Meter if self.meters.get(&text("event_name")) == Some(&text("id")) => {
                self.meters.remove(&text("event_name"));
            }
            _ => {}
        }
    }
}

fn replay(
    tables: &mut BTreeMap<Kind, Table>,
    made: &mut u64,
    mut change: Value,
) -> std::result::Result<(), String> {
    *made = change["n"].as_u64().ok_or("a change without its number")?.max(*made);
    let puts = change["p"].as_array_mut().ok_or("a change without its objects")?;
    for put in puts {
        let kind = put[0].as_str().and_then(Kind::parse).ok_or("an object of no known kind")?;
        let id = put[1].as_str().ok_or("an object without id")?.to_owned();
        let value = put[2].take();
        let table = tables.get_mut(&kind).ok_or("no such table")?;
        table.set(&id, (!value.is_null()).then_some(value));
    }
    Ok(())
}

/// An object as it leaves the twin: without the twin's own names.
pub(crate) fn shown(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let outside = map.iter().filter(|(name, _)| !name.starts_with('_'));
            Value::Object(outside.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}
