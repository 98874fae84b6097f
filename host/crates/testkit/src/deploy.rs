use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::paths::read;
use crate::{Answer, Call, Host, component, tiny_model};

/// A manifest in the making.
#[derive(Clone, Debug)]
pub struct Manifest {
    name: String,
    public: bool,
    sections: String,
}

/// The manifest of a private function with the default limits.
#[must_use]
pub fn manifest(name: &str) -> Manifest {
    Manifest { name: name.to_owned(), public: false, sections: String::new() }
}

impl Manifest {
    /// Triggers need no token.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.public = true;
        self
    }

    /// Lines of `[limits]`.
    #[must_use]
    pub fn limits(self, lines: &str) -> Self {
        self.section("limits", lines)
    }

    /// Models that it may load.
    #[must_use]
    pub fn models(self, names: &[&str]) -> Self {
        self.section("models", &format!("allow = {names:?}"))
    }

    /// Any section.
    #[must_use]
    pub fn section(mut self, name: &str, lines: &str) -> Self {
        self.sections.push_str(&format!("[{name}]\n{lines}\n"));
        self
    }

    /// As TOML.
    #[must_use]
    pub fn text(&self) -> String {
        format!("[function]\nname = \"{}\"\npublic = {}\n{}", self.name, self.public, self.sections)
    }
}

/// The card of a model with one file, `model.onnx`.
#[must_use]
pub fn model_card(name: &str) -> String {
    format!("[model]\nname = \"{name}\"\nbackend = \"onnx\"\nfiles = [\"model.onnx\"]\n")
}

impl Host {
    /// Deploys a built component for the tenant `dev`: what the API answered.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn deploy(&self, name: &str, manifest: &Manifest) -> Value {
        let answer = self.try_deploy("dev", component(name), manifest).await;
        assert!(matches!(answer.status, 200 | 201), "{name}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// Uploads any bytes as a function of a tenant, with the operator's token.
    pub async fn try_deploy(&self, tenant: &str, bytes: Vec<u8>, manifest: &Manifest) -> Answer {
        self.try_deploy_to(tenant, None, bytes, manifest).await
    }

    /// The same, and moves this alias instead of `live`.
    pub async fn try_deploy_to(
        &self,
        tenant: &str,
        alias: Option<&str>,
        bytes: Vec<u8>,
        manifest: &Manifest,
    ) -> Answer {
        let alias = alias.map(|alias| format!("?alias={alias}")).unwrap_or_default();
        let path = format!("/api/v1/tenants/{tenant}/functions/{}{alias}", manifest.name);
        let parts = [("manifest", manifest.text().into_bytes()), ("component", bytes)];
        multipart(self.operator().call(Method::PUT, &path), &parts).send().await
    }

    /// Pushes the model in a folder (`model.toml` and what it names) as version 1.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn push_model(&self, folder: &Path) -> Value {
        let card = String::from_utf8(read(&folder.join("model.toml"))).expect("a card is text");
        let table: toml::Table = card.parse().expect("a card is TOML");
        let names = table["model"]["files"].as_array().expect("a card names files").clone();
        let files =
            names.iter().filter_map(toml::Value::as_str).map(|n| (n.to_owned(), read(&folder.join(n))));
        let name = table["model"]["name"].as_str().expect("a card names its model");
        pushed(name, self.try_push(name, 1, &card, &files.collect::<Vec<_>>()).await)
    }

    /// Pushes a tiny model of the fixtures as version 1.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn push_tiny(&self, name: &str) -> Value {
        let files = [("model.onnx".to_owned(), tiny_model(name))];
        pushed(name, self.try_push(name, 1, &model_card(name), &files).await)
    }

    /// Pushes any card and files as a model version, with the operator's token.
    pub async fn try_push(
        &self,
        name: &str,
        version: u32,
        card: &str,
        files: &[(String, Vec<u8>)],
    ) -> Answer {
        let mut parts = vec![("card", card.as_bytes().to_vec())];
        parts.extend(files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())));
        let path = format!("/api/v1/models/{name}/versions/{version}");
        multipart(self.operator().call(Method::PUT, &path), &parts).send().await
    }

    /// Pushes an ONNX file as version 1 of a tenant's own model, with the operator's token.
    pub async fn push_own(&self, tenant: &str, name: &str, files: &[(String, Vec<u8>)]) -> Answer {
        let mut parts = vec![("card", model_card(name).into_bytes())];
        parts.extend(files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())));
        let path = format!("/api/v1/tenants/{tenant}/models/{name}/versions/1");
        multipart(self.operator().call(Method::PUT, &path), &parts).send().await
    }

    /// Makes a tenant.
    ///
    /// # Panics
    /// If the API refuses.
    pub async fn put_tenant(&self, name: &str) {
        let answer = self.operator().put(&format!("/api/v1/tenants/{name}"), "").send().await;
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    }

    /// A token for a tenant.
    ///
    /// # Panics
    /// If the API refuses.
    pub async fn mint(&self, tenant: &str, scopes: &[&str], ttl_seconds: u64) -> String {
        let asked = json!({ "tenant": tenant, "scopes": scopes, "ttl_seconds": ttl_seconds });
        let answer =
            self.operator().call(Method::POST, "/api/v1/token").json(&asked).send().await.expect(201);
        answer.json()["token"].as_str().expect("a token").to_owned()
    }
}

fn pushed(name: &str, answer: Answer) -> Value {
    assert!(matches!(answer.status, 200 | 201), "{name}: {} {}", answer.status, answer.text());
    answer.json()
}

/// `multipart/form-data` (RFC 7578).
fn multipart(call: Call, parts: &[(&str, Vec<u8>)]) -> Call {
    const BOUNDARY: &str = "wasmeter-testkit-7f3a1c";
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    call.header("content-type", &format!("multipart/form-data; boundary={BOUNDARY}")).body(body)
}
