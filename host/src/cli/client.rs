use std::io::Read;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::{Method, Request, Response};
use serde_json::Value;
use ureq::{Agent, AsSendBody, Body};
use wasmeter_types::ClientError;

use super::connect::{is_loopback, warn_about_clear_text};

/// The most that is read of a JSON answer.
const MAX_ANSWER: u64 = 64 << 20;
/// The most that is read of an error.
const MAX_ERROR: u64 = 64 << 10;

/// One server, one token.
pub(crate) struct Client {
    agent: Agent,
    /// Without a slash at the end.
    pub(crate) url: String,
    pub(crate) token: String,
}

/// The server refused.
#[derive(Debug, thiserror::Error)]
#[error("{} ({}, HTTP {status})", .error.message, .error.code)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) error: ClientError,
}

impl Client {
    pub(crate) fn new(url: String, token: String) -> Result<Self> {
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            bail!("the token is empty or has characters that no token has");
        }
        warn_about_clear_text(&url);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would carry what is sent to another place.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .allow_non_standard_methods(true)
            .user_agent(concat!("wasmeter/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(10)));
        // A proxy of the environment cannot reach this machine's loopback.
        let config = if is_loopback(&url) { config.proxy(None) } else { config };
        Ok(Self { agent: config.build().new_agent(), url, token })
    }

    /// The same server with another token.
    pub(crate) fn with_token(&self, token: String) -> Self {
        Self { agent: self.agent.clone(), url: self.url.clone(), token }
    }

    /// A request to a path of the server, which begins with a slash.
    pub(crate) fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token))
    }

    /// Sends and gives the answer, whatever its status.
    pub(crate) fn send(&self, request: Request<impl AsSendBody>) -> Result<Response<Body>> {
        self.agent.run(request).map_err(|error| self.explain(error))
    }

    /// Sends and gives the answer, or the server's refusal as an error.
    pub(crate) fn ask(&self, request: Request<impl AsSendBody>) -> Result<Response<Body>> {
        accept(self.send(request)?)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        json(self.ask(self.request(Method::GET, path).body(())?)?)
    }

    pub(crate) fn get_stream(&self, path: &str) -> Result<impl Read + 'static> {
        let response = self.ask(self.request(Method::GET, path).body(())?)?;
        Ok(response.into_body().into_with_config().limit(u64::MAX).reader())
    }

    pub(crate) fn put(&self, path: &str) -> Result<Value> {
        json(self.ask(self.request(Method::PUT, path).body(())?)?)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        json(self.ask(request.body(body.to_string())?)?)
    }

    pub(crate) fn put_json(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.request(Method::PUT, path).header("content-type", "application/json");
        json(self.ask(request.body(body.to_string())?)?)
    }

    pub(crate) fn delete(&self, path: &str) -> Result<()> {
        self.ask(self.request(Method::DELETE, path).body(())?).map(drop)
    }

    fn explain(&self, error: ureq::Error) -> anyhow::Error {
        let away = match &error {
            ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => true,
            ureq::Error::Io(e) => e.kind() == std::io::ErrorKind::ConnectionRefused,
            _ => false,
        };
        let advice = if away { ": is the server running? `wasmeter serve` starts one" } else { "" };
        anyhow::Error::new(error).context(format!("no answer from {}{advice}", self.url))
    }
}

/// The refusal in a response, if it is one.
pub(crate) fn accept(mut response: Response<Body>) -> Result<Response<Body>> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = response.body_mut().with_config().limit(MAX_ERROR).read_to_vec().unwrap_or_default();
    match serde_json::from_slice(&bytes) {
        Ok(error) => Err(Refused { status: status.as_u16(), error }.into()),
        Err(_) => bail!("the server answered HTTP {status} without a reason: is it wasmeter's?"),
    }
}

/// The JSON of an answer.
pub(crate) fn json(mut response: Response<Body>) -> Result<Value> {
    let bytes = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
    let bytes = bytes.context("the server's answer broke off")?;
    serde_json::from_slice(&bytes).context("the server's answer is not JSON")
}

/// `?a=b&c=d` of the values that are there.
pub(crate) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let given = pairs.iter().filter_map(|(name, value)| Some((name, (*value)?)));
    let pairs: Vec<_> = given.map(|(name, value)| format!("{name}={}", encode(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Percent-encoding of everything but the unreserved characters (RFC 3986, section 2.3).
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        assert_eq!(query(&[("from", None)]), "");
        let pairs = [("from", Some("2026-11-01T00:00:00+01:00")), ("to", None), ("by", Some("hour"))];
        assert_eq!(query(&pairs), "?from=2026-11-01T00%3A00%3A00%2B01%3A00&by=hour");
    }

    #[test]
    fn tokens_are_one_word() {
        assert!(Client::new("http://127.0.0.1:1".into(), "a b".into()).is_err());
        assert!(Client::new("http://127.0.0.1:1".into(), String::new()).is_err());
    }
}
