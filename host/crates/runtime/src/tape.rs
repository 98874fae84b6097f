//! What a call got from outside, so that it can be run again to the unit of fuel.
//!
//! Fuel is a function of the component, its limits and what the host answered. Of a taped call the host's answers are
//! either kept (the request, the seed of all random numbers, each reading of a clock, the list prices) or follow from
//! those: its request's body is there whole before it begins, and its yields are counted and not timed. What else it
//! asks for (a model, a secret, a key-value pair, somebody else's answer) is not kept, and the recording says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use wasmeter_catalog::{Revision, revision_id};
use wasmeter_types::{Digest, FunctionManifest, InvocationId, TenantName};
use wasmeter_usage::{Outcome, PriceSheet, UsageRecord};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use crate::engine::FUEL_SCHEDULE;

/// The version of a recording's form.
pub(crate) const RECORDING_VERSION: u32 = 1;
/// Readings of clocks that are kept of one call.
const READINGS: usize = 64 << 10;

/// A taped call, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    /// The version of this form.
    pub v: u32,
    /// The wasmeter that ran it: another one's generator may give other random numbers.
    pub wasmeter: String,
    /// What its fuel was counted with.
    pub fuel_schedule: String,
    /// Which call.
    pub invocation: InvocationId,
    /// Whose.
    pub tenant: TenantName,
    /// Of which revision.
    pub revision: String,
    /// Why it cannot be run again; then there is no `call`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<String>,
    /// Why another fuel in a second run would prove nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
    /// What it takes to run it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Box<RecordedCall>>,
}

/// All that a call got from outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordedCall {
    /// Digest of the component. With the manifest, it makes the revision's id.
    pub component: Digest,
    /// As the host used it.
    pub manifest: FunctionManifest,
    /// What the call could burn: the limit, or what a budget left of it.
    pub fuel: u64,
    /// Of the request.
    pub method: String,
    /// The whole of it, as the guest saw it.
    pub uri: String,
    /// Name and value; each byte of a value is the character of its number.
    pub headers: Vec<(String, String)>,
    /// Base64.
    pub body: String,
    /// From which all its random numbers come; hexadecimal.
    pub seed: String,
    /// Readings of the wall clock, nanoseconds since the Unix epoch.
    pub wall_ns: VecDeque<u64>,
    /// Readings of the monotonic clock.
    pub monotonic_ns: VecDeque<u64>,
    /// Answers to `time-left`.
    pub left_ns: VecDeque<u64>,
    /// What it was told that calls cost.
    pub prices: Option<PriceSheet>,
}

/// A recording that does not hold together.
#[derive(Debug, thiserror::Error)]
#[error("the recording's {0} is damaged")]
pub struct BadRecording(&'static str);

impl RecordedCall {
    /// The id of the revision that the component and the manifest make.
    ///
    /// # Errors
    /// If the manifest cannot be written.
    pub fn revision_id(&self) -> Result<String, BadRecording> {
        revision_id(&self.component, &self.manifest).map_err(|_| BadRecording("manifest"))
    }

    /// The request, as the guest saw it.
    pub(crate) fn request(&self) -> Result<Request<Bytes>, BadRecording> {
        let body = BASE64_STANDARD.decode(&self.body).map_err(|_| BadRecording("body"))?;
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = self.method.parse().map_err(|_| BadRecording("method"))?;
        *request.uri_mut() = self.uri.parse().map_err(|_| BadRecording("uri"))?;
        for (name, value) in &self.headers {
            let bytes = value.chars().map(|c| u8::try_from(u32::from(c))).collect::<Result<Vec<_>, _>>();
            let value = bytes.ok().and_then(|bytes| HeaderValue::from_bytes(&bytes).ok());
            let name: Option<HeaderName> = name.parse().ok();
            let (Some(name), Some(value)) = (name, value) else { return Err(BadRecording("headers")) };
            request.headers_mut().append(name, value);
        }
        Ok(request)
    }
}

/// Records a call while it runs, or answers it as an earlier one was answered.
pub struct Tape {
    seed: [u8; 32],
    began: Instant,
    playing: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    body: Bytes,
    asked: Option<Asked>,
    wall_ns: VecDeque<u64>,
    monotonic_ns: VecDeque<u64>,
    left_ns: VecDeque<u64>,
    readings: usize,
    beyond: Option<String>,
    doubt: Option<String>,
}

struct Asked {
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
}

impl Tape {
    /// For a call whose body is these bytes; without them it cannot be run again.
    #[must_use]
    pub fn record(body: Option<Bytes>) -> Arc<Self> {
        let mut state = State::default();
        match body {
            Some(body) => state.body = body,
            None => {
                let why = "its body had no declared length, or more than 256 KiB";
                state.beyond = Some(why.to_owned());
            }
        }
        let state = Mutex::new(state);
        Arc::new(Self { seed: rand::random(), began: Instant::now(), playing: false, state })
    }

    /// For a second run of a call.
    pub(crate) fn play(call: &RecordedCall) -> Result<Arc<Self>, BadRecording> {
        let seed = blake3::Hash::from_hex(&call.seed).map_err(|_| BadRecording("seed"))?;
        let state = State {
            wall_ns: call.wall_ns.clone(),
            monotonic_ns: call.monotonic_ns.clone(),
            left_ns: call.left_ns.clone(),
            ..State::default()
        };
        let (seed, began, state) = (*seed.as_bytes(), Instant::now(), Mutex::new(state));
        Ok(Arc::new(Self { seed, began, playing: true, state }))
    }

    /// The head of the request, as the guest sees it.
    pub(crate) fn asked(&self, head: &Parts) {
        if self.playing {
            return;
        }
        let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let (method, uri) = (head.method.to_string(), head.uri.to_string());
        self.state.lock().asked = Some(Asked { method, uri, headers });
    }

    /// The call cannot be run again, for this reason; the first one stays.
    pub(crate) fn beyond(&self, why: impl FnOnce() -> String) {
        self.state.lock().beyond.get_or_insert_with(why);
    }

    /// Another fuel in a second run would prove nothing, for this reason.
    pub(crate) fn doubt(&self, why: &str) {
        self.state.lock().doubt.get_or_insert_with(|| why.to_owned());
    }

    /// Why another fuel would prove nothing, if there is a reason.
    pub(crate) fn doubts(&self) -> Option<String> {
        self.state.lock().doubt.clone()
    }

    /// A seed for one of the guest's generators.
    pub(crate) fn seed(&self, of: &str) -> [u8; 32] {
        blake3::derive_key(&format!("wasmeter 2026-11 recording: {of}"), &self.seed)
    }

    /// An answer to `time-left`.
    pub(crate) fn time_left(&self, real: u64) -> u64 {
        self.reading(|state| &mut state.left_ns, || real)
    }

    /// The next reading: the one that was kept, or a new one, which is kept.
    fn reading(&self, of: impl Fn(&mut State) -> &mut VecDeque<u64>, real: impl FnOnce() -> u64) -> u64 {
        let mut state = self.state.lock();
        if self.playing {
            // After the last one the second run has left the first one's way: its fuel will tell.
            return of(&mut state).pop_front().unwrap_or_else(real);
        }
        let reading = real();
        state.readings += 1;
        if state.readings > READINGS {
            state.beyond.get_or_insert_with(|| format!("it read clocks more than {READINGS} times"));
        } else {
            of(&mut state).push_back(reading);
        }
        reading
    }

    /// What is to be kept of a call that has ended; nothing of a second run.
    pub(crate) fn recording(
        &self,
        record: &UsageRecord,
        revision: &Revision,
        fuel: u64,
        prices: Option<&PriceSheet>,
    ) -> Option<Recording> {
        if self.playing {
            return None;
        }
        if !matches!(record.outcome, Outcome::Ok | Outcome::Trap | Outcome::OutOfFuel | Outcome::Budget) {
            self.beyond(|| format!("it was cut off from outside: outcome {}", record.outcome.as_str()));
        }
        let state = std::mem::take(&mut *self.state.lock());
        let call = match (&state.beyond, state.asked) {
            (None, Some(asked)) => Some(Box::new(RecordedCall {
                component: revision.digest,
                manifest: revision.manifest.clone(),
                fuel,
                method: asked.method,
                uri: asked.uri,
                headers: asked.headers,
                body: BASE64_STANDARD.encode(&state.body),
                seed: blake3::Hash::from_bytes(self.seed).to_hex().to_string(),
                wall_ns: state.wall_ns,
                monotonic_ns: state.monotonic_ns,
                left_ns: state.left_ns,
                prices: prices.cloned(),
            })),
            _ => None,
        };
        Some(Recording {
            v: RECORDING_VERSION,
            wasmeter: env!("CARGO_PKG_VERSION").to_owned(),
            fuel_schedule: FUEL_SCHEDULE.to_owned(),
            invocation: record.invocation,
            tenant: record.tenant.parse().ok()?,
            revision: revision.id.clone(),
            beyond: state.beyond,
            doubt: state.doubt,
            call,
        })
    }
}

/// The clocks of a taped guest. Their resolution is that of Linux.
pub(crate) struct TapedClock(pub(crate) Arc<Tape>);

impl HostWallClock for TapedClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        let real = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ns = || u64::try_from(real().as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.0.reading(|state| &mut state.wall_ns, ns))
    }
}

impl HostMonotonicClock for TapedClock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        let real = || u64::try_from(self.0.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.reading(|state| &mut state.monotonic_ns, real)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_reads_what_the_first_one_read() {
        let tape = Tape::record(Some(Bytes::from_static(b"\0body")));
        let mut request = Request::new(());
        *request.uri_mut() = "http://h/p?q".parse().unwrap();
        request.headers_mut().append("x-a", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        request.headers_mut().append("x-a", HeaderValue::from_static("2"));
        tape.asked(&request.into_parts().0);
        let clock = TapedClock(tape.clone());
        let wall = [HostWallClock::now(&clock), HostWallClock::now(&clock)];
        let (monotonic, left) = (HostMonotonicClock::now(&clock), tape.time_left(7));
        let seeds = (tape.seed("a"), tape.seed("b"));
        assert_ne!(seeds.0, seeds.1);

        let call = recorded(&tape, Outcome::Ok).call.unwrap();
        let call: RecordedCall = serde_json::from_str(&serde_json::to_string(&call).unwrap()).unwrap();
        let asked = call.request().unwrap();
        assert_eq!((asked.uri().to_string(), &asked.body()[..]), ("http://h/p?q".to_owned(), &b"\0body"[..]));
        let values: Vec<_> = asked.headers().get_all("x-a").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(values, [&b"caf\xe9"[..], b"2"]);
        assert_eq!(call.revision_id().unwrap().len(), 16);

        let again = Tape::play(&call).unwrap();
        let clock = TapedClock(again.clone());
        assert_eq!([HostWallClock::now(&clock), HostWallClock::now(&clock)], wall);
        assert_eq!((HostMonotonicClock::now(&clock), again.time_left(8)), (monotonic, left));
        assert_eq!((again.seed("a"), again.seed("b")), seeds);
        assert_eq!(again.time_left(9), 9, "past the end");
        let mut bad = call;
        bad.headers[0].1 = "\u{100}".to_owned();
        assert!(bad.request().is_err());
    }

    #[test]
    fn what_cannot_be_run_again_says_why_and_keeps_nothing() {
        let why = |tape: &Tape, outcome| {
            let kept = recorded(tape, outcome);
            assert!(kept.call.is_none());
            kept.beyond.unwrap()
        };
        assert!(why(&Tape::record(None), Outcome::Ok).contains("256 KiB"));
        let tape = Tape::record(Some(Bytes::new()));
        tape.beyond(|| "it called wasi:nn".to_owned());
        tape.beyond(|| "later".to_owned());
        assert_eq!(why(&tape, Outcome::Ok), "it called wasi:nn");
        assert!(why(&Tape::record(Some(Bytes::new())), Outcome::Deadline).contains("deadline"));
        let tape = Tape::record(Some(Bytes::new()));
        (0..=READINGS).for_each(|_| assert_eq!(tape.time_left(1), 1));
        assert!(why(&tape, Outcome::Ok).contains("65536"));
    }

    fn recorded(tape: &Tape, outcome: Outcome) -> Recording {
        let revision = Revision {
            id: "r".to_owned(),
            digest: Digest::of(b"c"),
            manifest: FunctionManifest::from_toml("[function]\nname = \"f\"\n").unwrap(),
            imports: Vec::new(),
            exports: Vec::new(),
            size: 1,
            created_ns: 0,
        };
        let record = UsageRecord {
            v: wasmeter_usage::RECORD_VERSION,
            invocation: InvocationId::new(),
            tenant: "dev".to_owned(),
            function: None,
            revision: None,
            outcome,
            status: 200,
            fuel: 1,
            fuel_schedule: FUEL_SCHEDULE.to_owned(),
            models: Vec::new(),
            tokens_in: 0,
            tokens_out: 0,
            ingress_bytes: 0,
            egress_bytes: 0,
            start_ns: 0,
            end_ns: 0,
            price_book: String::new(),
            draw: None,
        };
        tape.recording(&record, &revision, 5, None).unwrap()
    }
}
