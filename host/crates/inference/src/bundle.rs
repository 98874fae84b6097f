//! An OpenVINO IR is two files, and what a [`ModelSource`](crate::ModelSource) opens is one: a head, the weights, the
//! XML. The head has the digests of both, so that the digest of the head alone vouches for all of it, and the weights
//! come first, where they are aligned for every element type.

use std::io::{self, Read, Write};

/// How a head begins.
const MARK: &[u8; 8] = b"WMTR-IR2";
/// Bytes of the head; the weights begin here.
const HEAD: usize = 128;

/// One file of an IR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundlePart {
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// How many.
    pub bytes: u64,
}

/// What the head of an IR's bundle says. [`ModelSpec::sha256`](crate::ModelSpec) of an IR is the SHA-256 of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrBundle {
    /// `model.xml`.
    pub xml: BundlePart,
    /// `model.bin`.
    pub weights: BundlePart,
}

/// A bundle that ends too early, or goes on after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bundle of XML and weights is cut off")]
pub struct CutOff;

/// The XML and the weights.
type Parts<'a> = (&'a [u8], &'a [u8]);

impl IrBundle {
    /// Bytes of a head.
    pub const HEAD: usize = HEAD;

    /// The head.
    #[must_use]
    pub fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        let fields = [
            &MARK[..],
            &self.weights.bytes.to_le_bytes(),
            &self.xml.bytes.to_le_bytes(),
            &self.weights.sha256,
            &self.xml.sha256,
        ]
        .concat();
        head[..fields.len()].copy_from_slice(&fields);
        head
    }

    /// What a head says; `None` where the bytes are another thing.
    #[must_use]
    pub fn parse(head: &[u8; HEAD]) -> Option<Self> {
        let rest = head.strip_prefix(MARK)?;
        let (weights, rest) = rest.split_first_chunk()?;
        let (xml, rest) = rest.split_first_chunk()?;
        let (weights_sha256, rest) = rest.split_first_chunk()?;
        let (xml_sha256, rest) = rest.split_first_chunk()?;
        let part = |sha256: &[u8; 32], bytes: &[u8; 8]| BundlePart {
            sha256: *sha256,
            bytes: u64::from_le_bytes(*bytes),
        };
        let found = Self { xml: part(xml_sha256, xml), weights: part(weights_sha256, weights) };
        rest.iter().all(|byte| *byte == 0).then_some(found)
    }

    /// Writes the bundle.
    ///
    /// # Errors
    /// Those of the files, and `InvalidData` where one does not have as many bytes as the head says. Digests are for the
    /// reader to check.
    pub fn write(&self, to: &mut impl Write, xml: impl Read, weights: impl Read) -> io::Result<()> {
        to.write_all(&self.head())?;
        copy(to, weights, self.weights.bytes, "weights")?;
        copy(to, xml, self.xml.bytes, "XML")
    }

    /// The XML and the weights of a bundle in memory; `None` where the bytes are another thing.
    #[must_use]
    pub fn split(file: &[u8]) -> Option<Result<Parts<'_>, CutOff>> {
        file.strip_prefix(MARK)?;
        let parts = || {
            let (head, rest) = file.split_first_chunk()?;
            let Self { xml, weights } = Self::parse(head)?;
            let (weights, rest) = rest.split_at_checked(usize::try_from(weights.bytes).ok()?)?;
            (rest.len() as u64 == xml.bytes).then_some((rest, weights))
        };
        Some(parts().ok_or(CutOff))
    }
}

fn copy(to: &mut impl Write, from: impl Read, bytes: u64, what: &str) -> io::Result<()> {
    // One more, so that a file that has grown is not cut off without a word.
    let copied = io::copy(&mut from.take(bytes.saturating_add(1)), to)?;
    if copied != bytes {
        let message = format!("the {what} of an OpenVINO IR should have {bytes} bytes and has not");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(xml: &[u8], weights: &[u8]) -> (IrBundle, Vec<u8>) {
        let part = |bytes: &[u8], mark: u8| BundlePart { sha256: [mark; 32], bytes: bytes.len() as u64 };
        let bundle = IrBundle { xml: part(xml, 1), weights: part(weights, 2) };
        let mut file = Vec::new();
        bundle.write(&mut file, xml, weights).unwrap();
        (bundle, file)
    }

    #[test]
    fn both_parts_come_back() {
        let (known, file) = bundle(b"<net/>", b"weights");
        assert_eq!(IrBundle::split(&file), Some(Ok((&b"<net/>"[..], &b"weights"[..]))));
        assert_eq!(IrBundle::parse(file.first_chunk().unwrap()), Some(known));
        let (_, empty) = bundle(b"", b"");
        assert_eq!(IrBundle::split(&empty), Some(Ok((&b""[..], &b""[..]))));
        assert_eq!(IrBundle::split(b"\x08\x07"), None);
    }

    #[test]
    fn a_part_of_another_length_is_an_error() {
        let (known, file) = bundle(b"<net/>", b"weights");
        for end in MARK.len()..file.len() {
            assert_eq!(IrBundle::split(&file[..end]), Some(Err(CutOff)), "{end}");
        }
        assert_eq!(IrBundle::split(&[&file[..], b"x"].concat()), Some(Err(CutOff)));
        let mut lie = file;
        lie[MARK.len()..24].fill(0xff);
        assert_eq!(IrBundle::split(&lie), Some(Err(CutOff)));
        for weights in [&b"weight"[..], b"weights!"] {
            assert!(known.write(&mut Vec::new(), &b"<net/>"[..], weights).is_err());
        }
    }
}
