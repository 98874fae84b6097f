use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use anyhow::{Context as _, Result};
use http::{Method, Response};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ureq::{Body, SendBody};

use super::client::Client;

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
    pub(crate) fn put(mut self, client: &Client, path: &str, what: &str) -> Result<Response<Body>> {
        self.text(format!("--{}--\r\n", self.boundary));
        let bar = bar(self.length, what);
        let empty: Box<dyn Read> = Box::new(std::io::empty());
        let chain = self.readers.into_iter().fold(empty, |all, next| Box::new(all.chain(next)));
        let mut reader = bar.wrap_read(chain);
        let request = client
            .request(Method::PUT, path)
            .header("content-type", format!("multipart/form-data; boundary={}", self.boundary))
            .header("content-length", self.length)
            // So that a refusal comes before the bytes go.
            .header("expect", "100-continue")
            .body(SendBody::from_reader(&mut reader))?;
        let answer = client.ask(request);
        bar.finish_and_clear();
        answer
    }
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
