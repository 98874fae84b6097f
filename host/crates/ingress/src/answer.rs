use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use wasmeter_types::{Error, ErrorKind, InvocationId};

/// An error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

pub(crate) const INVOCATION: HeaderName = HeaderName::from_static("x-wasmeter-invocation");
const ERROR_SOURCE: HeaderName = HeaderName::from_static("x-wasmeter-error-source");

/// Any body as the body of an answer.
pub fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

pub(crate) fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(boxed(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The only place that turns an error into HTTP.
pub(crate) fn error(error: &Error, invocation: Option<InvocationId>) -> Response<Body> {
    let status = StatusCode::from_u16(error.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // The constant bodies stay constant: an id would not tell a thing, but a difference is a difference.
    let shown =
        invocation.filter(|_| !matches!(error.kind, ErrorKind::Unauthenticated | ErrorKind::NotFound));
    let body = serde_json::to_vec(&error.to_client(shown)).unwrap_or_default();
    let mut response = text(status, "application/json", body);
    let headers = response.headers_mut();
    headers.insert(ERROR_SOURCE, HeaderValue::from_static(error.kind.source().as_str()));
    if let Some(after) = error.retry_after {
        headers.insert(RETRY_AFTER, after.as_secs().max(1).into());
    }
    if error.kind == ErrorKind::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"wasmeter\""));
    }
    response
}

pub(crate) fn set_invocation(response: &mut Response<Body>, id: InvocationId) {
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(INVOCATION, value);
    }
}
