//! From text to words: without control characters and accents, in small letters, split at white space, around
//! punctuation and around Chinese characters.

use unicode_general_category::{GeneralCategory as Category, get_general_category};
use unicode_normalization::UnicodeNormalization;

/// Calls `word` with each word until it returns false.
pub(super) fn words(text: &str, mut word: impl FnMut(&str) -> bool) {
    // Most text is ASCII, for which all of this is simple.
    if text.is_ascii() {
        return split(text.chars().filter(|c| !is_dropped(*c)).map(|c| c.to_ascii_lowercase()), &mut word);
    }
    let kept = text.chars().filter(|c| !is_dropped(*c));
    let plain = kept.nfd().filter(|c| get_general_category(*c) != Category::NonspacingMark);
    split(plain.flat_map(char::to_lowercase), &mut word);
}

fn split(chars: impl Iterator<Item = char>, word: &mut impl FnMut(&str) -> bool) {
    let mut current = String::new();
    for c in chars {
        let alone = is_punctuation(c) || is_chinese(c);
        if !alone && !is_space(c) {
            current.push(c);
            continue;
        }
        if !current.is_empty() && !word(&current) {
            return;
        }
        current.clear();
        if alone && !word(c.encode_utf8(&mut [0; 4])) {
            return;
        }
    }
    if !current.is_empty() {
        word(&current);
    }
}

fn is_space(c: char) -> bool {
    c.is_whitespace()
}

/// Control and format characters, private use, and the replacement character.
fn is_dropped(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        ' '..='~' => false,
        '\0' | '\u{fffd}' => true,
        _ => matches!(
            get_general_category(c),
            Category::Control | Category::Format | Category::PrivateUse | Category::Surrogate
        ),
    }
}

fn is_punctuation(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_punctuation();
    }
    matches!(
        get_general_category(c),
        Category::ConnectorPunctuation
            | Category::DashPunctuation
            | Category::ClosePunctuation
            | Category::FinalPunctuation
            | Category::InitialPunctuation
            | Category::OtherPunctuation
            | Category::OpenPunctuation
    )
}

/// The blocks of Chinese characters that BERT's own tokeniser names.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0xF900..=0xFAFF | 0x2_0000..=0x2_A6DF | 0x2_A700..=0x2_B73F
        | 0x2_B740..=0x2_B81F | 0x2_B820..=0x2_CEAF | 0x2_F800..=0x2_FA1F)
}
