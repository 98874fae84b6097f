//! One call from deployment to receipt.

use wasmeter_testkit::{Host, manifest};

#[tokio::test]
async fn a_call_from_deployment_to_receipt() {
    let mut host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("echo", &manifest("echo").public()).await;
    let answer = host.dev().get("/fn/dev/echo/hello").send().await.expect(200);
    assert_eq!(answer.text(), "hello\n");
    let cost = answer.cost_pico().expect("figures for the tenant's token");
    let receipts = host.receipts_after("dev", 1).await;
    assert_eq!(receipts[0]["invocation"], answer.invocation());
    assert_eq!(host.list_total_pico("dev").await, cost);
    assert!(host.term().await.success());
}
