/// Whether the text has the form of an ISO 4217 code: three upper-case ASCII letters.
#[must_use]
pub fn is_currency(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase())
}

/// Decimals of the smallest unit of a currency (ISO 4217, table A.1): 2 unless listed.
#[must_use]
pub fn minor_digits(code: &str) -> u32 {
    match code {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI"
        | "VND" | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_currencies_without_cents() {
        assert_eq!((minor_digits("USD"), minor_digits("JPY"), minor_digits("KWD")), (2, 0, 3));
        assert!(is_currency("EUR"));
        assert!(!is_currency("eur") && !is_currency("EURO") && !is_currency("") && !is_currency("E1R"));
    }
}
