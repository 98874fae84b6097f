use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The longest name of a host (RFC 1035, section 2.3.4).
const HOST_BYTES: usize = 253;

/// Scheme, host and port: what an allow-list of outbound HTTP is made of (RFC 6454). Two origins are equal if all three
/// are, whatever the case of the name and whether the scheme's own port is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `https`, not `http`.
    pub secure: bool,
    /// A name in small letters, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// The text is not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{got:?} is not an origin: {reason}; write \"https://api.example.com\" or \"https://api.example.com:8443\""
)]
pub struct ParseOriginError {
    got: String,
    reason: &'static str,
}

impl Origin {
    /// From the parts of a request: `authority` is `host` or `host:port`, IPv6 in brackets.
    ///
    /// # Errors
    /// Says which part is not acceptable, for the author of the function.
    pub fn of(secure: bool, authority: &str) -> Result<Self, ParseOriginError> {
        let fail =
            |reason| Err(ParseOriginError { got: authority.chars().take(HOST_BYTES).collect(), reason });
        if authority.contains('@') {
            return fail("a user or password stands before the host");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => (host, port),
                _ => return fail("what stands in brackets is no IPv6 address"),
            },
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => {
                if secure {
                    443
                } else {
                    80
                }
            }
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
                Ok(port) if port > 0 => port,
                _ => return fail("the port is not 1 to 65535"),
            },
            _ => return fail("the port is not a number"),
        };
        let host = match host.parse::<Ipv6Addr>() {
            // One spelling of each address.
            Ok(address) => address.to_string(),
            Err(_) => host.to_ascii_lowercase(),
        };
        if !host.contains(':') && !is_name(&host) {
            return fail(
                "the host is no name or address (names beyond ASCII are written in their xn-- form)",
            );
        }
        Ok(Self { secure, host, port })
    }

    /// The host with its port, IPv6 in brackets: what a `Host` header says, without the scheme's own port.
    #[must_use]
    pub fn authority(&self) -> String {
        let own = if self.secure { 443 } else { 80 };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == own { host } else { format!("{host}:{}", self.port) }
    }
}

/// Labels of letters, digits, `-` and `_`, none empty: no wildcard, no dot at the end.
fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    host.parse::<Ipv4Addr>().is_ok() || (host.len() <= HOST_BYTES && host.split('.').all(label))
}

impl FromStr for Origin {
    type Err = ParseOriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| ParseOriginError { got: text.chars().take(HOST_BYTES).collect(), reason };
        let (secure, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            _ => return Err(fail("it does not start with https:// or http://")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(fail("an origin has no path"));
        }
        Self::of(secure, authority).map_err(|e| fail(e.reason))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_of_each() {
        for (text, shown) in [
            ("https://API.example.com", "https://api.example.com"),
            ("https://api.example.com:443/", "https://api.example.com"),
            ("http://api.example.com:443", "http://api.example.com:443"),
            ("HTTP://127.0.0.1:80", "http://127.0.0.1"),
            ("https://[2001:DB8:0::1]:8443", "https://[2001:db8::1]:8443"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ] {
            let origin: Origin = text.parse().unwrap();
            assert_eq!(origin.to_string(), shown);
            assert_eq!(shown.parse::<Origin>().unwrap(), origin);
        }
    }

    #[test]
    fn what_is_none_says_why() {
        for (text, reason) in [
            ("api.example.com", "https://"),
            ("ftp://a", "https://"),
            ("https://", "no name"),
            ("https://a/b", "path"),
            ("https://a?b", "path"),
            ("https://user:pw@a", "user"),
            ("https://*.example.com", "no name"),
            ("https://a..b", "no name"),
            ("https://a.", "no name"),
            ("https://bücher.example", "xn--"),
            ("https://a:0", "port"),
            ("https://a:70000", "port"),
            ("https://a:+80", "port"),
            ("https://a:80:80", "port"),
            ("https://[::1", "IPv6"),
            ("https://[::1]x", "port"),
            ("https://a b", "no name"),
        ] {
            let error = text.parse::<Origin>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
