use http::StatusCode;

use crate::host::{FORM, Host, form};

const SECRETS: &str = "/api/v1/tenants/dev/secrets";

#[tokio::test]
async fn values_go_in_and_names_come_out() {
    let host = Host::new().await;
    let dev = host.dev();
    let bytes = "application/octet-stream";
    let key = format!("{SECRETS}/api-key");
    let set = host.put(&dev, &key, bytes, "hunter2").await;
    assert_eq!((set.status, &set.json()["secret"]), (StatusCode::CREATED, &"api-key".into()));
    assert_eq!(set.json()["updated"], "1970-01-01T00:00:01Z");
    assert_eq!(host.put(&dev, &key, bytes, "hunter3").await.status, StatusCode::OK);
    let list = host.get(&dev, SECRETS).await;
    assert_eq!(list.json()["secrets"][0]["secret"], "api-key");
    for answer in [&set, &list] {
        assert!(!String::from_utf8_lossy(&answer.body).contains("hunter"));
    }
    // There is no way to read a value.
    assert_eq!(host.get(&dev, &key).await.status, StatusCode::METHOD_NOT_ALLOWED);

    let refused = host.put(&dev, &format!("{SECRETS}/API_KEY"), bytes, "x").await;
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::BAD_REQUEST, "malformed"));
    assert_eq!(host.put(&dev, &key, bytes, "").await.status, StatusCode::BAD_REQUEST);
    let long = host.put(&dev, &key, bytes, vec![b'x'; (16 << 10) + 1]).await;
    assert_eq!(long.status, StatusCode::PAYLOAD_TOO_LARGE);
    for name in ["b", "c"] {
        host.put(&dev, &format!("{SECRETS}/{name}"), bytes, "x").await;
    }
    let full = host.put(&dev, &format!("{SECRETS}/d"), bytes, "x").await;
    assert_eq!((full.status, full.message().contains("remove one")), (StatusCode::TOO_MANY_REQUESTS, true));

    assert_eq!(host.delete(&dev, &key).await.status, StatusCode::NO_CONTENT);
    assert_eq!(host.delete(&dev, &key).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn they_are_the_tenants_own() {
    let host = Host::new().await;
    let key = format!("{SECRETS}/api-key");
    let bytes = "application/octet-stream";
    let (other, reader) = (host.token("other", "deploy invoke read"), host.token("dev", "invoke read"));
    assert_eq!(host.put(&other, &key, bytes, "x").await.status, StatusCode::NOT_FOUND);
    assert_eq!(host.get(&other, SECRETS).await.status, StatusCode::NOT_FOUND);
    assert_eq!(host.put(&reader, &key, bytes, "x").await.status, StatusCode::FORBIDDEN);
    let nowhere = host.put(&host.operator(), "/api/v1/tenants/nobody/secrets/k", bytes, "x").await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);

    // A function that lists what is not set is refused, and taken when it is.
    let manifest = b"[function]\nname = \"f\"\n[secrets]\nallow = [\"api-key\"]\n";
    let body = || form(&[("component", b"component".as_slice()), ("manifest", manifest)]);
    let function = "/api/v1/tenants/dev/functions/f";
    let refused = host.put(&host.dev(), function, FORM, body()).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.message().contains("wasmeter secrets set api-key"), "{}", refused.message());
    assert_eq!(host.put(&host.dev(), &key, bytes, "x").await.status, StatusCode::CREATED);
    assert_eq!(host.put(&host.dev(), function, FORM, body()).await.status, StatusCode::CREATED);

    let operator = host.operator();
    assert_eq!(host.delete(&operator, "/api/v1/tenants/dev").await.status, StatusCode::NO_CONTENT);
    host.put(&operator, "/api/v1/tenants/dev", "application/json", "").await;
    assert_eq!(host.get(&operator, SECRETS).await.json()["secrets"], serde_json::json!([]));
}

#[tokio::test]
async fn a_tenant_goes_with_its_secrets_or_not_at_all() {
    let host = Host::new().await;
    let (operator, tenant) = (host.operator(), "/api/v1/tenants/stuck");
    host.put(&operator, tenant, "application/json", "").await;
    let key = format!("{tenant}/secrets/k");
    assert_eq!(host.put(&operator, &key, "application/octet-stream", "x").await.status, StatusCode::CREATED);
    assert_eq!(host.delete(&operator, tenant).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    // Nobody else can take the name, and with it the secret.
    assert_eq!(host.get(&operator, tenant).await.status, StatusCode::OK);
}
