use http::Uri;
use http::uri::PathAndQuery;
use wasmeter_types::{AliasName, Error, ErrorKind, FunctionName, TenantName};

/// A longer path with query is refused.
const MAX_TARGET: usize = 8 << 10;

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Route {
    /// `/fn/{tenant}/{function}[@{alias}][/…]`.
    Function(Box<Target>),
    /// `/api/…`.
    Control,
    /// `/healthz`.
    Live,
    /// `/readyz`.
    Ready,
    /// Nothing is there.
    Nothing,
}

/// A function that is triggered.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) tenant: TenantName,
    pub(crate) function: FunctionName,
    pub(crate) alias: AliasName,
    /// `/fn/{tenant}/{function}[@{alias}]`: the part of the site that is the function's own.
    pub(crate) prefix: String,
    /// What the guest sees.
    pub(crate) rest: PathAndQuery,
}

/// Finds the route; text that cannot be a name is malformed, whether or not such a thing could exist.
pub(crate) fn route(uri: &Uri) -> Result<Route, Error> {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if target.len() > MAX_TARGET {
        return Err(Error::new(
            ErrorKind::Malformed,
            format!("path and query are longer than {MAX_TARGET} bytes"),
        ));
    }
    let path = uri.path();
    match path {
        "/healthz" => return Ok(Route::Live),
        "/readyz" => return Ok(Route::Ready),
        _ => {}
    }
    if path == "/api" || path.starts_with("/api/") {
        return Ok(Route::Control);
    }
    match path.strip_prefix("/fn/") {
        Some(rest) => function(rest, uri.query()).map(|t| Route::Function(Box::new(t))),
        None => Ok(Route::Nothing),
    }
}

fn function(path: &str, query: Option<&str>) -> Result<Target, Error> {
    let malformed = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Malformed, e.to_string());
    let mut parts = path.splitn(3, '/');
    let tenant = parts.next().unwrap_or_default();
    let Some(function) = parts.next() else {
        return Err(malformed(&"a trigger's path is /fn/{tenant}/{function}"));
    };
    let rest = parts.next().unwrap_or_default();
    let (name, alias) = match function.split_once('@') {
        Some((name, alias)) => (name, alias.parse().map_err(|e| malformed(&e))?),
        None => (function, AliasName::live()),
    };
    let prefix = format!("/fn/{tenant}/{function}");
    let rest = match query {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    };
    Ok(Target {
        tenant: tenant.parse().map_err(|e| malformed(&e))?,
        function: name.parse().map_err(|e| malformed(&e))?,
        alias,
        prefix,
        rest: rest.parse().map_err(|e| malformed(&e))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Target {
        match route(&uri.parse().unwrap()) {
            Ok(Route::Function(target)) => *target,
            other => panic!("{uri}: {other:?}"),
        }
    }

    #[test]
    fn splits_a_trigger() {
        let t = target("/fn/dev/classify@canary/a/b?x=1");
        assert_eq!((t.tenant.as_str(), t.function.as_str(), t.alias.as_str()), ("dev", "classify", "canary"));
        assert_eq!((t.prefix.as_str(), t.rest.as_str()), ("/fn/dev/classify@canary", "/a/b?x=1"));
        assert_eq!(target("/fn/dev/f").rest.as_str(), "/");
        assert_eq!(target("/fn/dev/f?q").rest.as_str(), "/?q");
        assert_eq!(target("/fn/dev/f//x").rest.as_str(), "//x");
        assert_eq!(target("/fn/dev/f/../../x").rest.as_str(), "/../../x");
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
        ] {
            assert!(route(&bad.parse().unwrap()).is_err(), "{bad}");
        }
        assert!(route(&format!("/fn/dev/f?{}", "x".repeat(9000)).parse().unwrap()).is_err());
        assert!(matches!(route(&"/".parse().unwrap()), Ok(Route::Nothing)));
        assert!(matches!(route(&"/apix".parse().unwrap()), Ok(Route::Nothing)));
        assert!(matches!(route(&"/api/v1/x".parse().unwrap()), Ok(Route::Control)));
    }
}
