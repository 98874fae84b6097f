//! The host is killed under load, again and again: what was delivered is booked, once, with the cost that was shown.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod crash_parts;

use crash_parts::books::{Books, check_ledger};
use crash_parts::load::Load;
use crash_parts::proc::assert_gone;
use crash_parts::{altered, builder, loaded, process};
use rustix::process::Signal;
use wasmeter_testkit::{Builder, component};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_is_booked_once_however_often_the_host_is_killed() {
    killed_often(builder(), 8, 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_where_answers_wait_for_the_disk() {
    killed_often(builder().durability("power"), 3, 300).await;
}

async fn killed_often(builder: Builder, kills: u64, calls: usize) {
    let mut host = loaded(builder).await;
    let (mut delivered, mut broken) = (Vec::new(), 0);
    for kill in 0..kills {
        let load = Load::start(&host, 16, calls);
        load.wait_for(usize::try_from(40 + 13 * kill).unwrap()).await;
        // So that all kinds of children are there to be left behind.
        let path = "/api/v1/tenants/dev/functions/late";
        let upload = tokio::spawn(host.dev().put(path, altered(component("classify"), kill)).try_send());
        let parent = process(&host);
        for kind in ["billing", "device-worker", "compile"] {
            parent.wait_for_child(kind);
        }
        let family = parent.family();
        host.signal(Signal::KILL);
        assert_gone(&family);
        host.kill9();
        assert!(upload.await.unwrap().is_err(), "the upload was to be cut off");
        let ended = load.join().await;
        assert!(ended.broken > 0, "the host was to be killed in the middle of calls");
        delivered.extend(ended.whole);
        broken += ended.broken;
        host.start().await;
        Books::of(&host, &delivered).await.hold(&delivered, broken);
    }
    let last = Load::start(&host, 16, calls.saturating_sub(delivered.len()).max(100)).join().await;
    assert_eq!(last.broken, 0);
    delivered.extend(last.whole);
    assert!(delivered.len() >= calls, "{} answers", delivered.len());
    assert!(delivered.iter().any(|d| d.streamed), "no answer was streamed");
    Books::of(&host, &delivered).await.hold(&delivered, broken);
    check_ledger(&host);
    println!("{} calls delivered, {broken} broken by {kills} kills", delivered.len());
}
