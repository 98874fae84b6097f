use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use http::{Method, Response};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;
use ureq::{Body, SendBody};
use wasmeter_types::ClientError;

use super::client::{Client, Refused, json};

/// The most that is read of the lines about a deployment: one a second, for as long as it may wait and compile.
const MAX_LINES: u64 = 8 << 20;

/// A multipart form (RFC 7578) that is read from its files while it is sent.
pub(crate) struct Form {
    boundary: String,
    readers: Vec<Box<dyn Read>>,
    length: u64,
}

impl Form {
    pub(crate) fn new() -> Self {
        // Unguessable, so that no content can end its part.
        let boundary = format!("wasmeter-{:032x}", u128::from_le_bytes(random()));
        Self { boundary, readers: Vec::new(), length: 0 }
    }

    /// Adds text or bytes. The name is of plain characters.
    pub(crate) fn bytes(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        let content = content.into();
        let length = content.len() as u64;
        self.part(name, Box::new(Cursor::new(content)), length);
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, name: &str, path: &Path) -> Result<()> {
        let file = File::open(path).with_context(|| format!("file {}", path.display()))?;
        let length = file.metadata()?.len();
        // No more than what the length promised, should the file grow.
        self.part(name, Box::new(file.take(length)), length);
        Ok(())
    }

    fn part(&mut self, name: &str, content: Box<dyn Read>, length: u64) {
        let head = format!(
            "--{}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
             content-type: application/octet-stream\r\n\r\n",
            self.boundary
        );
        self.text(head);
        self.readers.push(content);
        self.length += length;
        self.text("\r\n".to_owned());
    }

    fn text(&mut self, text: String) {
        self.length += text.len() as u64;
        self.readers.push(Box::new(Cursor::new(text.into_bytes())));
    }

    /// Puts the form, with a progress bar where a person watches.
    pub(crate) fn put(self, client: &Client, path: &str, what: &str) -> Result<Response<Body>> {
        let bar = bar(self.length, what);
        let answer = self.send(client, path, "application/json", &bar);
        bar.finish_and_clear();
        answer
    }

    /// Puts the form and shows how far the server is with it, where a person watches; its answer with the status.
    pub(crate) fn put_watched(self, client: &Client, path: &str, what: &str) -> Result<(u16, Value)> {
        let bar = bar(self.length, what);
        let answer = self.send(client, path, "application/x-ndjson, application/json", &bar);
        let last = answer.and_then(|answer| {
            let kind = answer.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            if !kind.is_some_and(|kind| kind.starts_with("application/x-ndjson")) {
                return Ok((answer.status().as_u16(), json(answer)?));
            }
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            let body = answer.into_body().into_with_config().limit(MAX_LINES).reader();
            follow(BufReader::new(body), |stage| bar.set_message(format!("{what}: {stage}")))
        });
        bar.finish_and_clear();
        last
    }

    fn send(
        mut self,
        client: &Client,
        path: &str,
        accept: &str,
        bar: &ProgressBar,
    ) -> Result<Response<Body>> {
        self.text(format!("--{}--\r\n", self.boundary));
        let empty: Box<dyn Read> = Box::new(std::io::empty());
        let chain = self.readers.into_iter().fold(empty, |all, next| Box::new(all.chain(next)));
        let mut reader = bar.wrap_read(chain);
        let request = client
            .request(Method::PUT, path)
            .header("content-type", format!("multipart/form-data; boundary={}", self.boundary))
            .header("content-length", self.length)
            .header("accept", accept)
            // So that a refusal comes before the bytes go.
            .header("expect", "100-continue")
            .body(SendBody::from_reader(&mut reader))?;
        client.ask(request)
    }
}

/// A line of a deployment under way.
#[derive(Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Line {
    Queued {
        place: u64,
    },
    Compiling {
        seconds: u64,
    },
    Done {
        status: u16,
        revision: Value,
    },
    Failed {
        status: u16,
        error: ClientError,
    },
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

/// Reads the lines to the last one, which is the answer.
fn follow(lines: impl BufRead, told: impl Fn(String)) -> Result<(u16, Value)> {
    for line in lines.lines() {
        let line = line.context("the server's answer broke off")?;
        match serde_json::from_str(&line).context("the server's answer is not JSON")? {
            Line::Queued { place } => told(format!("waiting for the compiler, place {place}")),
            Line::Compiling { seconds } => told(format!("compiling, {seconds} s")),
            Line::Other => told("checking".to_owned()),
            Line::Done { status, revision } => return Ok((status, revision)),
            Line::Failed { status, error } => return Err(Refused { status, error }.into()),
        }
    }
    bail!("the server's answer broke off: deploy again, the same component gives the same revision")
}

fn random() -> [u8; 16] {
    // Each `RandomState` is keyed anew by the system's randomness.
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let word = || RandomState::new().build_hasher().finish().to_le_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&word());
    bytes[8..].copy_from_slice(&word());
    bytes
}

/// A bar on stderr; hidden where that is no terminal.
fn bar(length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {bytes}/{total_bytes}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    // It goes on turning while the server checks what it got.
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_answer() {
        let told = std::cell::RefCell::new(Vec::new());
        let read = |text: &str| follow(text.as_bytes(), |stage| told.borrow_mut().push(stage));
        let lines = concat!(
            "{\"state\":\"checking\"}\n{\"state\":\"queued\",\"place\":2}\n{\"state\":\"new\"}\n",
            "{\"state\":\"compiling\",\"seconds\":3}\n{\"state\":\"done\",\"status\":201,\"revision\":{\"url\":\"u\"}}\n"
        );
        let (status, answer) = read(lines).unwrap();
        assert_eq!((status, answer["url"].as_str()), (201, Some("u")));
        assert_eq!(
            *told.borrow(),
            ["checking", "waiting for the compiler, place 2", "checking", "compiling, 3 s"]
        );
        let failed = "{\"state\":\"failed\",\"status\":422,\"error\":{\"code\":\"invalid\",\"message\":\"no\",\"retry\":false}}";
        let error = read(failed).unwrap_err();
        assert_eq!(error.downcast_ref::<Refused>().map(|r| r.status), Some(422));
        assert!(read("{\"state\":\"checking\"}\n").unwrap_err().to_string().contains("broke off"));
    }

    #[test]
    fn the_announced_length_is_the_length() {
        let mut form = Form::new();
        form.bytes("manifest", "text");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"content").unwrap();
        form.file("component", file.path()).unwrap();
        let length = form.length;
        let mut all = Vec::new();
        for mut reader in form.readers {
            reader.read_to_end(&mut all).unwrap();
        }
        assert_eq!(all.len() as u64, length);
        let text = String::from_utf8(all).unwrap();
        assert!(text.starts_with("--wasmeter-") && text.contains("\r\n\r\ncontent\r\n"), "{text}");
        assert_ne!(Form::new().boundary, Form::new().boundary);
    }
}
