//! Host, device worker, billing and the stand-in for Stripe are killed at random under load, round after round. A client
//! outside remembers each answer that it got to the last byte, with the cost that it was shown: each is in the receipts
//! once, with that cost; the receipts add up to the ledger; the stand-in's invoice is the price book applied to it.
//!
//! `WASMETER_SOAK=rounds` and `WASMETER_SOAK_SEED` set another size (`make soak`: 1,000 rounds).
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod crash_parts;
mod twin_parts;

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crash_parts::books::{Books, check_ledger};
use crash_parts::load::{Done, MIX, call};
use crash_parts::{builder, loaded, process};
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::task::JoinSet;
use twin_parts::{Twin, lines};
use wasmeter_testkit::{Builder, Client, Host};
use wasmeter_usage::Outcome;

const CALLERS: usize = 8;
/// Rounds between two looks at the books.
const LOOK: usize = 25;
/// Kills of the worker are no fault of a model here.
const CONFIG: [(&str, &str); 2] =
    [("WASMETER_ENGINES__QUARANTINE_AFTER", "1000000"), ("WASMETER_ENGINES__RESTART_WAIT", "50ms")];
/// What killed processes leave in the log.
const EXPECTED: [&str; 5] = [
    "ended; it is started again",
    "device lost",
    "batching is off",
    "without billing",
    "stripe does not take usage; it is kept and sent later",
];

/// Who may be killed, and how often of ten.
const VICTIMS: [(&str, u64); 4] = [("host", 3), ("device-worker", 3), ("billing", 2), ("twin", 2)];

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % most
    }

    fn victim(&mut self) -> &'static str {
        let mut at = self.below(10);
        for (victim, weight) in VICTIMS {
            if at < weight {
                return victim;
            }
            at -= weight;
        }
        "host"
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Callers that never give up; they remember what they were told.
#[derive(Default)]
struct Seen {
    whole: Mutex<Vec<Done>>,
    received: AtomicUsize,
    broken: AtomicUsize,
    stop: AtomicBool,
}

async fn keep_calling(client: Client, seen: Arc<Seen>, first: usize) {
    let mut index = first;
    while !seen.stop.load(Ordering::Relaxed) {
        index += CALLERS;
        match call(&client, MIX[index % MIX.len()]).await {
            Ok(done) => {
                seen.whole.lock().push(done);
                seen.received.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                seen.broken.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

impl Seen {
    async fn wait_for(&self, more: usize) {
        let (target, until) =
            (self.received.load(Ordering::Relaxed) + more, Instant::now() + Duration::from_secs(60));
        while self.received.load(Ordering::Relaxed) < target {
            assert!(Instant::now() < until, "calls are not answered any more");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A port that stays the host's over its restarts, so that clients and webhooks find it again.
fn with_port(builder: Builder) -> Builder {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    builder.argument("--listen").argument(&format!("127.0.0.1:{port}"))
}

async fn kill(host: &mut Host, victim: &str) -> bool {
    if victim == "host" {
        host.kill9();
        host.start().await;
        return true;
    }
    // One that was just killed may not be there yet.
    let found = process(host).child(victim);
    if let Some(found) = found {
        found.signal(Signal::KILL);
    }
    found.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_billed_once_whatever_is_killed() {
    let rounds = usize::try_from(number("WASMETER_SOAK", 12)).unwrap();
    let seed = number("WASMETER_SOAK_SEED", u64::from(std::process::id()) | 1);
    println!("{rounds} rounds, WASMETER_SOAK_SEED={seed}");
    let mut random = Random(seed.max(1));
    let mut builder = with_port(builder()).argument("--billing").argument("twin");
    for (name, value) in CONFIG {
        builder = builder.env(name, value);
    }
    for part in EXPECTED {
        builder = builder.allow_log(part);
    }
    let mut host = loaded(builder).await;
    let twin = Twin::of(&host);
    twin.subscribe(&host).await;

    let seen = Arc::new(Seen::default());
    let mut callers = JoinSet::new();
    for first in 0..CALLERS {
        callers.spawn(keep_calling(host.dev().clone(), seen.clone(), first));
    }
    let (began, mut kills) = (Instant::now(), BTreeMap::<&str, u32>::new());
    for round in 1..=rounds {
        seen.wait_for(usize::try_from(5 + random.below(40)).unwrap()).await;
        tokio::time::sleep(Duration::from_millis(random.below(20))).await;
        let victim = random.victim();
        *kills.entry(victim).or_default() += u32::from(kill(&mut host, victim).await);
        if round.is_multiple_of(LOOK) {
            println!(
                "{:7.1?} round {round}: {} answers, {kills:?}",
                began.elapsed(),
                seen.received.load(Ordering::Relaxed)
            );
        }
    }
    seen.stop.store(true, Ordering::Relaxed);
    callers.join_all().await;
    let broken = seen.broken.load(Ordering::Relaxed);
    let whole = std::mem::take(&mut *seen.whole.lock());

    let (whole, told): (Vec<Done>, Vec<Done>) = whole.into_iter().partition(|done| done.error.is_none());
    let books = Books::within(&host, &whole, Duration::from_secs(60)).await;
    for done in &whole {
        assert_eq!(books.receipt(done).record.outcome, Outcome::Ok, "{done:?}");
    }
    // The worker died under them, or was not back yet: told so, and free.
    for done in &told {
        assert!(matches!(done.status, 502 | 503), "{done:?}");
        if books.receipts.contains_key(&done.invocation) {
            let receipt = books.receipt(done);
            assert_eq!((receipt.cost_pico.0, receipt.record.outcome.is_charged()), (0, false), "{receipt:?}");
        }
    }
    let answers: HashSet<_> = whole.iter().chain(&told).map(|done| &done.invocation).collect();
    let others = books.receipts.keys().filter(|id| !answers.contains(id)).count();
    assert!(others <= broken, "{others} receipts without an answer, but only {broken} calls broke");
    let total = books.total();
    let invoice = twin.invoice_of_the_period(&host).await;
    invoice.is_the_price_book_applied(lines(&host.bill("dev").await));
    host.term().await;
    let report = check_ledger(&host);
    println!(
        "{rounds} rounds in {:.0?}: {kills:?}; {} answers delivered, {} told of a failure, {broken} broken; {} receipts, \
         each once, {total} = the ledger's sum; {report}; {invoice}",
        began.elapsed(),
        whole.len(),
        told.len(),
        books.receipts.len(),
    );
}
