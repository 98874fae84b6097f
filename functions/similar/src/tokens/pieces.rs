//! From words to token numbers: from the left always the longest piece that the vocabulary has.

use super::hash::hash;
use super::split::words;

include!(concat!(env!("OUT_DIR"), "/vocabulary.rs"));

/// A longer word is unknown as a whole.
const WORD_CHARS: usize = 100;

/// The tokens of a text with begin and end mark, at most `limit`; what is longer is cut off.
pub(crate) fn encode(text: &str, limit: usize) -> Vec<u16> {
    let limit = limit.saturating_sub(1);
    let mut tokens = vec![BEGIN];
    words(text, |word| {
        pieces(word, &mut tokens);
        tokens.len() < limit
    });
    tokens.truncate(limit);
    tokens.push(END);
    tokens
}

/// Appends the pieces of a word, or `UNKNOWN` once if it cannot be cut up.
fn pieces(word: &str, tokens: &mut Vec<u16>) {
    let before = tokens.len();
    let mut rest = word;
    if word.chars().nth(WORD_CHARS).is_some() {
        return tokens.push(UNKNOWN);
    }
    while !rest.is_empty() {
        let continues = rest.len() < word.len();
        match longest(continues, rest) {
            Some((token, length)) => {
                tokens.push(token);
                rest = &rest[length..];
            }
            None => {
                tokens.truncate(before);
                return tokens.push(UNKNOWN);
            }
        }
    }
}

/// The longest piece at the start of `rest`, with its length in bytes.
fn longest(continues: bool, rest: &str) -> Option<(u16, usize)> {
    let end = rest.char_indices().nth(LONGEST).map_or(rest.len(), |(at, _)| at);
    let mut piece = &rest[..end];
    while let Some((last, _)) = piece.char_indices().next_back() {
        if let Some(token) = lookup(continues, piece) {
            return Some((token, piece.len()));
        }
        piece = &piece[..last];
    }
    None
}

/// The number of a piece.
fn lookup(continues: bool, piece: &str) -> Option<u16> {
    let mut slot = hash(continues, piece.as_bytes()) as usize % SLOTS.len();
    // The table has free slots, so that this ends.
    while SLOTS[slot] != u16::MAX {
        let id = SLOTS[slot];
        if stored(id) == (continues, piece) {
            return Some(id);
        }
        slot = (slot + 1) % SLOTS.len();
    }
    None
}

/// Whether a token continues a word, and its text.
fn stored(id: u16) -> (bool, &'static str) {
    let id = usize::from(id);
    let start = if id == 0 { 0 } else { ENDS[id - 1] >> 1 };
    let end = ENDS[id];
    (end & 1 == 1, &TEXT[start as usize..(end >> 1) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_found() {
        for id in 0..ENDS.len() {
            let id = u16::try_from(id).expect("16 bits");
            let (continues, piece) = stored(id);
            assert_eq!(lookup(continues, piece), Some(id), "{piece:?}");
        }
        assert_eq!(lookup(false, "nosuchtoken"), None);
    }

    #[test]
    fn texts_are_cut_off() {
        let text = "cat ".repeat(1000);
        assert_eq!(encode(&text, 256).len(), 256);
        assert_eq!(encode("", 256), [BEGIN, END]);
        assert_eq!(encode(&"x".repeat(101), 256), [BEGIN, UNKNOWN, END]);
    }
}
