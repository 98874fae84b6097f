use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use wasmeter_types::{Error, ErrorKind};

use crate::answer::{self, Body};
use crate::route::is_upgrade;

/// Headers of the upgrade itself: they are between the client and the host.
const OURS: [HeaderName; 5] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
];

/// The `Sec-WebSocket-Accept` of a request that asks rightly (RFC 6455, section 4.2.1).
///
/// # Errors
/// 400 with what is missing.
pub(super) fn accept_key(request: &Request<Incoming>) -> Result<HeaderValue, Error> {
    let refuse = |what: &str| Err(Error::new(ErrorKind::Malformed, format!("no WebSocket: {what}")));
    let headers = request.headers();
    if request.version() != Version::HTTP_11 || *request.method() != Method::GET {
        return refuse("it begins with GET over HTTP/1.1");
    }
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let wants = connection.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case("upgrade"));
    if !wants || !is_upgrade(headers) {
        return refuse("the headers `connection: upgrade` and `upgrade: websocket` are needed");
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        return refuse("sec-websocket-version must be 13");
    }
    // 16 bytes in base64.
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let good = |key: &&HeaderValue| key.len() == 24 && key.as_bytes().ends_with(b"==");
    let (Some(key), None) = (keys.next().filter(good), keys.next()) else {
        return refuse("sec-websocket-key must be 16 bytes in base64, once");
    };
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| Error::internal())
}

/// Takes away what only the host and the client need.
pub(super) fn strip(headers: &mut HeaderMap) {
    for name in OURS {
        headers.remove(name);
    }
}

/// The answer after which the connection is a WebSocket: the guest's headers, without those of a body.
pub(super) fn switching(accept: HeaderValue, mut headers: HeaderMap) -> Response<Body> {
    strip(&mut headers);
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER] {
        headers.remove(name);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    let mut response = Response::new(answer::boxed(http_body_util::Empty::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}
