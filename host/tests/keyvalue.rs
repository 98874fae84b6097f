//! What functions keep: apart from all others, within quotas, across restarts.

use serde_json::{Value, json};
use wasmeter_testkit::{Host, Manifest, component, manifest};

fn builder() -> wasmeter_testkit::Builder {
    Host::builder(env!("CARGO_BIN_EXE_wasmeter"))
}

fn keeping(name: &str, lines: &str) -> Manifest {
    manifest(name).public().section("keyvalue", &format!("allow = [\"default\"]\n{lines}"))
}

/// Deploys the fixture under a name of a tenant.
async fn deploy(host: &Host, tenant: &str, manifest: &Manifest) {
    let answer = host.try_deploy(tenant, component("keeper"), manifest).await;
    assert!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.text());
}

async fn ask(host: &Host, function: &str, path: &str) -> Value {
    host.anonymous().get(&format!("/fn/{function}/{path}")).send().await.expect(200).json()
}

async fn set(host: &Host, function: &str, key: &str, value: &str) {
    let path = format!("/fn/{function}/set?key={key}");
    assert_eq!(host.anonymous().post(&path, value.to_owned()).send().await.expect(200).json(), json!({}));
}

fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn pairs_survive_and_are_the_functions_own() {
    let mut host = builder().start().await;
    host.put_tenant("stranger").await;
    deploy(&host, "dev", &manifest("bare").public()).await;
    assert!(
        error(&ask(&host, "dev/bare", "get?key=a").await).contains("[keyvalue] allow"),
        "denied by default"
    );
    for (tenant, name) in [("dev", "keeper"), ("dev", "beside"), ("stranger", "keeper")] {
        deploy(&host, tenant, &keeping(name, "")).await;
    }
    for key in ["a", "%C3%A4%00b", "..%2F..%2Fx", "'%3B%20DROP%20TABLE%20pair%3B--", "%25", "%F0%9F%A6%80"] {
        set(&host, "dev/keeper", key, "mine").await;
        assert_eq!(ask(&host, "dev/keeper", &format!("get?key={key}")).await["value"], "mine", "{key}");
        for other in ["dev/beside", "stranger/keeper"] {
            assert_eq!(ask(&host, other, &format!("get?key={key}")).await["value"], Value::Null, "{key}");
            assert_eq!(ask(&host, other, "keys").await["keys"], json!([]));
        }
    }
    for bucket in ["other", "dev%2Fbeside", "..", "DEFAULT"] {
        let answer = ask(&host, "dev/keeper", &format!("get?key=a&bucket={bucket}")).await;
        assert!(error(&answer).contains("[keyvalue] allow"), "{bucket}: {answer}");
    }
    assert_eq!(ask(&host, "dev/keeper", "increment?key=n&by=40").await["number"], 40);
    assert_eq!(ask(&host, "dev/keeper", "increment?key=n&by=2").await["number"], 42);
    assert!(error(&ask(&host, "dev/keeper", "increment?key=a&by=1").await).contains("not a decimal number"));
    assert_eq!(
        ask(&host, "dev/keeper", "many?key=m&count=100&size=10").await,
        json!({ "seen": 100, "left": 57 })
    );

    // A new revision and a killed host find it again.
    deploy(&host, "dev", &keeping("keeper", "keys = 200")).await;
    host.kill9();
    host.start().await;
    assert_eq!(ask(&host, "dev/keeper", "get?key=n").await["value"], "42");
    ask(&host, "dev/keeper", "delete?key=n").await;
    assert_eq!(ask(&host, "dev/keeper", "exists?key=n").await["exists"], false);

    // It goes with the function: a new one of the name begins with nothing.
    host.dev().delete("/api/v1/tenants/dev/functions/keeper").send().await.expect(204);
    deploy(&host, "dev", &keeping("keeper", "")).await;
    assert_eq!(ask(&host, "dev/keeper", "keys").await["keys"], json!([]));
    set(&host, "dev/keeper", "a", "anew").await;
}

#[tokio::test]
async fn quotas_hold_against_floods() {
    let host = builder().config("[keyvalue]\ntenant-total = \"1MiB\"\n").start().await;
    let lines = "keys = 50\nvalue = \"100KiB\"\ntotal = \"300KiB\"\ncalls = 400";
    for name in ["keeper", "beside", "third", "fourth"] {
        deploy(&host, "dev", &keeping(name, lines)).await;
    }
    let refused = host.try_deploy("dev", component("keeper"), &keeping("keeper", "value = \"2MiB\"")).await;
    assert_eq!((refused.status, refused.message().contains("keyvalue.value")), (422, true));

    let ask = async |function: &str, path: &str| ask(&host, &format!("dev/{function}"), path).await;
    assert!(error(&ask("keeper", "set?key=big&size=102401").await).contains("it may have 102400"));
    assert!(error(&ask("keeper", &format!("set?key={}", "k".repeat(513))).await).contains("1 to 512"));
    assert!(error(&ask("keeper", "set?key=").await).contains("1 to 512"));
    let flood = ask("keeper", "flood?key=k&count=300&size=10").await;
    assert_eq!((&flood["kept"], error(&flood).contains("50 keys")), (&50.into(), true), "{flood}");
    let flood = ask("beside", "flood?key=k&count=10&size=102400").await;
    assert_eq!((&flood["kept"], error(&flood).contains("307200 bytes")), (&2.into(), true), "{flood}");
    assert!(error(&ask("keeper", "many?key=k&count=257&size=1").await).contains("256"));
    assert!(error(&ask("keeper", "flood?key=k&count=1000&size=1").await).contains("400 key-value calls"));
    assert!(error(&ask("beside", "loop?key=n&count=500").await).contains("400 key-value calls"));
    // The tenant's, over all its functions: 100 KiB a value, 1 MiB in all.
    for name in ["third", "fourth"] {
        ask(name, "flood?key=k&count=3&size=102300").await;
    }
    deploy(&host, "dev", &keeping("fifth", lines)).await;
    let flood = ask("fifth", "flood?key=k&count=3&size=102300").await;
    assert!(error(&flood).contains("tenant may have 1048576 bytes"), "{flood}");
    // Others have their own.
    host.put_tenant("stranger").await;
    deploy(&host, "stranger", &keeping("keeper", lines)).await;
    let flood = host.anonymous().get("/fn/stranger/keeper/flood?key=k&count=2&size=102300").send().await;
    assert_eq!(flood.json()["kept"], 2);
}

#[tokio::test]
async fn many_calls_at_once_count_right() {
    let host = builder().start().await;
    deploy(&host, "dev", &keeping("keeper", "")).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let call = host.anonymous().get("/fn/dev/keeper/loop?key=n&count=50");
        calls.spawn(async move { call.send().await.expect(200) });
    }
    while let Some(answer) = calls.join_next().await {
        assert!(answer.expect("no panic").json()["number"].as_u64() >= Some(50));
    }
    assert_eq!(ask(&host, "dev/keeper", "get?key=n").await["value"], "1600");
}
