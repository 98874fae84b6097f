//! Calls to elsewhere: to the origins in the manifest's `[http] allow`, and nowhere else.
//!
//! ```no_run
//! # fn f() -> wasmeter_guest::Result<()> {
//! let answer = wasmeter_guest::http::Call::get("https://api.example.com/v1/rates").send()?;
//! let text = String::from_utf8(answer.body(1 << 20)?)?;
//! # Ok(()) }
//! ```
//!
//! Redirects are not followed: the answer is the 3xx, and a call to its `location` is a call like any other.

use std::fmt;
use std::time::Duration;

use crate::raw::wasi::http::outgoing_handler;
use crate::raw::wasi::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions,
    Scheme,
};
use crate::raw::wasi::io::streams::StreamError;

/// Bytes of one write or read of a body.
const CHUNK: usize = 4096;
const READ: u64 = 64 << 10;

/// A call to be made.
#[derive(Clone, Debug)]
pub struct Call {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
    timeout: Option<Duration>,
}

/// The answer: its head, and its body as long as nobody has read it.
pub struct Answer {
    response: IncomingResponse,
    headers: Vec<(String, Vec<u8>)>,
}

/// Why there is no answer. The function's log says more: which origin was refused, and what to write in the manifest.
#[derive(Clone, Debug)]
pub struct Error {
    code: Option<ErrorCode>,
    message: String,
}

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self { code: None, message: message.into() }
    }

    /// The code of `wasi:http`, if the platform gave one.
    pub fn code(&self) -> Option<&ErrorCode> {
        self.code.as_ref()
    }
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        Self { message: format!("{code:?}"), code: Some(code) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call failed: {}", self.message)
    }
}

impl std::error::Error for Error {}

impl Call {
    /// A call with this method to `https://host[:port]/path?query` (or `http://`).
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self { method: method.to_owned(), url: url.into(), headers: Vec::new(), body: None, timeout: None }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST` of this body.
    pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", url).body(body)
    }

    /// The same call with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same call with this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The same call with this patience for each of: the connection, the answer's head, a pause within its body. Within
    /// the manifest's own.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Makes the call and waits for the head of its answer.
    ///
    /// # Errors
    /// What is wrong with the call, or the platform's code.
    pub fn send(self) -> Result<Answer, Error> {
        let (scheme, authority, target) = split(&self.url)?;
        let fields = Fields::new();
        for (name, value) in &self.headers {
            fields.append(name, value).map_err(|e| Error::new(format!("the header {name:?}: {e:?}")))?;
        }
        if let Some(body) = &self.body {
            let length = body.len().to_string();
            // A length that the caller has set stays.
            if !fields.has("content-length") {
                let set = fields.append("content-length", length.as_bytes());
                set.map_err(|e| Error::new(format!("content-length: {e:?}")))?;
            }
        }
        let request = OutgoingRequest::new(fields);
        let bad = |what: &str| Error::new(format!("{what} of the call is not acceptable"));
        request.set_method(&method(&self.method)).map_err(|()| bad("the method"))?;
        request.set_scheme(Some(&scheme)).map_err(|()| bad("the scheme"))?;
        request.set_authority(Some(authority)).map_err(|()| bad("the host"))?;
        request.set_path_with_query(Some(&target)).map_err(|()| bad("the path"))?;
        let options = self.timeout.map(|timeout| {
            let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            let options = RequestOptions::new();
            // An option that the platform does not know is no reason not to call.
            let _ = options.set_connect_timeout(Some(nanos));
            let _ = options.set_first_byte_timeout(Some(nanos));
            let _ = options.set_between_bytes_timeout(Some(nanos));
            options
        });
        let body = request.body().map_err(|()| bad("the body"))?;
        let future = outgoing_handler::handle(request, options)?;
        let written = write(body, self.body.as_deref().unwrap_or_default());
        let response = loop {
            match future.get() {
                Some(Ok(answer)) => break answer?,
                Some(Err(())) => return Err(Error::new("the answer was taken before")),
                None => future.subscribe().block(),
            }
        };
        // A server may answer before it has the whole request; only without an answer the body is what failed.
        let _ = written;
        let fields = response.headers();
        let headers = fields.entries();
        drop(fields);
        Ok(Answer { response, headers })
    }
}

fn write(body: OutgoingBody, bytes: &[u8]) -> Result<(), Error> {
    let broken = |_| Error::new("the request's body broke off");
    let stream = body.write().map_err(|()| Error::new("the request has no body"))?;
    for chunk in bytes.chunks(CHUNK) {
        stream.blocking_write_and_flush(chunk).map_err(broken)?;
    }
    drop(stream);
    OutgoingBody::finish(body, None).map_err(Error::from)
}

impl Answer {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.response.status()
    }

    /// All headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The first header of a name (any case), if its value is UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The body.
    ///
    /// # Errors
    /// If it is longer than `limit`, or breaks off: a part is never taken for the whole.
    pub fn body(self, limit: usize) -> Result<Vec<u8>, Error> {
        let body = self.response.consume().map_err(|()| Error::new("the answer's body was taken before"))?;
        read(&body, limit)
    }
}

fn read(body: &IncomingBody, limit: usize) -> Result<Vec<u8>, Error> {
    let stream = body.stream().map_err(|()| Error::new("the answer's body cannot be read"))?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(READ) {
            Ok(chunk) if bytes.len() + chunk.len() > limit => {
                return Err(Error::new(format!("the answer is longer than {limit} bytes")));
            }
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => {
                let code = crate::raw::wasi::http::types::http_error_code(&error);
                return Err(code.map_or_else(|| Error::new(error.to_debug_string()), Error::from));
            }
        }
    }
}

fn split(url: &str) -> Result<(Scheme, &str, String), Error> {
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| Error::new(format!("{url:?} is no URL: write https://host/path")))?;
    let scheme = match scheme {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        other => Scheme::Other(other.to_owned()),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    Ok((scheme, authority, target))
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        let parts = |url| split(url).map(|(_, authority, target)| (authority, target)).expect("a URL");
        assert_eq!(parts("https://a.example:8443/b?c=d#e"), ("a.example:8443", "/b?c=d".to_owned()));
        assert_eq!(parts("http://a"), ("a", "/".to_owned()));
        assert_eq!(parts("http://[::1]?x"), ("[::1]", "/?x".to_owned()));
        assert!(split("a.example/b").is_err());
    }
}
