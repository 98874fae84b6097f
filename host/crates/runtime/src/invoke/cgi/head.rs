use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION, TE, TRAILER};
use http::{HeaderMap, HeaderValue, StatusCode};
use wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS;

/// A longer head is no head.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// Headers of one answer.
pub(super) const MAX_HEADERS: usize = 128;
/// What the first line of a head may begin with.
const FIRST: [&str; 3] = ["status:", "content-type:", "location:"];

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// What the first bytes of a standard output are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Not to be said yet.
    More,
    /// No head: all of it is the body.
    Plain,
    /// A head, and where the body begins.
    Head(Head, usize),
}

impl Head {
    /// Of an output that has none of its own.
    pub(super) fn plain() -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        Self { status: StatusCode::OK, headers }
    }
}

pub(super) fn find(bytes: &[u8]) -> Found {
    let begins = |first: &str| {
        let length = bytes.len().min(first.len());
        bytes[..length].eq_ignore_ascii_case(&first.as_bytes()[..length])
    };
    if !FIRST.iter().any(|first| begins(first)) {
        return Found::Plain;
    }
    let mut at = 0;
    let mut lines = Vec::new();
    while let Some(end) = bytes[at..].iter().position(|b| *b == b'\n') {
        let line = &bytes[at..at + end];
        at += end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return parse(&lines).map_or(Found::Plain, |head| Found::Head(head, at));
        }
        lines.push(line);
        if lines.len() > MAX_HEADERS || at > MAX_HEAD {
            return Found::Plain;
        }
    }
    if bytes.len() > MAX_HEAD { Found::Plain } else { Found::More }
}

/// Where one line is no header, the whole is no head: what begins with `Status: fine` may be a text.
fn parse(lines: &[&[u8]]) -> Option<Head> {
    let mut status = None;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"status") {
            let code = StatusCode::from_bytes(value.get(..3)?).ok()?;
            let ends = value.get(3).is_none_or(|b| *b == b' ');
            // 1xx is the server's own business.
            status = Some(code).filter(|code| ends && code.as_u16() >= 200);
            status?;
            continue;
        }
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value).ok()?;
        // The connection's, not the function's; lengths are counted here.
        let ours = DEFAULT_FORBIDDEN_HEADERS.contains(&name) || [CONTENT_LENGTH, TE, TRAILER].contains(&name);
        if !ours {
            headers.append(name, value);
        }
    }
    let redirect = headers.contains_key(LOCATION).then_some(StatusCode::FOUND);
    Some(Head { status: status.or(redirect).unwrap_or(StatusCode::OK), headers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> (Head, usize) {
        match find(text.as_bytes()) {
            Found::Head(head, at) => (head, at),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn reads_heads() {
        let text = "Status: 404 Not Found\r\nContent-Type: a/b\r\nX-Y:  z \r\n\r\nbody";
        let (found, at) = head(text);
        assert_eq!((found.status.as_u16(), &text[at..]), (404, "body"));
        assert_eq!(
            (&found.headers["content-type"], &found.headers["x-y"]),
            (&"a/b".parse().unwrap(), &"z".parse().unwrap())
        );
        assert_eq!(head("content-type: a/b\n\n").0.status, 200);
        assert_eq!(head("Location: /x\n\n").0.status, 302);
        assert_eq!(head("Location: /x\nStatus: 301\n\n").0.status, 301);
        let ours =
            "Status: 200\nContent-Length: 7\nConnection: close\nTransfer-Encoding: chunked\nTrailer: x\n\n";
        assert!(head(ours).0.headers.is_empty());
    }

    #[test]
    fn what_is_no_head_is_text() {
        for text in [
            "hello",
            "{}",
            "Status: fine\n\n",
            "Status: 2000\n\n",
            "Status: 101\n\n",
            "Status:\n\n",
            "Content-Type: a/b\nnot a header\n\n",
            "Content-Type: a/b\n\u{1}: x\n\n",
            "X-First: no\n\n",
        ] {
            assert_eq!(find(text.as_bytes()), Found::Plain, "{text:?}");
        }
        assert_eq!(find(format!("Status: 200\nX: {}", "x".repeat(MAX_HEAD)).as_bytes()), Found::Plain);
        assert_eq!(
            find(format!("Status: 200\n{}", "X: y\n".repeat(MAX_HEADERS + 1)).as_bytes()),
            Found::Plain
        );
        for text in ["", "S", "Stat", "Status: 200", "Status: 200\n", "Status: 200\r\nX: y\r\n\r"] {
            assert_eq!(find(text.as_bytes()), Found::More, "{text:?}");
        }
    }
}
