use parking_lot::Mutex;
use wasmeter_ledger::{FreeUse, LedgerError, Reader, Refusal};
use wasmeter_rating::PriceBook;
use wasmeter_usage::wire::{Call, MAX_PAGE, PROTOCOL, Reply, UnderWay};

use std::sync::Arc;

use crate::alerts::Alerts;
use crate::budget;
use crate::call::Incoming;
use crate::nodes::Nodes;
use crate::now::now_ns;
use crate::readers::{AskError, Readers};
use crate::stripe::{self, Stripe};
use crate::writer::Writer;

/// Answers calls, whatever connection they come from.
pub(crate) struct Service {
    pub(crate) book: PriceBook,
    /// What the ledger is stamped with, or that it is not.
    pub(crate) stamp: &'static str,
    pub(crate) nodes: Nodes,
    // Dropped before the writer: the last connection to close, if it may write, folds the log into the ledger's file.
    pub(crate) readers: Readers,
    pub(crate) writer: Writer,
    pub(crate) stripe: Option<Arc<Stripe>>,
    pub(crate) alerts: Alerts,
    pub(crate) free: Arc<Mutex<FreeUse>>,
    /// ISO 4217.
    pub(crate) currency: String,
}

/// The words of `Reply::Refused`.
pub(crate) mod code {
    pub(crate) const GAP: &str = "gap";
    pub(crate) const PROTOCOL: &str = "protocol";
    pub(crate) const MALFORMED: &str = "malformed";
    pub(crate) const UNKNOWN_NODE: &str = "unknown_node";
    pub(crate) const BUDGET: &str = "budget";
    pub(crate) const AMOUNT: &str = "amount";
    pub(crate) const BUSY: &str = "busy";
    pub(crate) const TOO_LARGE: &str = "too_large";
    pub(crate) const STRIPE_OFF: &str = "stripe_off";
    pub(crate) const STRIPE_AWAY: &str = "stripe_away";
    pub(crate) const NO_CUSTOMER: &str = "no_customer";
    pub(crate) const INTERNAL: &str = "internal";
}

fn under_way(found: wasmeter_ledger::UnderWay, charges: bool) -> UnderWay {
    let waits = found.oldest_ns.map_or(0, |since| now_ns().saturating_sub(since) / 1_000_000_000);
    UnderWay {
        buckets: found.buckets,
        oldest_s: waits,
        uncounted: if charges { found.uncounted } else { 0 },
        invoices: found.invoices,
        alerts: found.alerts,
    }
}

/// A refusal of a call.
pub(crate) fn refused(code: &str, message: impl ToString) -> Reply {
    Reply::Refused { code: code.to_owned(), message: message.to_string() }
}

impl Service {
    pub(crate) async fn answer(&self, call: Incoming) -> Reply {
        let call = match call {
            Incoming::Append(batch) => return self.append(batch).await,
            Incoming::Other(call) => call,
        };
        let answer = match call {
            Call::Hello { protocol, node } => return self.hello(protocol, &node),
            // Read apart by `call::parse`, and never here.
            Call::Append { .. } => return refused(code::MALFORMED, "append was not read as one"),
            Call::HighWater { node, epoch } => {
                let seq = self.readers.ask(move |r| r.high_water(&node, epoch)).await;
                seq.map(|acked_seq| Reply::Acked { acked_seq })
            }
            Call::Usage { tenant, from_ns, to_ns, by } => {
                let rows = self.readers.ask(move |r| r.usage(&tenant, from_ns, to_ns, by)).await;
                rows.map(|rows| Reply::Usage { rows })
            }
            Call::Bill { tenant, from_ns, to_ns } => {
                self.readers.ask(move |r| r.bill(&tenant, from_ns, to_ns)).await.map(Reply::Bill)
            }
            Call::Receipts { tenant, from_ns, to_ns, after, limit } => {
                let page = self.readers.ask(move |r| r.receipts(&tenant, from_ns, to_ns, after, limit)).await;
                page.map(|(lines, next)| Reply::Receipts { lines, next })
            }
            Call::Receipt { tenant, invocation } => {
                let found = self.readers.ask(move |r| r.receipt(&tenant, invocation)).await;
                found.map(|receipt| Reply::Receipt { receipt: receipt.map(Box::new) })
            }
            Call::Export { tenant, from_ns, to_ns, cursor } => {
                let window = (from_ns, to_ns);
                let page =
                    self.readers.ask(move |r| r.export(&tenant, window, cursor, MAX_PAGE, now_ns())).await;
                page.map(|(text, next)| Reply::Export { text, next })
            }
            Call::ReceiptAlone { tenant, invocation } => {
                let found = self.readers.ask(move |r| r.receipt_alone(&tenant, invocation)).await;
                found.map(|text| Reply::ReceiptAlone { text })
            }
            Call::ReceiptKeys => {
                self.readers.ask(Reader::receipt_keys).await.map(|keys| Reply::ReceiptKeys { keys })
            }
            Call::Budgets => {
                let admission = self.stripe.as_ref().map(|stripe| stripe.admission);
                let free = Arc::clone(&self.free);
                let question = move |r: &Reader| {
                    let unpaid = admission
                        .map_or(Ok(Vec::new()), |terms| r.unpaid(&terms, &mut free.lock(), now_ns()))?;
                    Ok(Reply::Budgets { budgets: r.budgets()?, unpaid })
                };
                self.readers.ask(question).await
            }
            Call::UnderWay => {
                let charges = self.stripe.is_some();
                let found = self.readers.ask(Reader::under_way).await;
                found.map(|found| Reply::UnderWay(under_way(found, charges)))
            }
            Call::Quote { tenant, function, calls } => {
                self.readers.ask(move |r| r.quote(&tenant, &function, calls)).await.map(Reply::Quote)
            }
            Call::Budget { .. }
            | Call::SetBudget { .. }
            | Call::GrantCredit { .. }
            | Call::Adjust { .. }
            | Call::Lease(_) => {
                return budget::answer(self, call).await;
            }
            Call::Checkout { .. } | Call::Portal { .. } | Call::Webhook { .. } | Call::Standing { .. } => {
                return stripe::answer(self, call).await;
            }
        };
        answer.unwrap_or_else(|error| match error {
            AskError::Ledger(LedgerError::Amount(error)) => refused(code::AMOUNT, error),
            error => {
                tracing::error!(%error, "a question to the ledger failed");
                refused(code::INTERNAL, "the ledger could not be read; see the log of wasmeter-billing")
            }
        })
    }

    fn hello(&self, protocol: u16, node: &str) -> Reply {
        if protocol != PROTOCOL {
            let message = format!(
                "protocol {protocol} is not spoken here, {PROTOCOL} is; run host and billing of one release"
            );
            return refused(code::PROTOCOL, message);
        }
        if let Err(message) = self.nodes.greet(node) {
            return refused(code::PROTOCOL, message);
        }
        match self.book.at(now_ns()) {
            Ok(entry) => Reply::Hello {
                protocol: PROTOCOL,
                stamp: self.stamp.to_string(),
                prices: entry.sheet.clone(),
            },
            Err(error) => {
                tracing::error!(%error, "no price is in force; is the clock right?");
                refused(code::INTERNAL, error)
            }
        }
    }

    /// Whether records of the node are taken: it said hello, or the ledger holds something of it.
    async fn knows(&self, node: &str) -> Result<bool, AskError> {
        if self.nodes.knows(node) {
            return Ok(true);
        }
        let name = node.to_owned();
        self.readers.ask(move |reader| reader.has_node(&name)).await
    }

    async fn append(&self, batch: wasmeter_ledger::Batch) -> Reply {
        match self.knows(&batch.node).await {
            Ok(true) => {}
            Ok(false) => {
                let node: String = batch.node.chars().take(128).collect();
                tracing::warn!(node, "records of an unknown node were refused");
                let message =
                    format!("node {node:?} is unknown: it has to say hello before records of it are taken");
                return refused(code::UNKNOWN_NODE, message);
            }
            Err(error) => {
                tracing::error!(%error, "a question to the ledger failed");
                return refused(
                    code::INTERNAL,
                    "the ledger could not be read; see the log of wasmeter-billing",
                );
            }
        }
        match self.writer.append(batch).await {
            Ok(Ok(done)) => Reply::Acked { acked_seq: done.acked_seq },
            Ok(Err(gap @ Refusal::Gap { .. })) => refused(code::GAP, gap),
            Ok(Err(malformed @ Refusal::Malformed(_))) => refused(code::MALFORMED, malformed),
            Err(failed) => refused(code::INTERNAL, failed),
        }
    }
}
