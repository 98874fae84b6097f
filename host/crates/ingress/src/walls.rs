use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::route::Place;

/// All functions share the platform's origin in the path form, so an answer must not be a full page of it, and must
/// not set anything that holds for the origin.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox allow-scripts allow-forms");

/// Headers whose effect reaches beyond the function's own path.
const ORIGIN_WIDE: [&str; 4] = ["service-worker-allowed", "nel", "report-to", "strict-transport-security"];

/// Headers whose effect reaches beyond the function's own host: cookies are cleared for the whole site, and another
/// server would speak for this one's connections.
const SITE_WIDE: [&str; 3] = ["clear-site-data", "alt-svc", "public-key-pins"];

fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-wasmeter-")
}

/// What the guest must not see: our own headers, and platform tokens, even those that we do not accept (an expired one,
/// one of two). A scheme of the guest's own stays.
pub(crate) fn inbound(headers: &mut HeaderMap, is_platform_token: impl Fn(&HeaderValue) -> bool) {
    remove(headers, is_ours);
    if headers.get_all(header::AUTHORIZATION).iter().any(&is_platform_token) {
        let values: Vec<HeaderValue> = headers.get_all(header::AUTHORIZATION).iter().cloned().collect();
        headers.remove(header::AUTHORIZATION);
        for value in values.into_iter().filter(|v| !is_platform_token(v)) {
            headers.append(header::AUTHORIZATION, value);
        }
    }
}

/// What the guest must not say.
pub(crate) fn outbound(headers: &mut HeaderMap, place: &Place) {
    let shared_origin = matches!(place, Place::Path(_));
    remove(headers, |name| {
        is_ours(name)
            || SITE_WIDE.contains(&name.as_str())
            || shared_origin && ORIGIN_WIDE.contains(&name.as_str())
    });
    if headers.contains_key(header::SET_COOKIE) {
        let cookies: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
        headers.remove(header::SET_COOKIE);
        for cookie in cookies.into_iter().filter(|c| is_own_cookie(c, place)) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
    if shared_origin {
        // Added, not replaced: of several policies each must allow (CSP Level 3, section 4.1).
        headers.append(header::CONTENT_SECURITY_POLICY, SANDBOX);
    }
}

/// Removes the fields with these names: one look at each, since nearly always there is none.
fn remove(headers: &mut HeaderMap, which: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|n| which(n)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// A cookie stays only if it names no domain, which other functions share, and in the path form a path of the function:
/// without a path its default is the folder above, which other functions share too (RFC 6265, section 5.1.4).
fn is_own_cookie(cookie: &HeaderValue, place: &Place) -> bool {
    let Ok(text) = cookie.to_str() else { return false };
    let mut path = None;
    for attribute in text.split(';').skip(1) {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            // The last one counts (RFC 6265, section 5.3).
            "path" => path = Some(value.trim()),
            "domain" => return false,
            _ => {}
        }
    }
    let Place::Path(prefix) = place else { return true };
    path.and_then(|p| p.strip_prefix(prefix.as_str()))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_stay_in_their_path() {
        let place = Place::Path("/fn/dev/f".to_owned());
        let own = |c: &str| is_own_cookie(&HeaderValue::from_str(c).unwrap(), &place);
        assert!(own("a=b; Path=/fn/dev/f"));
        assert!(own("a=b; HttpOnly; path=/fn/dev/f/x"));
        for other in [
            "a=b",
            "a=b; Path=/",
            "a=b; Path=/fn/dev/f2",
            "a=b; Path=/fn/dev/f; Path=/",
            "a=b; Path=/fn/dev/f; Domain=example.com",
            "a=b; Path",
        ] {
            assert!(!own(other), "{other}");
        }
        let on_host = |c: &str| is_own_cookie(&HeaderValue::from_str(c).unwrap(), &Place::Host);
        assert!(on_host("a=b") && on_host("a=b; Path=/") && !on_host("a=b; Domain=fn.test"));
    }

    #[test]
    fn nothing_reaches_the_origin() {
        let mut headers = HeaderMap::new();
        for name in ["service-worker-allowed", "clear-site-data", "alt-svc", "x-wasmeter-cost", "x-own"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'self'"));
        let mut on_host = headers.clone();
        outbound(&mut headers, &Place::Path("/fn/dev/f".to_owned()));
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-security-policy", "x-own"]);
        assert_eq!(headers.get_all(header::CONTENT_SECURITY_POLICY).iter().count(), 2);
        outbound(&mut on_host, &Place::Host);
        let mut names: Vec<_> = on_host.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-security-policy", "service-worker-allowed", "x-own"]);
        assert_eq!(on_host.get_all(header::CONTENT_SECURITY_POLICY).iter().count(), 1);
    }

    #[test]
    fn the_guest_never_sees_a_platform_token() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        headers.insert(HeaderName::from_static("x-wasmeter-max-cost"), HeaderValue::from_static("1"));
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Basic y"));
        inbound(&mut headers, |_| false);
        assert!(headers.contains_key(header::AUTHORIZATION) && headers.len() == 2);
        inbound(&mut headers, |v| v == "Bearer x");
        assert_eq!(headers.get(header::AUTHORIZATION).unwrap(), "Basic y");
        assert_eq!(headers.len(), 1);
    }
}
