//! From bytes to what the model takes, as magika 1.0.3's `_extract_features_from_seekable` does it.

use crate::kinds::{BEGIN, BLOCK, END, PADDING};

/// The first and the last bytes without the white space around them, one number a byte, filled up with `PADDING`
/// after the beginning and before the end.
pub(crate) fn features(bytes: &[u8]) -> [i32; BEGIN + END] {
    let mut features = [PADDING; BEGIN + END];
    let (begin, end) = features.split_at_mut(BEGIN);
    for (feature, byte) in begin.iter_mut().zip(beginning(bytes)) {
        *feature = i32::from(*byte);
    }
    let last = &bytes[bytes.len().saturating_sub(BLOCK)..];
    let last = &last[..last.iter().rposition(|b| !is_space(*b)).map_or(0, |at| at + 1)];
    for (feature, byte) in end.iter_mut().rev().zip(last.iter().rev()) {
        *feature = i32::from(*byte);
    }
    features
}

/// The first block, from the first byte that is no white space.
pub(crate) fn beginning(bytes: &[u8]) -> &[u8] {
    let first = &bytes[..bytes.len().min(BLOCK)];
    let skipped = first.iter().position(|b| !is_space(*b)).unwrap_or(first.len());
    &first[skipped..]
}

/// What Python's `bytes.strip` takes away; unlike `u8::is_ascii_whitespace` also the vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}
