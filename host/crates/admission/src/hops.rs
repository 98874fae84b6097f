use std::fmt::Write as _;

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName, HeaderValue};
use wasmeter_types::{Error, ErrorKind};

/// Carries how many functions stand behind a call: `1.DEPTH.TAG`. The host sets it on every outbound call of a function
/// and takes it off every request before a function sees it. The idea is CDN-Loop's (RFC 8586); unlike there, only what
/// this platform signed counts, so that a caller cannot make another's call look deep, and a guest cannot make its own
/// look shallow. Who repeats one that it was sent makes its own calls look deeper, and nothing else.
pub const HOPS: HeaderName = HeaderName::from_static("x-wasmeter-hops");

/// Functions that may stand behind one another in a chain of calls.
const DEPTH: u8 = 8;
/// Bytes of the tag: half of SHA-256.
const TAG: usize = 16;

/// How many functions stand behind a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Depth(u8);

/// Signs and checks the depth of calls. Cheap to clone.
#[derive(Clone)]
pub struct HopKey(hmac::Key);

impl HopKey {
    /// From key bytes that all hosts of the platform share and nobody else has.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The header's value for a call that a function at this depth makes.
    #[must_use]
    pub fn next(&self, depth: Depth) -> Option<HeaderValue> {
        let mut text = claim(depth.0.saturating_add(1));
        let tag = hmac::sign(&self.0, text.as_bytes());
        text.push('.');
        for byte in &tag.as_ref()[..TAG] {
            let _ = write!(text, "{byte:02x}");
        }
        HeaderValue::try_from(text).ok()
    }

    /// How deep a request is: the deepest of its signed claims, 0 without one.
    ///
    /// # Errors
    /// `TooDeep`.
    pub fn check(&self, headers: &HeaderMap) -> Result<Depth, Error> {
        let depth = headers.get_all(HOPS).iter().filter_map(|v| self.read(v)).max().unwrap_or_default();
        if depth.0 > DEPTH {
            let message = format!(
                "{DEPTH} functions stand behind this call already: a function calls itself, or they call one another in a circle"
            );
            return Err(Error::new(ErrorKind::TooDeep, message));
        }
        Ok(depth)
    }

    fn read(&self, value: &HeaderValue) -> Option<Depth> {
        let (signed, tag) = value.to_str().ok()?.rsplit_once('.')?;
        let depth: u8 = signed.strip_prefix("1.")?.parse().ok()?;
        // Only the spelling that was signed.
        if signed != claim(depth) || tag.len() != 2 * TAG {
            return None;
        }
        let ours = hmac::sign(&self.0, signed.as_bytes());
        let mut difference = 0;
        for (index, byte) in ours.as_ref()[..TAG].iter().enumerate() {
            let theirs = u8::from_str_radix(tag.get(2 * index..2 * index + 2)?, 16).ok()?;
            difference |= byte ^ theirs;
        }
        (difference == 0).then_some(Depth(depth))
    }
}

fn claim(depth: u8) -> String {
    format!("1.{depth}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[HeaderValue]) -> HeaderMap {
        values.iter().map(|v| (HOPS, v.clone())).collect()
    }

    #[test]
    fn a_chain_ends() {
        let key = HopKey::new(&[1; 32]);
        let mut depth = key.check(&HeaderMap::new()).unwrap();
        let mut calls = 0;
        let error = loop {
            match key.check(&headers(&[key.next(depth).unwrap()])) {
                Ok(next) => (depth, calls) = (next, calls + 1),
                Err(error) => break error,
            }
        };
        assert_eq!((calls, error.kind.status()), (usize::from(DEPTH), 508));
    }

    #[test]
    fn only_what_was_signed_counts() {
        let (key, other) = (HopKey::new(&[1; 32]), HopKey::new(&[2; 32]));
        let deep = (0..20).fold(Depth(0), |d, _| Depth(d.0 + 1));
        let forged = other.next(deep).unwrap();
        assert_eq!(key.check(&headers(&[forged])).unwrap(), Depth(0));
        let signed = key.next(Depth(2)).unwrap();
        let text = signed.to_str().unwrap().to_owned();
        for bad in [
            text.replace("1.3.", "1.0."),
            text.replace("1.3.", "1.+3."),
            text.replace("1.3.", "1.03."),
            text.replace("1.3.", "3."),
            text[..text.len() - 2].to_owned(),
            format!("{text}00"),
            "1.3.".to_owned(),
            format!("1.3.{}", "é".repeat(TAG)),
            String::new(),
        ] {
            let value = HeaderValue::from_bytes(bad.as_bytes()).unwrap();
            assert_eq!(key.check(&headers(&[value])).unwrap(), Depth(0), "{bad}");
        }
        // A shallow one beside a deep one does not help.
        let both = [key.next(Depth(0)).unwrap(), signed];
        assert_eq!(key.check(&headers(&both)).unwrap(), Depth(3));
    }
}
