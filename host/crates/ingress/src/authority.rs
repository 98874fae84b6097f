use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri, Version};
use wasmeter_types::{Error, ErrorKind, FunctionName, TenantName};

/// The domain below which every function has a host name of its own: `{function}--{tenant}.{domain}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain(String);

/// A text that is not a domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a domain name: write it like \"functions.example.com\", without port and wildcard")]
pub struct DomainError(String);

impl std::str::FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let label = |l: &str| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            (1..=63).contains(&l.len()) && l.bytes().all(inner) && !l.starts_with('-') && !l.ends_with('-')
        };
        // A name of the platform's own must never read as one of a function.
        if text.len() > 190 || !text.split('.').all(label) || text.contains("--") {
            return Err(DomainError(text.chars().take(64).collect()));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Domain {
    /// What is left of `.{domain}` in a host, in small letters.
    fn label(&self, host: &str) -> Option<String> {
        // A dot at the end names the same host (RFC 1034, section 3.1).
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        Some(host.strip_suffix(&self.0)?.strip_suffix('.')?.to_owned())
    }

    /// The function that a host names; none for hosts that are not below the domain.
    ///
    /// # Errors
    /// 400 for a host below the domain that cannot be a function's.
    pub(crate) fn function(&self, host: &str) -> Result<Option<(FunctionName, TenantName)>, Error> {
        let Some(label) = self.label(host) else { return Ok(None) };
        let malformed = |why: &str| {
            let message = format!("a function's host name is {{function}}--{{tenant}}.{self}: {why}");
            Error::new(ErrorKind::Malformed, message)
        };
        let (function, tenant) = label.split_once("--").ok_or_else(|| malformed("\"--\" is missing"))?;
        let function = function.parse().map_err(|e: wasmeter_types::NameError| malformed(&e.to_string()))?;
        let tenant = tenant.parse().map_err(|e: wasmeter_types::NameError| malformed(&e.to_string()))?;
        Ok(Some((function, tenant)))
    }
}

/// The one host that a request names: in the request line (HTTP/2, absolute form) or in `Host`, and where in both, the
/// same (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
///
/// # Errors
/// 400 for none (but in HTTP/1.0), two, different ones, or what is no host.
pub(crate) fn authority(
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<Authority>, Error> {
    let malformed = || Error::new(ErrorKind::Malformed, "a request needs one valid Host header");
    let mut hosts = headers.get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(malformed());
    }
    let header: Option<Authority> = match header {
        Some(value) => Some(value.to_str().ok().and_then(|v| v.parse().ok()).ok_or_else(malformed)?),
        None => None,
    };
    let named = match (uri.authority(), header) {
        (Some(line), Some(header)) if *line != header => return Err(malformed()),
        (Some(line), _) => line.clone(),
        (None, Some(header)) => header,
        (None, None) if version < Version::HTTP_11 => return Ok(None),
        (None, None) => return Err(malformed()),
    };
    let text = named.as_str();
    let host = named.host();
    // What follows the host must be a port and nothing else.
    let port = text.get(host.len()..).unwrap_or("?");
    let good_port = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok());
    if host.is_empty() || text.contains('@') || !good_port {
        return Err(malformed());
    }
    Ok(Some(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_name() {
        let domain: Domain = "Functions.Example.com".parse().unwrap();
        assert_eq!(domain.to_string(), "functions.example.com");
        for bad in ["", ".", "a..b", "-a.b", "a.b-", "a_b", "*.a", "a:80", "a--b.c", "ä.de", &"x".repeat(64)]
        {
            assert!(bad.parse::<Domain>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_names_a_function() {
        let domain: Domain = "fn.test".parse().unwrap();
        let found = |host: &str| domain.function(host).map(|f| f.map(|(f, t)| format!("{f} of {t}")));
        for host in ["classify--dev.fn.test", "CLASSIFY--dev.FN.test", "classify--dev.fn.test."] {
            assert_eq!(found(host).unwrap().unwrap(), "classify of dev", "{host}");
        }
        for other in
            ["fn.test", "example.com", "127.0.0.1", "classify--dev.fn.test.evil.com", "xfn.test", "[::1]"]
        {
            assert!(found(other).unwrap().is_none(), "{other}");
        }
        for bad in [
            "dev.fn.test",
            "a.b--c.fn.test",
            "--dev.fn.test",
            "a----b.fn.test",
            "a--b--c.fn.test",
            "x--.fn.test",
        ] {
            assert_eq!(found(bad).unwrap_err().kind, ErrorKind::Malformed, "{bad}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let named = |uri: &str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            authority(Version::HTTP_11, &uri.parse().unwrap(), &headers).map(|a| a.unwrap().to_string())
        };
        assert_eq!(named("/", &["a:80"]).unwrap(), "a:80");
        assert_eq!(named("/", &["[::1]:8080"]).unwrap(), "[::1]:8080");
        assert_eq!(named("http://a/x", &["A"]).unwrap(), "a");
        for (uri, hosts) in [
            ("/", &[] as &[&str]),
            ("/", &["a", "b"]),
            ("/", &["a", "a"]),
            ("http://a/", &["b"]),
            ("http://u@a/", &[]),
            ("/", &[""]),
            ("/", &["a b"]),
            ("/", &["a/b"]),
            ("/", &["u@a"]),
            ("/", &["a:b"]),
            ("/", &["a:99999"]),
            ("/", &["a:"]),
            ("/", &[":80"]),
        ] {
            assert!(named(uri, hosts).is_err(), "{uri} {hosts:?}");
        }
        let none = authority(Version::HTTP_10, &"/".parse().unwrap(), &HeaderMap::new());
        assert!(none.unwrap().is_none());
    }
}
