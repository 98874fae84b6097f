//! Guests that never end, many more than there are threads for them: each caller is answered, each is billed, and
//! others are served meanwhile.

use std::time::{Duration, Instant};

use wasmeter_testkit::{Host, manifest};

#[tokio::test]
async fn sixty_four_runaways_are_answered_billed_and_hold_up_nobody() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let endless = "fuel = 1_000_000_000_000\ndeadline = \"2s\"";
    host.deploy("spin", &manifest("spin").limits(endless)).await;
    host.deploy("echo", &manifest("echo").public()).await;
    let began = Instant::now();
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let call = host.dev().get("/fn/dev/spin").send();
            tokio::spawn(async move { (call.await, began.elapsed()) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut served = 0;
    while began.elapsed() < Duration::from_millis(1500) {
        host.anonymous().get("/fn/dev/echo/hello").send().await.expect(200);
        served += 1;
    }
    assert!(served >= 5, "{served} calls were served beside 64 runaways in more than a second");
    let mut invocations = Vec::new();
    let mut slowest = Duration::ZERO;
    for call in calls {
        let (answer, took) = call.await.expect("the call");
        assert_eq!((answer.status, answer.code().as_str()), (504, "deadline"), "{}", answer.text());
        assert!(took >= Duration::from_millis(1990), "{took:?}");
        slowest = slowest.max(took);
        invocations.push(answer.invocation());
    }
    println!("the slowest of 64 answers came {:?} after the first request", slowest);
    for invocation in &invocations {
        let receipt = host.receipt("dev", invocation).await;
        assert_eq!(receipt["record"]["outcome"], "deadline", "{receipt}");
    }
    // All threads are free again.
    host.anonymous().get("/fn/dev/echo/hello").send().await.expect(200);
}
