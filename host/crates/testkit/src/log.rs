use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

/// One line that the host or a child of it wrote to its standard error.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// `INFO`, `WARN`, … or `TEXT` for a line that is no JSON, such as a panic's.
    pub level: String,
    /// The line.
    pub text: String,
}

impl LogLine {
    fn of(text: String) -> Self {
        let level =
            serde_json::from_str::<Value>(&text).ok().and_then(|v| Some(v["level"].as_str()?.to_owned()));
        Self { level: level.unwrap_or_else(|| "TEXT".to_owned()), text }
    }

    /// Whether the line may only be there if a test expects it.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        matches!(self.level.as_str(), "WARN" | "ERROR" | "TEXT")
    }
}

/// All lines of a host, over its restarts.
#[derive(Default)]
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<LogLine>>>,
    allowed: Mutex<Vec<String>>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Reads until the last process that has this standard error is gone.
    pub(crate) fn read(&self, stderr: ChildStderr) {
        let lines = self.lines.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                lines.lock().push(LogLine::of(String::from_utf8_lossy(&line).into_owned()));
            }
        });
        *self.reader.lock() = Some(reader);
    }

    /// Waits for the end of the log: whether every process that writes to it is gone.
    pub(crate) fn ended(&self, within: Duration) -> bool {
        let Some(reader) = self.reader.lock().take() else { return true };
        let end = Instant::now() + within;
        while !reader.is_finished() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    pub(crate) fn allow(&self, part: &str) {
        self.allowed.lock().push(part.to_owned());
    }

    pub(crate) fn lines(&self) -> Vec<LogLine> {
        self.lines.lock().clone()
    }

    /// The alarms that no test expects.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        let allowed = self.allowed.lock();
        let expected = |line: &LogLine| allowed.iter().any(|part| line.text.contains(part));
        let lines = self.lines.lock();
        lines.iter().filter(|l| l.is_alarm() && !expected(l)).map(|l| l.text.clone()).collect()
    }

    /// For the message of a test that fails.
    pub(crate) fn tail(&self) -> String {
        let lines = self.lines.lock();
        let tail: Vec<_> = lines.iter().rev().take(30).rev().map(|l| l.text.as_str()).collect();
        tail.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_warnings_errors_and_what_is_no_json() {
        let alarm = |text: &str| LogLine::of(text.to_owned()).is_alarm();
        assert!(alarm(r#"{"level":"WARN","message":"x"}"#));
        assert!(alarm(r#"{"level":"ERROR","message":"x"}"#));
        assert!(alarm("thread 'main' panicked at x"));
        assert!(!alarm(r#"{"level":"INFO","message":"WARN"}"#));
    }

    #[test]
    fn what_is_allowed_is_no_surprise() {
        let log = Log::default();
        log.lines.lock().push(LogLine::of(r#"{"level":"WARN","message":"billing ended"}"#.to_owned()));
        assert_eq!(log.unexpected().len(), 1);
        log.allow("billing ended");
        assert!(log.unexpected().is_empty());
    }
}
