//! Bounds of the header fields of a request. The parser's own lie above them, so that who is a little over is told why.

use http::HeaderMap;
use wasmeter_types::{Error, ErrorKind, HEADER_BYTES, HEADERS};

/// Of every request, whatever it is for.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Error> {
    check_for(headers, HEADERS, HEADER_BYTES, "a request")
}

/// Refuses more header fields, or bytes of them (names, values, and four for each field), than there may be.
pub(crate) fn check_for(headers: &HeaderMap, most: u32, most_bytes: u64, whose: &str) -> Result<(), Error> {
    let refuse = |message| Err(Error::new(ErrorKind::HeadersTooLarge, message));
    let count = headers.len() as u64;
    if count > most.into() {
        return refuse(format!("the request has {count} header fields; {whose} may have {most}"));
    }
    let bytes = size(headers);
    if bytes > most_bytes {
        return refuse(format!(
            "the request has {bytes} bytes of header fields; {whose} may have {most_bytes}"
        ));
    }
    Ok(())
}

/// Bytes of the fields as HTTP/1 sends them.
fn size(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() as u64
}
