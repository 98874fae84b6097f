use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Uri, request, response};
use wasmeter_admission::{Depth, HOPS};
use wasmeter_types::Origin;
use wasmtime_wasi_http::Error;

use super::{Failed, Shared};

/// Headers that belong to a connection and not to a message (RFC 9110, section 7.6.1), and `expect`, since nobody waits.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

/// Where a request goes.
pub(super) fn origin(parts: &request::Parts) -> Result<Origin, Failed> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Failed::new(
            Error::HttpRequestMethodInvalid,
            format!("the method {} is not allowed", parts.method),
        ));
    }
    let secure = parts.uri.scheme() != Some(&http::uri::Scheme::HTTP);
    let authority = parts.uri.authority().map_or("", |a| a.as_str());
    Origin::of(secure, authority).map_err(|e| Failed::new(Error::HttpRequestUriInvalid, e.to_string()))
}

/// Makes the head what goes over the wire: no header of a hop, none of ours that the guest made up, no platform token,
/// and the host that was checked.
pub(super) fn seal(
    shared: &Shared,
    parts: &mut request::Parts,
    origin: &Origin,
    depth: Depth,
) -> Result<(), Failed> {
    let target = parts.uri.path_and_query().cloned();
    let token = target.as_ref().and_then(|t| HeaderValue::from_str(t.as_str()).ok());
    if token.is_some_and(|t| shared.tokens.named_in(&t)) {
        let why = "a platform token stands in the request's path or query: it must not leave the platform";
        return Err(Failed::new(Error::HttpRequestDenied, why));
    }
    strip(&mut parts.headers);
    let tokens: Vec<HeaderName> = parts
        .headers
        .iter()
        .filter(|(_, value)| shared.tokens.named_in(value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in tokens {
        parts.headers.remove(name);
    }
    let host = HeaderValue::try_from(origin.authority())
        .map_err(|_| Failed::new(Error::HttpRequestUriInvalid, "the host cannot be a header"))?;
    parts.headers.insert(HOST, host);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(hops) = shared.hops.next(depth) {
        parts.headers.insert(HOPS, hops);
    }
    parts.version = http::Version::HTTP_11;
    parts.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    Ok(())
}

/// What the guest sees of the answer's head.
pub(super) fn open(parts: &mut response::Parts) -> Result<Option<u64>, Failed> {
    if parts.status == http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failed::new(
            Error::HttpProtocolError,
            "the server switched protocols without being asked",
        ));
    }
    strip(&mut parts.headers);
    Ok(length(&parts.headers))
}

/// The declared length of a body.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn strip(headers: &mut HeaderMap) {
    // Those that `Connection` names, and those that need no naming.
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| name != CONTENT_LENGTH)
        .collect();
    let ours: Vec<HeaderName> =
        headers.keys().filter(|n| n.as_str().starts_with("x-wasmeter-")).cloned().collect();
    for name in named.iter().chain(&ours).chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_hop_is_dropped() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-mine, close, content-length"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-wasmeter-hops", "1.0.00"),
            ("content-length", "3"),
            ("x-kept", "1"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "x-kept"]);
    }
}
