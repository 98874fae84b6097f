//! Writing a body as it is made.

use std::io;

use crate::raw::wasi::io::streams::{OutputStream, StreamError};

/// Writes a response's body to the caller, at the caller's pace.
///
/// A write fails with [`io::ErrorKind::BrokenPipe`] once the caller has gone; end the handler then.
pub struct BodyWriter {
    stream: OutputStream,
}

impl BodyWriter {
    pub(crate) fn new(stream: OutputStream) -> Self {
        Self { stream }
    }

    /// Writes some of `bytes`, at least one, and waits for room if there is none.
    fn write_some(&self, bytes: &[u8]) -> Result<usize, StreamError> {
        loop {
            let room = self.stream.check_write()?;
            if room > 0 {
                let count = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
                self.stream.write(&bytes[..count])?;
                return Ok(count);
            }
            self.stream.subscribe().block();
        }
    }
}

impl io::Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.write_some(bytes).map_err(to_io)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.blocking_flush().map_err(to_io)
    }
}

fn to_io(error: StreamError) -> io::Error {
    match error {
        StreamError::Closed => io::Error::new(io::ErrorKind::BrokenPipe, "the caller has gone"),
        StreamError::LastOperationFailed(e) => io::Error::other(e.to_debug_string()),
    }
}
