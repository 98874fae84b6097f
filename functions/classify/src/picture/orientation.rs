//! How the camera was held: the tag "Orientation" of Exif 2.3 (0x0112), which viewers obey and decoders do not.

/// The eight ways, as the tag numbers them from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orientation(u16);

impl Default for Orientation {
    fn default() -> Self {
        Self(1)
    }
}

impl Orientation {
    /// From the TIFF structure in an Exif segment. Anything odd in it means: as it is.
    pub(crate) fn from_exif(exif: &[u8]) -> Self {
        match tag(exif) {
            Some(value @ 1..=8) => Self(value),
            _ => Self::default(),
        }
    }

    /// Where the sample at `at` of a square of this side belongs.
    pub(crate) fn place(self, at: usize, side: usize) -> usize {
        let (x, y) = (at % side, at / side);
        let last = side - 1;
        let (x, y) = match self.0 {
            2 => (last - x, y),
            3 => (last - x, last - y),
            4 => (x, last - y),
            5 => (y, x),
            6 => (last - y, x),
            7 => (last - y, last - x),
            8 => (y, last - x),
            _ => (x, y),
        };
        y * side + x
    }
}

fn tag(exif: &[u8]) -> Option<u16> {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let little = match exif.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = exif.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = exif.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }).ok()
    };
    let directory = long(4)?;
    let entries = usize::from(short(directory)?);
    for entry in 0..entries {
        let at = directory.checked_add(2 + 12 * entry)?;
        if short(at)? == 0x0112 {
            return short(at.checked_add(8)?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_is_found_in_both_byte_orders() {
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let big = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        assert_eq!(Orientation::from_exif(little), Orientation(6));
        assert_eq!(Orientation::from_exif(big), Orientation(8));
        for cut in 0..little.len() {
            Orientation::from_exif(&little[..cut]);
        }
        assert_eq!(Orientation::from_exif(b"II*\0\xff\xff\xff\xff"), Orientation(1));
    }

    #[test]
    fn squares_are_turned() {
        // a b      turned clockwise:  c a
        // c d                         d b
        let turned = |way: u16| {
            let mut out = [' '; 4];
            for (at, c) in ['a', 'b', 'c', 'd'].into_iter().enumerate() {
                out[Orientation(way).place(at, 2)] = c;
            }
            out.iter().collect::<String>()
        };
        let all: Vec<String> = (1..=8).map(turned).collect();
        assert_eq!(all, ["abcd", "badc", "dcba", "cdab", "acbd", "cadb", "dbca", "bdac"]);
    }
}
