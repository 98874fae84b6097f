use http::StatusCode;

use crate::host::Host;

#[tokio::test]
async fn the_document_lists_every_route() {
    let host = Host::new().await;
    let answer = host.get("", "/api/openapi.json").await;
    assert_eq!(answer.status, StatusCode::OK);
    let document = answer.json();
    assert_eq!(document, serde_json::to_value(&host.openapi).unwrap());
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut lines = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["responses"]["default"].is_object(), "{method} {path}");
            lines.push(format!("{} {path}\n", method.to_uppercase()));
        }
    }
    lines.sort();
    assert_eq!(lines.concat(), include_str!("../openapi-paths.txt"));
}
