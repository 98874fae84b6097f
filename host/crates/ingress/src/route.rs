use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Uri, Version};
use wasmeter_types::{AliasName, Error, ErrorKind, FunctionName, TenantName};

use crate::authority::{Domain, authority};

/// A longer path with query is refused.
const MAX_TARGET: usize = 8 << 10;

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Route {
    /// `/fn/{tenant}/{function}[@{alias}][/…]`, or any path of a function's own host.
    Function(Box<Target>),
    /// `/ws/fn/{tenant}/{function}[@{alias}][/…]`.
    Socket(Box<Target>),
    /// `/api/…`.
    Control,
    /// `/stripe/webhook`.
    Webhook,
    /// `/billing/done`.
    Done,
    /// `/healthz`.
    Live,
    /// `/readyz`.
    Ready,
    /// `OPTIONS *`: about the server, not about anything on it (RFC 9110, section 9.3.7).
    Server,
    /// Nothing is there.
    Nothing,
}

/// A function that is triggered.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) tenant: TenantName,
    pub(crate) function: FunctionName,
    pub(crate) alias: AliasName,
    pub(crate) place: Place,
    /// The host that the caller named.
    pub(crate) authority: Authority,
    /// What the guest sees.
    pub(crate) rest: PathAndQuery,
}

/// What of the site is the function's own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `/fn/{tenant}/{function}[@{alias}]`, on an origin that all functions share.
    Path(String),
    /// Its own host name.
    Host,
}

/// Finds the route; text that cannot be a name is malformed, whether or not such a thing could exist.
pub(crate) fn route(
    domain: Option<&Domain>,
    method: &Method,
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Route, Error> {
    let malformed = |message: String| Error::new(ErrorKind::Malformed, message);
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if target.len() > MAX_TARGET {
        return Err(malformed(format!("path and query are longer than {MAX_TARGET} bytes")));
    }
    if *method == Method::CONNECT {
        return Err(Error::new(ErrorKind::Method, "CONNECT is not for this server: it is no proxy"));
    }
    if uri.scheme_str().is_some_and(|s| s != "http" && s != "https") {
        return Err(malformed("the request's scheme is neither http nor https".to_owned()));
    }
    // The library takes any list that ends in `chunked`; a server before us might not (RFC 9112, section 6.1).
    let codings = headers.get_all(http::header::TRANSFER_ENCODING);
    if codings.iter().count() > 1 || codings.iter().any(|c| !c.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(malformed("transfer-encoding must be chunked, once".to_owned()));
    }
    let authority = authority(version, uri, headers)?;
    let path = uri.path();
    if path == "*" {
        return if *method == Method::OPTIONS {
            Ok(Route::Server)
        } else {
            Err(malformed("no path".to_owned()))
        };
    }
    if !path.starts_with('/') {
        return Err(malformed("a path begins with a slash".to_owned()));
    }
    // Everything on a function's own host is the function's: nothing of the platform shares its origin.
    if let (Some(domain), Some(authority)) = (domain, &authority)
        && let Some((function, tenant)) = domain.function(authority.host())?
    {
        let rest = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let (alias, place) = (AliasName::live(), Place::Host);
        let target = Box::new(Target { tenant, function, alias, place, authority: authority.clone(), rest });
        return Ok(if is_upgrade(headers) { Route::Socket(target) } else { Route::Function(target) });
    }
    match path {
        "/healthz" => return Ok(Route::Live),
        "/readyz" => return Ok(Route::Ready),
        "/stripe/webhook" => return Ok(Route::Webhook),
        "/billing/done" => return Ok(Route::Done),
        _ => {}
    }
    if path == "/api" || path.starts_with("/api/") {
        return Ok(Route::Control);
    }
    let below = [("/fn", false), ("/ws/fn", true)];
    let below = below
        .into_iter()
        .find_map(|(prefix, socket)| Some((prefix, socket, path.strip_prefix(prefix)?.strip_prefix('/')?)));
    let Some((prefix, socket, rest)) = below else { return Ok(Route::Nothing) };
    let authority = authority.ok_or_else(|| malformed("a request needs one valid Host header".to_owned()))?;
    let target = Box::new(function(prefix, rest, uri.query(), authority)?);
    Ok(if socket { Route::Socket(target) } else { Route::Function(target) })
}

/// Whether the client asks for a WebSocket (RFC 6455, section 4.2.1).
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let value = headers.get(http::header::UPGRADE);
    value.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn function(prefix: &str, path: &str, query: Option<&str>, authority: Authority) -> Result<Target, Error> {
    let malformed = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Malformed, e.to_string());
    let mut parts = path.splitn(3, '/');
    let tenant = parts.next().unwrap_or_default();
    let Some(function) = parts.next() else {
        return Err(malformed(&format_args!("a trigger's path is {prefix}/{{tenant}}/{{function}}")));
    };
    let rest = parts.next().unwrap_or_default();
    let (name, alias) = match function.split_once('@') {
        Some((name, alias)) => (name, alias.parse().map_err(|e| malformed(&e))?),
        None => (function, AliasName::live()),
    };
    let place = Place::Path(format!("{prefix}/{tenant}/{function}"));
    let rest = match query {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    };
    Ok(Target {
        tenant: tenant.parse().map_err(|e| malformed(&e))?,
        function: name.parse().map_err(|e| malformed(&e))?,
        alias,
        place,
        authority,
        rest: rest.parse().map_err(|e| malformed(&e))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(host: &str, target: &str, upgrade: bool) -> Result<Route, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::HOST, host.parse().unwrap());
        if upgrade {
            headers.insert(http::header::UPGRADE, "WebSocket".parse().unwrap());
        }
        let domain = "fn.test".parse().unwrap();
        route(Some(&domain), &Method::GET, Version::HTTP_11, &target.parse().unwrap(), &headers)
    }

    fn target(uri: &str) -> Target {
        match find("x", uri, false) {
            Ok(Route::Function(target)) => *target,
            other => panic!("{uri}: {other:?}"),
        }
    }

    #[test]
    fn splits_a_trigger() {
        let t = target("/fn/dev/classify@canary/a/b?x=1");
        assert_eq!((t.tenant.as_str(), t.function.as_str(), t.alias.as_str()), ("dev", "classify", "canary"));
        assert_eq!(
            (t.place, t.rest.as_str()),
            (Place::Path("/fn/dev/classify@canary".to_owned()), "/a/b?x=1")
        );
        assert_eq!(target("/fn/dev/f").rest.as_str(), "/");
        assert_eq!(target("/fn/dev/f?q").rest.as_str(), "/?q");
        assert_eq!(target("/fn/dev/f//x").rest.as_str(), "//x");
        assert_eq!(target("/fn/dev/f/../../x").rest.as_str(), "/../../x");
    }

    #[test]
    fn everything_on_a_functions_host_is_the_functions() {
        for path in [
            "/",
            "/healthz",
            "/stripe/webhook",
            "/api/v1/tenants",
            "/fn/dev/other",
            "/ws/fn/dev/other",
            "/x?y",
        ] {
            let Ok(Route::Function(t)) = find("f--dev.fn.test:8080", path, false) else { panic!("{path}") };
            assert_eq!((t.function.as_str(), t.tenant.as_str()), ("f", "dev"));
            assert_eq!((t.place, t.rest.as_str()), (Place::Host, path));
        }
        assert!(matches!(find("f--dev.fn.test", "/x", true), Ok(Route::Socket(_))));
        assert!(find("f.fn.test", "/", false).is_err());
        assert!(matches!(find("fn.test", "/healthz", false), Ok(Route::Live)));
    }

    #[test]
    fn refuses_what_is_not_a_name() {
        for bad in [
            "/fn/dev",
            "/fn//f",
            "/fn/dev/",
            "/fn/dev/../x",
            "/fn/dev/a%2e",
            "/fn/de--v/f",
            "/fn/dev/f@",
            "/fn/Dev/f",
            "/ws/fn/dev",
            "/ws/fn/dev/F",
        ] {
            assert!(find("x", bad, false).is_err(), "{bad}");
        }
        assert!(find("x", &format!("/fn/dev/f?{}", "x".repeat(9000)), false).is_err());
        assert!(matches!(find("x", "/", false), Ok(Route::Nothing)));
        assert!(matches!(find("x", "/apix", false), Ok(Route::Nothing)));
        assert!(matches!(find("x", "/ws/v1/infer", false), Ok(Route::Nothing)));
        assert!(matches!(find("x", "/stripe/webhooks", false), Ok(Route::Nothing)));
        assert!(matches!(find("x", "/stripe/webhook?a=b", false), Ok(Route::Webhook)));
        assert!(matches!(find("x", "/api/v1/x", false), Ok(Route::Control)));
        assert!(matches!(find("x", "/ws/fn/dev/f", false), Ok(Route::Socket(_))));
    }

    #[test]
    fn forms_of_the_request_line() {
        let asked = |method: Method, target: &str| {
            route(None, &method, Version::HTTP_2, &target.parse().unwrap(), &HeaderMap::new())
        };
        assert!(matches!(asked(Method::GET, "http://x/fn/dev/f"), Ok(Route::Function(_))));
        assert!(asked(Method::GET, "ftp://x/fn/dev/f").is_err());
        assert_eq!(asked(Method::CONNECT, "x:443").unwrap_err().kind, ErrorKind::Method);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::HOST, "x".parse().unwrap());
        let star = |method| route(None, &method, Version::HTTP_11, &"*".parse().unwrap(), &headers);
        assert!(matches!(star(Method::OPTIONS), Ok(Route::Server)));
        assert!(star(Method::GET).is_err());
    }
}
