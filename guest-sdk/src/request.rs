//! The request that a handler gets.

use std::cell::OnceCell;

use serde::de::DeserializeOwned;

use crate::raw::wasi::http::types::{IncomingBody, IncomingRequest, Method, Scheme};
use crate::raw::wasi::io::streams::StreamError;
use crate::websocket::{self, WEBSOCKET, WebSocket};
use crate::{Error, Response, Result, url};

/// What [`Request::body`] reads at most: 8 MiB, the default of the manifest's `request-body`.
pub const DEFAULT_BODY_LIMIT: usize = 8 << 20;

/// Bytes asked for in one read of the body.
const READ: u64 = 256 << 10;

/// An HTTP request. Headers and body are fetched from the host when they are asked for: each call to it costs fuel.
pub struct Request {
    method: OnceCell<String>,
    path: String,
    query: Option<String>,
    scheme: OnceCell<Option<String>>,
    authority: OnceCell<Option<String>>,
    headers: OnceCell<Vec<Header>>,
    body: OnceCell<Vec<u8>>,
    incoming: Option<IncomingRequest>,
}

type Header = (String, Vec<u8>);

impl Request {
    /// A request without headers and body, for tests of handlers outside a component.
    /// `target` is a path with an optional query, e.g. `/resize?width=3`.
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = split_target(target);
        Self {
            method: OnceCell::from(method.to_owned()),
            path,
            query,
            scheme: OnceCell::new(),
            authority: OnceCell::new(),
            headers: OnceCell::new(),
            body: OnceCell::new(),
            incoming: None,
        }
    }

    /// The same request with one more header.
    #[must_use]
    pub fn with_header(self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        let mut headers = self.all_headers().to_vec();
        headers.push((name.to_ascii_lowercase(), value.into()));
        Self { headers: OnceCell::from(headers), ..self }
    }

    /// The same request with this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = OnceCell::from(body.into());
        self
    }

    pub(crate) fn incoming(incoming: IncomingRequest) -> Self {
        let target = incoming.path_with_query();
        let request = Self::new("", target.as_deref().unwrap_or("/"));
        Self { method: OnceCell::new(), incoming: Some(incoming), ..request }
    }

    fn all_headers(&self) -> &[Header] {
        self.headers.get_or_init(|| match &self.incoming {
            Some(incoming) => incoming.headers().entries(),
            None => Vec::new(),
        })
    }

    /// The body, once. Its resource is a child of the request's: it must go first.
    fn unread(&self) -> Option<IncomingBody> {
        self.incoming.as_ref()?.consume().ok()
    }

    /// The method in capitals, e.g. `POST`.
    pub fn method(&self) -> &str {
        let method = || self.incoming.as_ref().map(|incoming| method_name(incoming.method()));
        self.method.get_or_init(|| method().unwrap_or_default())
    }

    /// The path below the function, not decoded; `/` for the function itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query without its `?`, not decoded.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The names and values of the query, decoded, in order.
    pub fn query_pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        url::pairs(self.query().unwrap_or_default())
    }

    /// The first value of a name in the query, decoded.
    pub fn query_param(&self, name: &str) -> Option<String> {
        self.query_pairs().find_map(|(n, value)| (n == name).then_some(value))
    }

    /// `http` or `https`, as the caller used it.
    pub fn scheme(&self) -> Option<&str> {
        let scheme = || self.incoming.as_ref()?.scheme().map(scheme_name);
        self.scheme.get_or_init(scheme).as_deref()
    }

    /// The host that the caller named, with its port.
    pub fn authority(&self) -> Option<&str> {
        let authority = || self.incoming.as_ref()?.authority();
        self.authority.get_or_init(authority).as_deref()
    }

    /// All headers: names in small letters, values as they came, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.all_headers().iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The first header of a name (any case), if its value is UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The whole body, at most [`DEFAULT_BODY_LIMIT`] bytes.
    ///
    /// # Errors
    /// 413 for a longer body, 400 for one that breaks off.
    pub fn body(&self) -> Result<&[u8]> {
        self.body_up_to(DEFAULT_BODY_LIMIT)
    }

    /// The whole body, at most `limit` bytes. A later call gives the same bytes.
    ///
    /// # Errors
    /// 413 for a longer body, 400 for one that breaks off or that failed to be read before.
    pub fn body_up_to(&self, limit: usize) -> Result<&[u8]> {
        if self.body.get().is_none() {
            let announced = || self.header("content-length").and_then(|v| v.parse().ok());
            let bytes = match self.unread() {
                Some(body) => read(body, limit, announced)?,
                None if self.incoming.is_none() => Vec::new(),
                None => return Err(Error::bad_request("the request's body could not be read")),
            };
            return Ok(self.body.get_or_init(|| bytes));
        }
        match self.body.get() {
            Some(body) if body.len() <= limit => Ok(body),
            _ => Err(too_long(limit)),
        }
    }

    /// Whether the client asks for a WebSocket: answer with [`Request::websocket`], or refuse with any other answer.
    pub fn is_websocket(&self) -> bool {
        self.header("content-type") == Some(WEBSOCKET)
    }

    /// Takes the connection: `talk` runs until it returns, which closes with 1000. An error closes with 4000 + its
    /// status. All of it is one invocation, with one bill.
    ///
    /// # Errors
    /// 400 for a request that asks for none.
    pub fn websocket(
        self,
        talk: impl FnOnce(&mut WebSocket<'_>) -> Result<()> + 'static,
    ) -> Result<Response> {
        let body = if self.is_websocket() { self.unread() } else { None };
        let Some(body) = body else {
            return Err(Error::bad_request("this address speaks WebSocket: connect to it below /ws/fn/"));
        };
        Ok(websocket::open(websocket::Input::new(body, self)?, talk))
    }

    /// The body as text.
    ///
    /// # Errors
    /// As [`Request::body`], and 400 if it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(self.body()?)
            .map_err(|e| Error::bad_request(format!("the request's body is not UTF-8: {e}")))
    }

    /// The body from JSON.
    ///
    /// # Errors
    /// As [`Request::body`], and 400 that says what is wrong with the JSON and where.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.body()?).map_err(|e| {
            Error::bad_request(format!("the request's body is not the JSON that is expected: {e}"))
        })
    }
}

/// Reads a body to its end. How long it should be is asked for only if it does not come at once.
fn read(body: IncomingBody, limit: usize, announced: impl FnOnce() -> Option<u64>) -> Result<Vec<u8>> {
    let stream = body.stream().map_err(|()| Error::bad_request("the request's body could not be read"))?;
    let (mut bytes, mut announced) = (Vec::new(), Some(announced));
    loop {
        match stream.blocking_read(READ) {
            Ok(chunk) if bytes.len() + chunk.len() > limit => return Err(too_long(limit)),
            Ok(chunk) if bytes.is_empty() => bytes = chunk,
            Ok(chunk) => {
                if let Some(length) = announced.take().and_then(|announced| announced()) {
                    let length = usize::try_from(length).ok().filter(|length| *length <= limit);
                    let length = length.ok_or_else(|| too_long(limit))?;
                    bytes.reserve_exact(length.saturating_sub(bytes.len()));
                }
                bytes.extend_from_slice(&chunk);
            }
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(e)) => {
                let reason = e.to_debug_string();
                return Err(Error::bad_request(format!("the request's body broke off: {reason}")));
            }
        }
    }
}

fn too_long(limit: usize) -> Error {
    Error::too_large(format!("the request's body is longer than {limit} bytes"))
}

fn split_target(target: &str) -> (String, Option<String>) {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let path = if path.is_empty() { "/" } else { path };
    (path.to_owned(), query)
}

fn method_name(method: Method) -> String {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => return name,
    }
    .to_owned()
}

fn scheme_name(scheme: Scheme) -> String {
    match scheme {
        Scheme::Http => "http".to_owned(),
        Scheme::Https => "https".to_owned(),
        Scheme::Other(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_split() {
        let req = Request::new("GET", "/a/b?n=3&t=x+y").with_header("Accept", "*/*");
        assert_eq!((req.method(), req.path(), req.query()), ("GET", "/a/b", Some("n=3&t=x+y")));
        assert_eq!(req.query_param("t").as_deref(), Some("x y"));
        assert_eq!(req.query_param("z"), None);
        assert_eq!(req.header("ACCEPT"), Some("*/*"));
        assert_eq!(Request::new("GET", "").path(), "/");
    }

    #[test]
    fn body_meets_its_limit() {
        let req = Request::new("POST", "/").with_body("12345");
        assert_eq!(req.body().expect("short"), b"12345");
        assert_eq!(req.body_up_to(4).expect_err("too long").status(), 413);
        assert_eq!(Request::new("POST", "/").body().expect("none"), b"");
    }

    #[test]
    fn wrong_json_is_400_and_says_where() {
        let req = Request::new("POST", "/").with_body("{\"a\": ");
        let error = req.json::<serde_json::Value>().expect_err("broken");
        assert_eq!(error.status(), 400);
        assert!(error.message().contains("line 1"), "{error}");
    }
}
