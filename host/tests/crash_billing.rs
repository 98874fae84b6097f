//! Billing dies and hangs under load: calls go on, and nothing is missing afterwards.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod crash_parts;

use std::time::{Duration, Instant};

use crash_parts::books::{Books, check_ledger};
use crash_parts::load::Load;
use crash_parts::{builder, loaded, process};
use rustix::process::Signal;
use wasmeter_testkit::Host;

const KILLS: usize = 5;
const BILL: &str = "/api/v1/tenants/dev/bill";

/// Asks until billing answers again; how often it did not.
async fn ask_until_answered(host: &Host) -> usize {
    let until = Instant::now() + Duration::from_secs(15);
    let mut refusals = 0;
    loop {
        let answer = host.dev().get(BILL).send().await;
        if answer.status == 200 {
            return refusals;
        }
        assert_eq!((answer.status, answer.code()), (503, "unavailable".to_owned()), "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
        assert!(Instant::now() < until, "billing does not come back");
        refusals += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_while_billing_dies_and_all_are_booked() {
    let host = loaded(builder().allow_log("billing ended")).await;
    let load = Load::start(&host, 8, 5000);
    let (mut refusals, mut answers) = (0, 0);
    for _ in 0..KILLS {
        load.wait_for(answers + 40).await;
        process(&host).wait_for_child("billing").signal(Signal::KILL);
        refusals += ask_until_answered(&host).await;
        answers = load.received();
    }
    let ended = load.stop().await;
    assert_eq!(ended.broken, 0);
    assert!(refusals > 0, "the API was to notice that billing is away");
    Books::of(&host, &ended.whole).await.hold(&ended.whole, 0);
    check_ledger(&host);
    println!("{} calls, {refusals} questions refused over {KILLS} kills", ended.whole.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_while_billing_hangs() {
    let host = loaded(builder()).await;
    let load = Load::start(&host, 8, 5000);
    load.wait_for(40).await;
    let billing = process(&host).wait_for_child("billing");
    billing.stop();
    let before = load.received();
    let client = host.dev().clone();
    let question = tokio::spawn(async move { client.get(BILL).send().await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let meanwhile = load.received() - before;
    let waits = !question.is_finished();
    billing.signal(Signal::CONT);
    let answer = question.await.unwrap();
    assert!(waits, "an answer while billing was stopped: {} {}", answer.status, answer.text());
    assert!(meanwhile > 40, "only {meanwhile} calls in two seconds");
    assert_eq!(answer.status, 200);
    let ended = load.stop().await;
    assert_eq!(ended.broken, 0);
    assert_eq!(process(&host).child("billing"), Some(billing), "a pause is no death");
    Books::of(&host, &ended.whole).await.hold(&ended.whole, 0);
}
