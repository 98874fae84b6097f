use std::fmt;
use std::net::SocketAddr;

use hyper::Uri;
use hyper::http::uri::{Authority, Scheme};

use crate::Secret;

/// The address of Stripe itself.
pub const STRIPE: &str = "https://api.stripe.com";

/// Whose money a ledger counts: the word that it is stamped with for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Money {
    /// Play money of the twin.
    Twin,
    /// Stripe's test mode.
    Test,
    /// Customers'.
    Live,
}

/// Where requests go, checked against the ledger's stamp and the key.
#[derive(Clone, Debug)]
pub struct Endpoint {
    scheme: Scheme,
    authority: Authority,
}

/// Address, key and ledger do not belong together. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a base address.
    #[error("stripe address {0:?} is not like {STRIPE} or http://127.0.0.1:12111")]
    Address(String),
    /// Play money stays on this machine.
    #[error(
        "the ledger is stamped `twin` for ever and {0} is not a loopback address; start the twin, or use a data directory of its own for Stripe"
    )]
    TwinAway(String),
    /// Real usage goes to Stripe and nowhere else.
    #[error(
        "the ledger is stamped `{stamp}` for ever and {address} is not {STRIPE}; use a data directory of its own for the twin"
    )]
    NotStripe {
        /// Of the ledger.
        stamp: &'static str,
        /// Asked for.
        address: String,
    },
    /// The key is for another kind of money.
    #[error(
        "the ledger is stamped `{stamp}` for ever and the key {found}; use a key that begins with {wanted}"
    )]
    Key {
        /// Of the ledger.
        stamp: &'static str,
        /// What the key is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
}

impl Money {
    /// The ledger's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Money::Twin => "twin",
            Money::Test => "test",
            Money::Live => "live",
        }
    }
}

impl Endpoint {
    /// Checks that ledger, address and key belong together: a ledger of the twin is sent to a loopback address only
    /// and never with a live key, any other to Stripe alone with a key of its own mode.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn new(address: &str, money: Money, key: &Secret) -> Result<Self, EndpointError> {
        let uri: Uri = address.parse().map_err(|_| EndpointError::Address(address.to_owned()))?;
        let parts = uri.into_parts();
        let path_is_root = parts.path_and_query.as_ref().is_none_or(|p| p.as_str() == "/");
        let (Some(scheme), Some(authority), true) = (parts.scheme, parts.authority, path_is_root) else {
            return Err(EndpointError::Address(address.to_owned()));
        };
        let stamp = money.as_str();
        let is_stripe = format!("{scheme}://{authority}") == STRIPE;
        match money {
            Money::Twin => {
                let loopback =
                    authority.as_str().parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
                if scheme != Scheme::HTTP || !loopback {
                    return Err(EndpointError::TwinAway(address.to_owned()));
                }
                if mode(key) == Some(Money::Live) {
                    return Err(EndpointError::Key { stamp, found: "is a live key", wanted: "sk_test_" });
                }
            }
            _ if !is_stripe => {
                return Err(EndpointError::NotStripe { stamp, address: address.to_owned() });
            }
            Money::Test if mode(key) != Some(Money::Test) => {
                return Err(EndpointError::Key {
                    stamp,
                    found: "is none of test mode",
                    wanted: "sk_test_ or rk_test_",
                });
            }
            Money::Live if mode(key) != Some(Money::Live) => {
                return Err(EndpointError::Key {
                    stamp,
                    found: "is none of live mode",
                    wanted: "sk_live_ or rk_live_",
                });
            }
            Money::Test | Money::Live => {}
        }
        Ok(Self { scheme, authority })
    }

    /// The full address of a path with its query.
    pub(crate) fn uri(&self, path_and_query: &str) -> Result<Uri, hyper::http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path_and_query)
            .build()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// The mode of a secret or restricted key (Stripe documentation, "API keys").
fn mode(key: &Secret) -> Option<Money> {
    let rest = key.expose().strip_prefix("sk_").or_else(|| key.expose().strip_prefix("rk_"))?;
    if rest.starts_with("test_") {
        Some(Money::Test)
    } else if rest.starts_with("live_") {
        Some(Money::Live)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_goes_only_where_it_belongs() {
        let key = |text| Secret::parse(text).unwrap();
        let (test, live, other) = (key("sk_test_1"), key("rk_live_1"), key("twin"));
        let twin = "http://127.0.0.1:12111";
        let ok = [
            (twin, Money::Twin, &test),
            ("http://[::1]:9/", Money::Twin, &other),
            (STRIPE, Money::Test, &test),
            (STRIPE, Money::Live, &live),
        ];
        for (address, money, key) in ok {
            assert!(Endpoint::new(address, money, key).is_ok(), "{address} {money:?}");
        }
        let refused = [
            (STRIPE, Money::Twin, &test),
            ("http://10.0.0.1:80", Money::Twin, &test),
            ("http://localhost.example:80", Money::Twin, &test),
            (twin, Money::Twin, &live),
            (twin, Money::Test, &test),
            (twin, Money::Live, &live),
            ("http://api.stripe.com", Money::Live, &live),
            ("https://api.stripe.com.example", Money::Live, &live),
            ("https://api.stripe.com:444", Money::Test, &test),
            (STRIPE, Money::Test, &live),
            (STRIPE, Money::Live, &test),
            (STRIPE, Money::Live, &other),
            ("api.stripe.com", Money::Live, &live),
            ("https://api.stripe.com/v1", Money::Live, &live),
        ];
        for (address, money, key) in refused {
            assert!(Endpoint::new(address, money, key).is_err(), "{address} {money:?}");
        }
        let error = Endpoint::new(STRIPE, Money::Twin, &test).unwrap_err().to_string();
        assert!(error.contains("stamped `twin` for ever"), "{error}");
    }
}
