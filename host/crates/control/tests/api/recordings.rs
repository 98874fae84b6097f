use http::StatusCode;
use wasmeter_catalog::RecordingStore as _;
use wasmeter_types::InvocationId;

use crate::host::Host;

const SETTING: &str = "/api/v1/tenants/dev/recording";

#[tokio::test]
async fn recordings_are_for_who_may_deploy_and_go_with_the_switch() {
    let host = Host::new().await;
    let (dev, reader) = (host.dev(), host.token("dev", "invoke read"));
    let switch = async |token: &str, on: bool| {
        let body = format!("{{\"on\":{on}}}");
        host.put(token, SETTING, "application/json", body).await
    };
    assert_eq!(switch(&reader, true).await.status, StatusCode::FORBIDDEN);
    assert_eq!(switch(&dev, true).await.json()["on"], true);
    let id = InvocationId::new();
    assert!(host.recordings.keep(&"dev".parse().unwrap(), id, b"{\"v\":1}".to_vec()));
    let shown = host.get(&reader, SETTING).await;
    assert_eq!((&shown.json()["calls"], &shown.json()["bytes"]), (&1.into(), &7.into()));

    let path = format!("/api/v1/tenants/dev/recordings/{id}");
    assert_eq!(host.get(&dev, &path).await.json()["v"], 1);
    assert_eq!(host.get(&reader, &path).await.status, StatusCode::FORBIDDEN);
    let other = host.token("other", "deploy invoke read");
    assert_eq!(host.get(&other, &path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(switch(&dev, false).await.json()["calls"], 0);
    assert_eq!(host.get(&dev, &path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_component_comes_back_as_it_went_in() {
    let host = Host::new().await;
    let deployed = host.deploy("f", b"\0asm a component").await.json();
    let revision = deployed["revision"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/tenants/dev/functions/f/revisions/{revision}/component");
    let got = host.get(&host.dev(), &path).await;
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &b"\0asm a component"[..]));
    assert_eq!(host.get(&host.token("dev", "invoke read"), &path).await.status, StatusCode::FORBIDDEN);
}
