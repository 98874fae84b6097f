//! JSON with many numbers in it.
//!
//! Of a compiled guest each operator costs fuel, and serde's way to a number is long: the digits are read eight bytes at a
//! time here.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{Error, Result};

/// The array of numbers of this name in a JSON object, such as a tensor's values: read for three fifths of the fuel that a `Vec`
/// in [`Request::json`](crate::Request::json) takes. Each is the nearest value of its type. The rest of the object is
/// passed over.
///
/// ```
/// use wasmeter_guest::json::numbers;
///
/// let row = numbers::<f32>(br#"{"id": "a", "row": [1, 0.5, -2e3]}"#, "row")?;
/// assert_eq!(row, [1.0, 0.5, -2000.0]);
/// # Ok::<_, wasmeter_guest::Error>(())
/// ```
///
/// # Errors
/// 400 that says what is wrong with the JSON and at which of its bytes.
pub fn numbers<T: Number>(json: &[u8], name: &str) -> Result<Vec<T>> {
    let mut text = Text { json, at: 0 };
    let mut found = None;
    text.want(b'{', "an object")?;
    if !text.take(b'}') {
        loop {
            let member: String = text.value()?;
            text.want(b':', "a colon")?;
            if member != name {
                text.value::<IgnoredAny>()?;
            } else if found.replace(text.array()?).is_some() {
                return Err(Error::bad_request(format!("the JSON has {name:?} twice")));
            }
            if !text.take(b',') {
                break;
            }
        }
        text.want(b'}', "a comma or the object's end")?;
    }
    text.space();
    match found {
        _ if text.at < json.len() => Err(text.wrong("nothing more")),
        Some(numbers) => Ok(numbers),
        None => Err(Error::bad_request(format!("the JSON has no {name:?}"))),
    }
}

/// JSON, and how far it is read.
struct Text<'a> {
    json: &'a [u8],
    at: usize,
}

impl Text<'_> {
    fn rest(&self) -> &[u8] {
        &self.json[self.at..]
    }

    fn space(&mut self) {
        self.at = behind_space(self.json, self.at);
    }

    /// Passes over this byte, if it is the next one that is no space.
    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let there = self.json.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn want(&mut self, byte: u8, what: &str) -> Result<()> {
        if self.take(byte) { Ok(()) } else { Err(self.wrong(what)) }
    }

    fn wrong(&self, wanted: &str) -> Error {
        let rest = self.rest();
        let found = match String::from_utf8_lossy(&rest[..rest.len().min(24)]) {
            nothing if nothing.is_empty() => "its end".to_owned(),
            found => format!("{found:?}"),
        };
        Error::bad_request(format!("the JSON should have {wanted} at byte {}, not {found}", self.at))
    }

    /// Any value, read as serde does.
    fn value<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T> {
        self.space();
        let mut values = serde_json::Deserializer::from_slice(self.rest()).into_iter();
        let value = values.next();
        let behind = self.at + values.byte_offset();
        match value {
            Some(Ok(value)) => {
                self.at = behind;
                Ok(value)
            }
            Some(Err(error)) => Err(Error::bad_request(format!("the JSON at byte {}: {error}", self.at))),
            None => Err(self.wrong("a value")),
        }
    }

    fn array<T: Number>(&mut self) -> Result<Vec<T>> {
        let (numbers, at) = array(self.json, self.at);
        self.at = at;
        numbers.ok_or_else(|| self.wrong(&format!("an array of {} numbers", T::NAME)))
    }
}

/// What [`numbers`] reads: `f32`, `f64`, `u8`, `i32`, `i64`.
pub trait Number: private::Sealed {}

mod private {
    pub trait Sealed: Sized {
        const NAME: &'static str;
        /// From a number's parts; `None` where they do not tell which value it is.
        fn quick(parts: super::Parts) -> Option<Self>;
        /// From a number's text; `None` if it is none of this type.
        fn slow(text: &str) -> Option<Self>;
    }
}

/// A number without an exponent: `mantissa / 10^places`.
#[derive(Clone, Copy)]
pub struct Parts {
    negative: bool,
    /// Exact while there are [`DIGITS`] digits at most.
    mantissa: u64,
    places: usize,
}

/// Digits that always fit into a mantissa of 53 bits.
const DIGITS: usize = 15;

/// Powers of ten, as both are exact.
const POWERS: [f64; DIGITS + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
const TENS: [u64; DIGITS + 1] = {
    let mut tens = [1; DIGITS + 1];
    let mut at = 1;
    while at <= DIGITS {
        tens[at] = tens[at - 1] * 10;
        at += 1;
    }
    tens
};

impl Parts {
    /// Both are exact, so their quotient is the nearest `f64`.
    #[allow(clippy::cast_precision_loss, reason = "it has 53 bits at most")]
    #[inline(always)]
    fn value(self) -> Option<f64> {
        let value = self.mantissa as f64 / POWERS.get(self.places)?;
        Some(if self.negative { -value } else { value })
    }
}

/// Bits of an `f64` that an `f32` has not, and their half.
const REST: u64 = (1 << 29) - 1;
const HALF: u64 = 1 << 28;

impl Number for f32 {}
impl private::Sealed for f32 {
    const NAME: &'static str = "f32";

    /// Rounded twice it may be off where the first result lies halfway between two of the second.
    #[allow(clippy::cast_possible_truncation, reason = "that is the point")]
    #[inline(always)]
    fn quick(parts: Parts) -> Option<Self> {
        let value = parts.value()?;
        (value.to_bits() & REST != HALF).then_some(value as f32)
    }

    fn slow(text: &str) -> Option<Self> {
        text.parse().ok().filter(|value: &f32| value.is_finite())
    }
}

impl Number for f64 {}
impl private::Sealed for f64 {
    const NAME: &'static str = "f64";

    #[inline(always)]
    fn quick(parts: Parts) -> Option<Self> {
        parts.value()
    }

    fn slow(text: &str) -> Option<Self> {
        text.parse().ok().filter(|value: &f64| value.is_finite())
    }
}

macro_rules! integer {
    ($($int:ident),*) => {$(
        impl Number for $int {}
        impl private::Sealed for $int {
            const NAME: &'static str = stringify!($int);

            #[inline(always)]
            fn quick(Parts { negative, mantissa, places }: Parts) -> Option<Self> {
                let value = i64::try_from(mantissa).ok().filter(|_| places == 0)?;
                Self::try_from(if negative { -value } else { value }).ok()
            }

            fn slow(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )*};
}
integer!(u8, i32, i64);

#[inline(always)]
fn behind_space(json: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = json.get(at) {
        at += 1;
    }
    at
}

/// An array and the place behind it, or the place of what does not belong there.
fn array<T: Number>(json: &[u8], at: usize) -> (Option<Vec<T>>, usize) {
    let mut at = behind_space(json, at);
    if json.get(at) != Some(&b'[') {
        return (None, at);
    }
    at = behind_space(json, at + 1);
    // A number and its comma seldom have less than four bytes.
    let mut numbers = Vec::with_capacity((json.len() - at) / 4);
    if json.get(at) == Some(&b']') {
        return (Some(numbers), at + 1);
    }
    loop {
        let Some((number, behind)) = number(json, at) else { return (None, at) };
        numbers.push(number);
        at = behind_space(json, behind);
        match json.get(at) {
            Some(b',') => at = behind_space(json, at + 1),
            Some(b']') => return (Some(numbers), at + 1),
            _ => return (None, at),
        }
    }
}

/// The number at a place, by JSON's grammar, and the place behind it.
#[inline(always)]
fn number<T: Number>(json: &[u8], begin: usize) -> Option<(T, usize)> {
    let negative = json.get(begin) == Some(&b'-');
    let first = begin + usize::from(negative);
    let (whole, count) = digits(json, first);
    let mut end = first + count;
    if count == 0 || (count > 1 && json[first] == b'0') {
        return None;
    }
    let (mut mantissa, mut places) = (whole, 0);
    let mut next = json.get(end);
    if next == Some(&b'.') {
        let part;
        (part, places) = digits(json, end + 1);
        if places == 0 {
            return None;
        }
        end += 1 + places;
        next = json.get(end);
        mantissa = TENS.get(places).map_or(0, |tens| whole.wrapping_mul(*tens).wrapping_add(part));
    }
    if count + places <= DIGITS
        && !matches!(next, Some(b'e' | b'E'))
        && let Some(number) = T::quick(Parts { negative, mantissa, places })
    {
        return Some((number, end));
    }
    slow(json, begin, end)
}

/// The same for one that has an exponent, or so many digits that they must be looked at as a whole.
#[inline(never)]
fn slow<T: Number>(json: &[u8], begin: usize, mut end: usize) -> Option<(T, usize)> {
    if let Some(b'e' | b'E') = json.get(end) {
        end += 1;
        end += usize::from(matches!(json.get(end), Some(b'+' | b'-')));
        let (_, count) = digits(json, end);
        if count == 0 {
            return None;
        }
        end += count;
    }
    Some((T::slow(std::str::from_utf8(&json[begin..end]).ok()?)?, end))
}

/// The digits at a place: their value, if they are not too many, and how many they are. Up to seven at a time, in the
/// eight bytes of one word.
#[inline(always)]
fn digits(json: &[u8], at: usize) -> (u64, usize) {
    let text = json.get(at..).unwrap_or_default();
    if let Some(eight) = text.first_chunk() {
        let digits = u64::from_le_bytes(*eight) ^ ZEROS;
        // The high bit of what is above nine. A carry only goes to what is behind that.
        let others = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080;
        if others != 0 {
            let bits = others.trailing_zeros() & !7;
            if bits == 0 {
                return (0, 0);
            }
            return (eight_digits(digits << (64 - bits)), bits as usize / 8);
        }
    }
    long_digits(text)
}

const ZEROS: u64 = u64::from_le_bytes(*b"00000000");

/// The value of eight digits, the first one in the lowest byte: neighbours are added up to pairs, and pairs to fours.
#[inline(always)]
fn eight_digits(digits: u64) -> u64 {
    const PAIRS: u64 = 0x0000_00ff_0000_00ff;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let first = (pairs & PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let second = ((pairs >> 16) & PAIRS).wrapping_mul(1 + (10_000 << 32));
    first.wrapping_add(second) >> 32
}

#[inline(never)]
fn long_digits(text: &[u8]) -> (u64, usize) {
    let mut value = 0u64;
    for (count, byte) in text.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return (value, count);
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    (value, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Number>(array: &str) -> Result<Vec<T>, String> {
        numbers(format!(r#"{{"a": {array}}}"#).as_bytes(), "a").map_err(|e| e.message().to_owned())
    }

    #[test]
    fn each_is_the_nearest_value() {
        let texts = [
            "0",
            "-0",
            "1",
            "0.1",
            "-0.123",
            "16777217",
            "16777216.5",
            "0.3333333333333333",
            "123456789012345",
            "1234567890123456789",
            "0.000000000000001",
            "0.0000000000000000001",
            "1e10",
            "-2.5E-3",
            "1e+2",
            "1e-45",
            "3.4028235e38",
            "8388608.5",
            "8388609.5",
            "1.00000005960464477539",
            "0.1234567890123456789",
            "9007199254740993",
            "0.00000000000000000000000000000000000000000000000000000000000000000000001",
        ];
        let array = format!("[{}]", texts.join(" ,\n"));
        let bits = |text: &&str| text.parse::<f32>().expect("a number").to_bits();
        let found = read::<f32>(&array).expect("f32");
        assert_eq!(
            found.iter().map(|n| n.to_bits()).collect::<Vec<_>>(),
            texts.iter().map(bits).collect::<Vec<_>>()
        );
        let bits = |text: &&str| text.parse::<f64>().expect("a number").to_bits();
        let found = read::<f64>(&array).expect("f64");
        assert_eq!(
            found.iter().map(|n| n.to_bits()).collect::<Vec<_>>(),
            texts.iter().map(bits).collect::<Vec<_>>()
        );
    }

    #[test]
    fn many_are_as_the_standard_library_reads_them() {
        let mut state = 1u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (places, digits) = (state >> 60, state >> 33);
            let width = usize::try_from(places).expect("small") + 1;
            let text = format!("{}.{:0width$}", digits % 100_000, digits % 1000);
            assert_eq!(read::<f32>(&format!("[{text}]")), Ok(vec![text.parse().expect("f32")]), "{text}");
            assert_eq!(read::<f64>(&format!("[{text}]")), Ok(vec![text.parse().expect("f64")]), "{text}");
        }
    }

    #[test]
    fn integers_are_whole_and_fit() {
        let ends = format!("[{}, {}, -7]", i64::MIN, i64::MAX);
        assert_eq!(read::<i64>(&ends), Ok(vec![i64::MIN, i64::MAX, -7]));
        assert_eq!(read::<u8>("[0,255]"), Ok(vec![0, 255]));
        assert_eq!(read::<u8>(" [ ] "), Ok(vec![]));
        for wrong in ["[256]", "[-1]", "[1.5]", "[1e2]", "[1.0]"] {
            assert!(read::<u8>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_array_of_numbers_is_refused_where_it_is() {
        let error = read::<f32>(r#"[1, "2"]"#).expect_err("a text");
        assert_eq!(error, r#"the JSON should have an array of f32 numbers at byte 10, not "\"2\"]}""#);
        for wrong in [
            "7", "null", "{}", "[1,[2]]", "[null]", "[true]", "[1e39]", "[1,]", "[1 2]", "[01]", "[1.]",
            "[-]", "[1", "[.5]", "[+1]", "[1e]", "[1.5e+]", "[-01]", "[1,,2]", "[,]", "[0x1]", "[NaN]",
            "[1.2.3]", "[1]]", "[1]}",
        ] {
            let serde = serde_json::from_str::<serde_json::Value>(&format!(r#"{{"a": {wrong}}}"#));
            let floats = serde.ok().and_then(|v| serde_json::from_value::<Vec<f64>>(v["a"].clone()).ok());
            assert!(read::<f32>(wrong).is_err(), "{wrong}");
            assert!(floats.is_none_or(|f| f == [1e39]), "{wrong}");
        }
    }

    #[test]
    fn the_rest_of_the_object_is_passed_over() {
        let json = br#" { "b" : {"a":[9]}, "\u0061" : [ 1 , 2 ], "c":1.5e3,"d":[true,null,"]"] } "#;
        assert_eq!(numbers::<i32>(json, "a").expect("numbers"), [1, 2]);
        for wrong in [
            r#"{"a":[1],"a":[2]}"#,
            r#"{"b":1}"#,
            "{}",
            "",
            "[1]",
            r#"{"a":[1]} x"#,
            r#"{"a":[1],}"#,
            r#"{"a" [1]}"#,
            r#"{a:[1]}"#,
            r#"{"b":tru,"a":[1]}"#,
            r#"{"a":[1]"#,
            r#"{"b":01,"a":[1]}"#,
        ] {
            assert_eq!(numbers::<i32>(wrong.as_bytes(), "a").expect_err(wrong).status(), 400, "{wrong}");
        }
    }
}
