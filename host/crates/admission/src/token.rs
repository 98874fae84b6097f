use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use hashlink::LruCache;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use wasmeter_types::{Error, TenantName, unix_ns};

use crate::{Principal, Scopes};

/// `iss` of our tokens.
const ISSUER: &str = "wasmeter";
/// `aud` of our tokens.
const AUDIENCE: &str = "wasmeter-api";
/// Clock difference that `exp` and `nbf` are forgiven, in seconds.
const LEEWAY: u64 = 5;
/// A longer token is refused unread.
const MAX_TOKEN: usize = 4096;
/// Tokens whose signature need not be verified again. To verify one takes about 100 us, as long as a short call.
const REMEMBERED: usize = 1024;

/// The issuer's key: makes and verifies tokens (JWT, RFC 7519; EdDSA, RFC 8037). Cheap to clone.
#[derive(Clone)]
pub struct TokenKeys {
    inner: Arc<Inner>,
}

struct Inner {
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    /// Those that were good, by their SHA-256: a signature stays what it is, only time is looked at again.
    good: Mutex<LruCache<[u8; 32], Good>>,
}

struct Good {
    principal: Principal,
    nbf: u64,
    exp: u64,
}

impl Good {
    /// As `validation` has it.
    fn holds(&self, now: u64) -> bool {
        self.nbf <= now.saturating_add(LEEWAY) && self.exp >= now.saturating_sub(LEEWAY)
    }
}

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file does not hold an Ed25519 key.
    #[error("the token issuer's key is not a PKCS#8 Ed25519 key: {0}")]
    NotAKey(String),
    /// A token could not be signed.
    #[error("token: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// What a new token shall say.
#[derive(Clone, Debug)]
pub struct Grant {
    /// `sub`.
    pub subject: String,
    /// The tenant; none for an operator.
    pub tenant: Option<TenantName>,
    /// `scope`.
    pub scopes: Scopes,
    /// From now to `exp`.
    pub ttl: Duration,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    jti: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantName>,
}

impl TokenKeys {
    /// A new key as PKCS#8 bytes, to be kept where only the host reads.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn generate() -> Result<Vec<u8>, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|e| KeyError::NotAKey(e.to_string()))?;
        let der = pair.to_pkcs8v1().map_err(|e| KeyError::NotAKey(e.to_string()))?;
        Ok(der.as_ref().to_vec())
    }

    /// The keys of a PKCS#8 file.
    ///
    /// # Errors
    /// If it is not an Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair =
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|e| KeyError::NotAKey(e.to_string()))?;
        let public = pair.public_key().as_ref();
        let kid: String = digest::digest(&digest::SHA256, public).as_ref()[..8]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.algorithms = vec![Algorithm::EdDSA];
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
        validation.validate_exp = true;
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let inner = Inner {
            kid,
            encoding: EncodingKey::from_ed_der(der),
            decoding: DecodingKey::from_ed_der(public),
            validation,
            good: Mutex::new(LruCache::new(REMEMBERED)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A token of the grant.
    ///
    /// # Errors
    /// If signing fails.
    pub fn mint(&self, grant: Grant) -> Result<String, KeyError> {
        let now = unix_ns() / 1_000_000_000;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: grant.subject,
            jti: uuid::Uuid::now_v7().to_string(),
            iat: now,
            nbf: now,
            exp: now.saturating_add(grant.ttl.as_secs()),
            scope: grant.scopes.to_string(),
            tenant: grant.tenant,
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.inner.kid.clone());
        Ok(jsonwebtoken::encode(&header, &claims, &self.inner.encoding)?)
    }

    /// The principal of a token. Every reason to refuse looks the same.
    ///
    /// # Errors
    /// 401.
    pub fn verify(&self, token: &str) -> Result<Principal, Error> {
        self.try_verify(token).ok_or_else(Error::unauthenticated)
    }

    /// The principal of `Authorization: Bearer …` (RFC 6750); `None` if there is no such header.
    ///
    /// # Errors
    /// 401 for any other scheme, two headers, or a token that is not accepted.
    pub fn verify_header(&self, headers: &HeaderMap) -> Result<Option<Principal>, Error> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Error::unauthenticated());
        }
        let bearer = |v: &str| {
            let (scheme, token) = v.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        };
        let token = value.to_str().ok().and_then(bearer).ok_or_else(Error::unauthenticated)?;
        self.verify(&token).map(Some)
    }

    /// Whether a header's value holds a token that these keys name, good or not: what must not reach a guest.
    #[must_use]
    pub fn named_in(&self, value: &HeaderValue) -> bool {
        let text = String::from_utf8_lossy(value.as_bytes());
        // Whatever stands around it: a JWT is base64url and dots (RFC 7515, section 7.1).
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'));
        words.any(|word| {
            let header = jsonwebtoken::decode_header(word).ok();
            header.and_then(|h| h.kid).is_some_and(|kid| kid == self.inner.kid)
        })
    }

    fn try_verify(&self, token: &str) -> Option<Principal> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let hash: [u8; 32] = digest::digest(&digest::SHA256, token.as_bytes()).as_ref().try_into().ok()?;
        if let Some(good) = self.inner.good.lock().get(&hash) {
            return good.holds(unix_ns() / 1_000_000_000).then(|| good.principal.clone());
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.kid.as_deref() != Some(&self.inner.kid) {
            return None;
        }
        let claims =
            jsonwebtoken::decode::<Claims>(token, &self.inner.decoding, &self.inner.validation).ok()?.claims;
        let scopes: Scopes = claims.scope.parse().ok()?;
        let principal = Principal { subject: claims.sub, tenant: claims.tenant, scopes };
        let good = Good { principal: principal.clone(), nbf: claims.nbf, exp: claims.exp };
        self.inner.good.lock().insert(hash, good);
        Some(principal)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as B64;

    use super::*;

    fn keys() -> TokenKeys {
        TokenKeys::from_pkcs8(&TokenKeys::generate().unwrap()).unwrap()
    }

    fn grant() -> Grant {
        Grant {
            subject: "test".into(),
            tenant: Some("dev".parse().unwrap()),
            scopes: Scopes::tenant(),
            ttl: Duration::from_secs(60),
        }
    }

    #[test]
    fn a_minted_token_verifies() {
        let keys = keys();
        let principal = keys.verify(&keys.mint(grant()).unwrap()).unwrap();
        assert_eq!(principal.tenant.unwrap().as_str(), "dev");
        assert_eq!(principal.scopes, Scopes::tenant());
    }

    #[test]
    fn refuses_every_other_token_alike() {
        let keys = keys();
        let good = keys.mint(grant()).unwrap();
        let parts: Vec<&str> = good.split('.').collect();
        let claims = |f: &dyn Fn(&mut serde_json::Value)| {
            let mut v: serde_json::Value = serde_json::from_slice(&B64.decode(parts[1]).unwrap()).unwrap();
            f(&mut v);
            let mut header = Header::new(Algorithm::EdDSA);
            header.kid = Some(keys.inner.kid.clone());
            jsonwebtoken::encode(&header, &v, &keys.inner.encoding).unwrap()
        };
        assert!(keys.verify(&claims(&|_| ())).is_ok());
        let none = B64.encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, keys.inner.kid));
        let bad = [
            String::new(),
            "a.b.c".to_owned(),
            "x".repeat(10_000),
            format!("{none}.{}.", parts[1]),
            format!("{}.{}.{}", parts[0], B64.encode(r#"{"scope":"operator"}"#), parts[2]),
            claims(&|v| v["exp"] = 1_000.into()),
            claims(&|v| v["nbf"] = 99_999_999_999u64.into()),
            claims(&|v| v["aud"] = "other".into()),
            claims(&|v| v["iss"] = "other".into()),
            claims(&|v| drop(v.as_object_mut().unwrap().remove("exp"))),
            claims(&|v| v["scope"] = "everything".into()),
            super::tests::keys().mint(grant()).unwrap(),
        ];
        for token in bad {
            let error = keys.verify(&token).unwrap_err();
            assert_eq!(error.message, Error::unauthenticated().message, "{token}");
        }
    }

    #[test]
    fn a_token_that_was_good_once_ends_like_any_other() {
        let principal = Principal { subject: "test".into(), tenant: None, scopes: Scopes::tenant() };
        let good = Good { principal, nbf: 100, exp: 200 };
        let holds = [94, 95, 205, 206].map(|now| good.holds(now));
        assert_eq!(holds, [false, true, true, false]);
        let keys = keys();
        let token = keys.mint(grant()).unwrap();
        let first = keys.verify(&token).unwrap();
        assert_eq!(keys.verify(&token).unwrap(), first);
        keys.inner.good.lock().iter_mut().for_each(|(_, good)| good.exp = 1);
        assert!(keys.verify(&token).is_err());
    }

    #[test]
    fn no_more_tokens_are_remembered_than_there_is_room_for() {
        let keys = keys();
        for _ in 0..REMEMBERED + 10 {
            keys.verify(&keys.mint(grant()).unwrap()).unwrap();
        }
        assert_eq!(keys.inner.good.lock().len(), REMEMBERED);
    }

    #[test]
    fn headers() {
        let keys = keys();
        let token = keys.mint(grant()).unwrap();
        let header = |values: &[&str]| {
            let mut map = HeaderMap::new();
            for value in values {
                map.append(AUTHORIZATION, value.parse().unwrap());
            }
            keys.verify_header(&map)
        };
        assert!(header(&[]).unwrap().is_none());
        assert!(header(&[&format!("bearer {token}")]).unwrap().is_some());
        assert!(header(&["Basic eDp5"]).is_err());
        assert!(header(&[&format!("Bearer {token}"), &format!("Bearer {token}")]).is_err());
    }

    #[test]
    fn a_token_is_found_wherever_it_stands() {
        let keys = keys();
        let token = keys.mint(grant()).unwrap();
        let expired = keys.mint(Grant { ttl: Duration::ZERO, ..grant() }).unwrap();
        for ours in
            [format!("Bearer {token}"), format!("Bearer\t{token}"), format!("x=\"{expired}\", y"), token]
        {
            assert!(keys.named_in(&ours.parse().unwrap()), "{ours}");
        }
        let other = super::tests::keys().mint(grant()).unwrap();
        for theirs in ["", "Basic eDp5", "Bearer a.b.c", &format!("Bearer {other}")] {
            assert!(!keys.named_in(&theirs.parse().unwrap()), "{theirs}");
        }
    }
}
