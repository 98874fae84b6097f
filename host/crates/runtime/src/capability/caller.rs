use std::sync::Arc;

use tokio::time::Instant;
use wasmeter_admission::Depth;
use wasmeter_catalog::Revision;
use wasmeter_types::{InvocationId, TenantName};
use wasmeter_usage::PriceSheet;

use super::{KeyValueUsed, Used};
use crate::logs::{FunctionLog, LogLevel, LogStream};
use crate::stdio::LogBudget;
use crate::tape::Tape;
use crate::toll::Toll;

/// The invocation, as its capabilities see it: whose it is, what it may, and what it has used of that.
pub(crate) struct Caller {
    pub(crate) id: InvocationId,
    pub(crate) tenant: TenantName,
    pub(crate) revision: Arc<Revision>,
    pub(crate) log: Arc<FunctionLog>,
    /// Functions behind the request.
    pub(crate) depth: Depth,
    /// When everything ends.
    pub(crate) deadline: Instant,
    /// What it began with.
    pub(crate) fuel: u64,
    /// List prices, for the cost so far.
    pub(crate) prices: Option<Arc<PriceSheet>>,
    /// Bytes that may still be logged, with standard output and error.
    pub(crate) log_budget: LogBudget,
    pub(crate) outbound: Used,
    pub(crate) keyvalue: KeyValueUsed,
    /// Calls to the host.
    pub(crate) toll: Toll,
    /// Of a call that is recorded or run again.
    pub(crate) tape: Option<Arc<Tape>>,
}

impl Caller {
    /// The guest asks for what no recording keeps.
    pub(crate) fn beyond(&self, interface: &str) {
        if let Some(tape) = &self.tape {
            tape.beyond(|| format!("it called {interface}"));
        }
    }

    /// Tells the function's author, who cannot see why from an error code. The caller bounds how often.
    pub(crate) fn note(&self, text: &str) {
        self.log.push(self.id, LogStream::Platform, text);
    }

    /// The same where nothing else bounds how often: as far as the log's budget goes.
    pub(crate) fn remark(&self, text: &str) {
        let (granted, last) = self.log_budget.take(text.len());
        if granted == text.len() {
            self.note(text);
        }
        if last {
            self.note(LogBudget::FULL);
        }
    }

    /// A message of the guest's, as far as its budget goes.
    pub(crate) fn message(&self, level: LogLevel, context: &str, message: &str) {
        let (granted, last) = self.log_budget.take(context.len().saturating_add(message.len()));
        if granted > 0 {
            let context = cut(context, granted);
            let message = cut(message, granted - context.len());
            let text = if context.is_empty() { message.to_owned() } else { format!("{context}: {message}") };
            // One message is one line, whatever it holds.
            let text = text.trim_end_matches(['\n', '\r']).replace(['\n', '\r'], " ");
            self.log.push_message(self.id, level, &text);
        }
        if last {
            self.note(LogBudget::FULL);
        }
    }
}

/// The text's beginning, of at most so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
