use std::fmt;
use std::str::FromStr;

use wasmeter_types::{Error, ErrorKind, TenantName};

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything, for every tenant.
    Operator,
    /// Change the tenant's functions.
    Deploy,
    /// Trigger the tenant's functions and call models.
    Invoke,
    /// Read the tenant's functions, logs, usage and bill.
    Read,
}

/// A set of scopes; in a token, the space-separated words of the claim `scope` (RFC 8693, section 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

/// An unknown word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scope {0:?} is not known: use operator, deploy, invoke or read")]
pub struct ScopesError(String);

impl Scope {
    const ALL: [Scope; 4] = [Scope::Operator, Scope::Deploy, Scope::Invoke, Scope::Read];

    /// The word in the claim.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Operator => "operator",
            Scope::Deploy => "deploy",
            Scope::Invoke => "invoke",
            Scope::Read => "read",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Scopes {
    /// All that a tenant can have.
    #[must_use]
    pub fn tenant() -> Self {
        [Scope::Deploy, Scope::Invoke, Scope::Read].into_iter().collect()
    }

    /// Whether it is in the set; an operator has every scope.
    #[must_use]
    pub fn has(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Operator.bit()) != 0
    }

    /// Whether all of `other` is in the set.
    #[must_use]
    pub fn covers(self, other: Scopes) -> bool {
        Scope::ALL.into_iter().filter(|s| other.0 & s.bit() != 0).all(|s| self.has(s))
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, s| bits | s.bit()))
    }
}

impl FromStr for Scopes {
    type Err = ScopesError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let find = |word: &str| {
            Scope::ALL
                .into_iter()
                .find(|s| s.as_str() == word)
                .ok_or_else(|| ScopesError(word.chars().take(40).collect()))
        };
        s.split_ascii_whitespace().map(find).collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> =
            Scope::ALL.into_iter().filter(|s| self.0 & s.bit() != 0).map(Scope::as_str).collect();
        f.write_str(&words.join(" "))
    }
}

/// Who is calling, as a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// For logs and the audit trail.
    pub subject: String,
    /// The tenant; none for an operator's token.
    pub tenant: Option<TenantName>,
    /// What it allows.
    pub scopes: Scopes,
}

impl Principal {
    /// Refuses what the token does not allow. Another tenant's thing is as unknown as one that is not there.
    ///
    /// # Errors
    /// 404 for another tenant, 403 for a missing scope.
    pub fn may(&self, tenant: &TenantName, scope: Scope) -> Result<(), Error> {
        if self.is_operator() {
            return Ok(());
        }
        if self.tenant.as_ref() != Some(tenant) {
            return Err(Error::not_found());
        }
        if !self.scopes.has(scope) {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!(
                    "the token has no scope `{}`: make one with `wasmeter token --scope {0}`",
                    scope.as_str()
                ),
            ));
        }
        Ok(())
    }

    /// Refuses everyone but an operator.
    ///
    /// # Errors
    /// 403.
    pub fn operator(&self) -> Result<(), Error> {
        if self.is_operator() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Forbidden, "an operator's token is needed; it is in <data>/operator-token"))
    }

    /// Whether the token is an operator's.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.scopes.has(Scope::Operator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_and_cover() {
        let scopes: Scopes = "invoke read".parse().unwrap();
        assert_eq!(scopes.to_string(), "invoke read");
        assert!(Scopes::tenant().covers(scopes));
        assert!(!scopes.covers(Scopes::tenant()));
        assert!(!Scopes::tenant().has(Scope::Operator));
        assert!("operator".parse::<Scopes>().unwrap().covers(Scopes::tenant()));
        assert!("invoke root".parse::<Scopes>().is_err());
    }

    #[test]
    fn another_tenant_is_unknown_and_a_missing_scope_is_forbidden() {
        let (a, b): (TenantName, TenantName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let p = Principal { subject: "x".into(), tenant: Some(a.clone()), scopes: "read".parse().unwrap() };
        assert!(p.may(&a, Scope::Read).is_ok());
        assert_eq!(p.may(&a, Scope::Deploy).unwrap_err().kind, ErrorKind::Forbidden);
        assert_eq!(p.may(&b, Scope::Read).unwrap_err().message, Error::not_found().message);
        assert_eq!(p.operator().unwrap_err().kind, ErrorKind::Forbidden);
    }
}
