//! The response that a handler gives.

use serde::Serialize;

use crate::{BodyWriter, Error, Result};

type Stream = Box<dyn FnOnce(&mut BodyWriter) -> Result<()>>;

pub(crate) enum Body {
    Whole(Vec<u8>),
    Stream(Stream),
}

/// An HTTP response: status, headers and a body, whole or streamed.
pub struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Body,
}

impl Response {
    /// A response without a body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Whole(Vec::new()) }
    }

    /// 200 with this body and `content-type`.
    pub fn bytes(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut response = Self::new(200).with_header("content-type", content_type);
        response.body = Body::Whole(body.into());
        response
    }

    /// 200 with plain text.
    pub fn text(body: impl Into<String>) -> Self {
        Self::bytes("text/plain; charset=utf-8", body.into())
    }

    /// 200 with a page.
    pub fn html(body: impl Into<String>) -> Self {
        Self::bytes("text/html; charset=utf-8", body.into())
    }

    /// 200 with a value as JSON.
    ///
    /// # Errors
    /// 500 for a value that JSON cannot express, e.g. a map whose keys are no strings.
    pub fn json(value: &impl Serialize) -> Result<Self> {
        Ok(Self::bytes("application/json", serde_json::to_vec(value)?))
    }

    /// 200 with a body that `write` makes while the caller reads it.
    ///
    /// If `write` fails, the answer breaks off: status and headers have left already.
    pub fn stream(content_type: &str, write: impl FnOnce(&mut BodyWriter) -> Result<()> + 'static) -> Self {
        let mut response = Self::new(200).with_header("content-type", content_type);
        response.body = Body::Stream(Box::new(write));
        response
    }

    /// 405 with the `allow` header and a JSON error.
    pub fn method_not_allowed(allowed: &[&str]) -> Self {
        let allowed = allowed.join(", ");
        let error = Error::new(405, format!("method not allowed; use {allowed}"));
        error.into_response().with_header("allow", allowed)
    }

    /// The same response with another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same response with one more header. Names are sent in small letters.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first header of a name (any case), if its value is UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The body, unless it is streamed.
    pub fn body(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Whole(bytes) => Some(bytes),
            Body::Stream(_) => None,
        }
    }
}

/// What a handler may return.
pub trait IntoResponse {
    /// The response that is sent.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Response {
        Response::new(204)
    }
}

impl IntoResponse for &str {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.message() }).to_string();
        Response::bytes("application/json", body).with_status(self.status())
    }
}

impl<T: IntoResponse, E: Into<Error>> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => {
                let error = error.into();
                if error.status() >= 500 {
                    // The function's author finds it in `wasmeter logs`.
                    eprintln!("answered {}: {}", error.status(), error.message());
                }
                error.into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_answer_json() {
        let answer = Err::<Response, _>(Error::bad_request("no \"a\"")).into_response();
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        assert_eq!(answer.body(), Some(br#"{"error":"no \"a\""}"#.as_slice()));
    }

    #[test]
    fn method_not_allowed_names_the_methods() {
        let answer = Response::method_not_allowed(&["GET", "POST"]);
        assert_eq!((answer.status(), answer.header("allow")), (405, Some("GET, POST")));
    }
}
