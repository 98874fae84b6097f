//! An OpenVINO IR is two files, and a model on its way to a worker is one: mark, length of the XML, XML, weights.

/// How a bundle begins.
const MARK: &[u8; 8] = b"WMTR-IR1";
const HEAD: usize = MARK.len() + 8;

/// Puts an IR's XML and its weights into the one file that a [`ModelSource`](wasmeter_inference::ModelSource) gives
/// for it.
#[must_use]
pub fn bundle_ir(xml: &[u8], weights: &[u8]) -> Vec<u8> {
    let mut bundle = Vec::with_capacity(HEAD + xml.len() + weights.len());
    bundle.extend_from_slice(MARK);
    bundle.extend_from_slice(&(xml.len() as u64).to_le_bytes());
    bundle.extend_from_slice(xml);
    bundle.extend_from_slice(weights);
    bundle
}

/// The XML and the weights.
type Parts<'a> = (&'a [u8], &'a [u8]);

/// Takes a bundle apart; `None` where the file is another thing.
pub(crate) fn split(file: &[u8]) -> Option<Result<Parts<'_>, String>> {
    let rest = file.strip_prefix(MARK)?;
    let cut = || {
        let (length, rest) = rest.split_first_chunk()?;
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
    };
    Some(cut().ok_or_else(|| "the bundle of XML and weights is cut off".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_come_back() {
        let bundle = bundle_ir(b"<net/>", b"weights");
        assert_eq!(split(&bundle), Some(Ok((&b"<net/>"[..], &b"weights"[..]))));
        assert_eq!(split(&bundle_ir(b"", b"")), Some(Ok((&b""[..], &b""[..]))));
        assert_eq!(split(b"\x08\x07"), None);
        for end in MARK.len()..HEAD + 6 {
            assert!(split(&bundle[..end]).is_some_and(|parts| parts.is_err()), "{end}");
        }
        let mut lie = bundle;
        lie[MARK.len()..HEAD].fill(0xff);
        assert!(split(&lie).is_some_and(|parts| parts.is_err()));
    }
}
