use aws_lc_rs::hmac;

use crate::Secret;

/// How far the signed time may lie from ours, both ways, in seconds: Stripe's own default.
pub const TOLERANCE: i64 = 300;

/// Signatures that are looked at: Stripe sends one for each secret that is in force, two while one is rolled.
const MAX_SIGNATURES: usize = 8;

/// Why a webhook is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No readable `Stripe-Signature` header.
    #[error("the Stripe-Signature header is missing or malformed")]
    Malformed,
    /// None of its signatures is ours.
    #[error("no signature fits; is this the signing secret of this endpoint?")]
    Wrong,
    /// Signed too long ago, or a replay.
    #[error("it was signed more than {TOLERANCE} s ago; is the clock right?")]
    Old,
    /// Signed in the future.
    #[error("it was signed more than {TOLERANCE} s ahead of our clock; is the clock right?")]
    Early,
}

/// Checks a webhook's signature over its body, byte for byte as it came, against the endpoint's secret (Stripe
/// documentation, "Verify webhook signatures manually"), and its time on both sides.
///
/// # Errors
/// [`SignatureError`].
pub fn verify(header: &str, body: &[u8], secret: &Secret, now: i64) -> Result<(), SignatureError> {
    let mut time = None;
    let mut signatures = Vec::new();
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", value)) if time.is_none() => time = Some(value),
            Some(("t", _)) => return Err(SignatureError::Malformed),
            Some(("v1", value)) if signatures.len() < MAX_SIGNATURES => signatures.push(value),
            _ => {}
        }
    }
    let time = time.ok_or(SignatureError::Malformed)?;
    let signed: i64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut message = Vec::with_capacity(time.len() + 1 + body.len());
    message.extend_from_slice(time.as_bytes());
    message.push(b'.');
    message.extend_from_slice(body);
    let fits = signatures.iter().any(|text| {
        hex::decode(text).is_ok_and(|signature| hmac::verify(&key, &message, &signature).is_ok())
    });
    // The signature first: who cannot sign learns nothing about our clock.
    if !fits {
        return Err(SignatureError::Wrong);
    }
    if signed < now.saturating_sub(TOLERANCE) {
        return Err(SignatureError::Old);
    }
    if signed > now.saturating_add(TOLERANCE) {
        return Err(SignatureError::Early);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(secret: &Secret, time: &str, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        hex::encode(hmac::sign(&key, &[time.as_bytes(), b".", body].concat()))
    }

    #[test]
    fn believes_what_is_signed_now() {
        let secret = Secret::parse("whsec_1").unwrap();
        let other = Secret::parse("whsec_2").unwrap();
        let body = br#"{"id":"evt_1"}"#;
        let good = sign(&secret, "1000", body);
        let check = |header: &str, now| verify(header, body, &secret, now);
        let header = format!("t=1000,v1={good}");
        assert_eq!(check(&header, 1000), Ok(()));
        assert_eq!(check(&header, 1300), Ok(()));
        assert_eq!(check(&header, 1301), Err(SignatureError::Old));
        assert_eq!(check(&header, 700), Ok(()));
        assert_eq!(check(&header, 699), Err(SignatureError::Early));
        // While a secret is rolled there are two.
        let rolled = format!("t=1000, v1={}, v1={good}, v0=00", sign(&other, "1000", body));
        assert_eq!(check(&rolled, 1000), Ok(()));
        for (bad, error) in [
            (format!("t=1001,v1={good}"), SignatureError::Wrong),
            (format!("t=1000,v1={}", sign(&other, "1000", body)), SignatureError::Wrong),
            (format!("t=1000,v0={good}"), SignatureError::Wrong),
            (format!("t=1000,v1={}", &good[..62]), SignatureError::Wrong),
            (format!("v1={good}"), SignatureError::Malformed),
            (format!("t=x,v1={good}"), SignatureError::Malformed),
            (format!("t=1000,t=1000,v1={good}"), SignatureError::Malformed),
            (String::new(), SignatureError::Malformed),
        ] {
            assert_eq!(check(&bad, 1000), Err(error), "{bad}");
        }
        assert_eq!(verify(&header, b"{}", &secret, 1000), Err(SignatureError::Wrong));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(header in ".{0,200}", body: Vec<u8>, now: i64) {
            let secret = Secret::parse("s").unwrap();
            proptest::prop_assert!(verify(&header, &body, &secret, now).is_err());
        }
    }
}
