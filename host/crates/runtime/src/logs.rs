use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use tokio::sync::broadcast;
use wasmeter_types::{FunctionName, InvocationId, TenantName, unix_ns};

/// Lines kept of one function.
const LINES: usize = 1000;
/// Bytes kept of one function.
const BYTES: usize = 256 << 10;
/// Lines that a follower may lag behind.
const LAG: usize = 256;
/// A longer line is cut.
const LINE_BYTES: usize = 8 << 10;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// The guest's standard output.
    Stdout,
    /// The guest's standard error.
    Stderr,
    /// A message with a level (`wasi:logging`).
    Log,
    /// wasmeter, about the invocation: a trap with its backtrace, a limit that was met.
    Platform,
}

/// How much a message matters, in `wasi:logging`'s words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Step by step.
    Trace,
    /// For whoever debugs.
    Debug,
    /// Expected.
    Info,
    /// In spite of something.
    Warn,
    /// Failed.
    Error,
    /// Failed for good.
    Critical,
}

impl LogLevel {
    /// `trace` to `critical`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// One line of a function's log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The invocation.
    pub invocation: InvocationId,
    /// Where it came from.
    pub stream: LogStream,
    /// Of a message.
    pub level: Option<LogLevel>,
    /// Without the line break.
    pub text: String,
}

/// The last lines of each function, in memory. Cheap to clone.
#[derive(Clone, Default)]
pub struct LogHub {
    functions: Arc<RwLock<Functions>>,
}

type Functions = HashMap<(TenantName, FunctionName), Arc<FunctionLog>>;

/// The log of one function.
#[derive(Default)]
pub(crate) struct FunctionLog {
    ring: Mutex<Ring>,
    /// There from the first follower on: its ring of 256 places is most of what a silent function would hold.
    live: OnceLock<broadcast::Sender<Arc<LogLine>>>,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<Arc<LogLine>>,
    bytes: usize,
}

impl LogHub {
    pub(crate) fn of(&self, tenant: &TenantName, function: &FunctionName) -> Arc<FunctionLog> {
        let key = (tenant.clone(), function.clone());
        if let Some(log) = self.functions.read().get(&key) {
            return log.clone();
        }
        self.functions.write().entry(key).or_default().clone()
    }

    /// The kept lines, oldest first.
    #[must_use]
    pub fn tail(&self, tenant: &TenantName, function: &FunctionName) -> Vec<Arc<LogLine>> {
        let log = self.functions.read().get(&(tenant.clone(), function.clone())).cloned();
        log.map(|l| l.ring.lock().lines.iter().cloned().collect()).unwrap_or_default()
    }

    /// The kept lines, and those to come. A follower that is too slow loses lines, not the writer time.
    #[must_use]
    pub fn follow(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
    ) -> (Vec<Arc<LogLine>>, broadcast::Receiver<Arc<LogLine>>) {
        let log = self.of(tenant, function);
        let ring = log.ring.lock();
        let live = log.live.get_or_init(|| broadcast::channel(LAG).0);
        (ring.lines.iter().cloned().collect(), live.subscribe())
    }

    /// Drops the lines of a deleted function.
    pub fn forget(&self, tenant: &TenantName, function: &FunctionName) {
        self.functions.write().remove(&(tenant.clone(), function.clone()));
    }
}

impl FunctionLog {
    pub(crate) fn push(&self, invocation: InvocationId, stream: LogStream, text: &str) {
        self.push_line(invocation, stream, None, text);
    }

    pub(crate) fn push_message(&self, invocation: InvocationId, level: LogLevel, text: &str) {
        self.push_line(invocation, LogStream::Log, Some(level), text);
    }

    fn push_line(&self, invocation: InvocationId, stream: LogStream, level: Option<LogLevel>, text: &str) {
        let mut text = text.to_owned();
        if text.len() > LINE_BYTES {
            text.truncate(text.floor_char_boundary(LINE_BYTES));
            text.push('…');
        }
        let line = Arc::new(LogLine { time_ns: unix_ns(), invocation, stream, level, text });
        let mut ring = self.ring.lock();
        ring.bytes += line.text.len();
        ring.lines.push_back(line.clone());
        while ring.lines.len() > LINES || ring.bytes > BYTES {
            let Some(old) = ring.lines.pop_front() else { break };
            ring.bytes -= old.text.len();
        }
        if let Some(live) = self.live.get() {
            // An error means that nobody follows.
            let _ = live.send(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_within_bounds() {
        let hub = LogHub::default();
        let (tenant, function) = ("dev".parse().unwrap(), "f".parse().unwrap());
        let log = hub.of(&tenant, &function);
        let id = InvocationId::new();
        for i in 0..2 * LINES {
            log.push(id, LogStream::Stdout, &i.to_string());
        }
        let lines = hub.tail(&tenant, &function);
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines.last().unwrap().text, (2 * LINES - 1).to_string());
        for _ in 0..100 {
            log.push(id, LogStream::Stdout, &"ä".repeat(LINE_BYTES));
        }
        assert!(hub.tail(&tenant, &function).iter().map(|l| l.text.len()).sum::<usize>() <= BYTES);
        hub.forget(&tenant, &function);
        assert!(hub.tail(&tenant, &function).is_empty());
    }
}
