use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use wasmeter_types::{Error, ErrorKind};
use wasmeter_usage::Pico;

use super::{LeaseError, LeaseSource};

/// One invocation holds at most this part of what is there, unless that is less than it cannot do without: so near its
/// end a budget still carries many calls at one time.
const SHARE: i128 = 8;

/// What a host likes to have at hand, at least: one unit of the currency.
const AT_HAND: i128 = Pico::UNIT;

/// A ledger that had no more is asked again after this time, or when a budget changes; one that is away after the second.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Money of a tenant, or of one of its keys, on this host.
pub(super) struct Account {
    pub(super) tenant: String,
    pub(super) key: Option<String>,
    state: Mutex<State>,
    /// One question at a time, so that answers are taken in their order.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// All that this process may draw, since it started.
    granted: i128,
    /// What ended invocations cost.
    spent: i128,
    /// Held by those that run.
    held: i128,
    /// When the lease runs out.
    until: Option<Instant>,
    /// The end of the last question.
    answered: Option<Instant>,
    away: bool,
    /// The last draw.
    used: Option<Instant>,
}

impl State {
    fn left(&self) -> i128 {
        if self.until.is_some_and(|until| Instant::now() < until) {
            (self.granted - self.spent - self.held).max(0)
        } else {
            0
        }
    }
}

impl Account {
    pub(super) fn new(tenant: String, key: Option<String>) -> Self {
        Self { tenant, key, state: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// Holds `want`, or a share of what is left that is at least `least`.
    pub(super) fn hold(&self, least: i128, want: i128) -> Option<i128> {
        let mut state = self.state.lock();
        let amount = want.min((state.left() / SHARE).max(least));
        if amount > state.left() {
            return None;
        }
        state.held += amount;
        state.used = Some(Instant::now());
        Some(amount)
    }

    /// Gives back what is held; `cost` of it is spent.
    pub(super) fn end(&self, held: i128, cost: i128) {
        let mut state = self.state.lock();
        state.held -= held;
        state.spent += cost;
    }

    /// Whether a hold of `want` would be cut short, and asking may help.
    pub(super) fn is_short(&self, want: i128) -> bool {
        let state = self.state.lock();
        let again = match (state.away, state.until) {
            (true, _) => ASK_AGAIN.1,
            (false, Some(_)) => ASK_AGAIN.0,
            // It was given back.
            (false, None) => Duration::ZERO,
        };
        let asked_lately = state.answered.is_some_and(|answered| answered.elapsed() < again);
        state.left() / SHARE < want && !asked_lately
    }

    /// A budget has changed: the ledger may have more.
    pub(super) fn ask_anew(&self) {
        self.state.lock().answered = None;
    }

    /// Asks the ledger for more, unless somebody has while this waited for its turn.
    pub(super) async fn ask(&self, source: &dyn LeaseSource, want: i128) {
        let began = Instant::now();
        let _turn = self.asking.lock().await;
        if self.state.lock().answered.is_some_and(|answered| answered >= began) {
            return;
        }
        self.exchange(source, want.saturating_mul(SHARE).max(AT_HAND)).await;
    }

    /// Prolongs the lease in its second half, or gives back what nobody draws on any more.
    pub(super) async fn keep(&self, source: &dyn LeaseSource, term: Duration) {
        let _turn = self.asking.lock().await;
        let (due, idle) = {
            let state = self.state.lock();
            let Some(until) = state.until else { return };
            let idle = state.held == 0 && state.used.is_none_or(|used| used.elapsed() >= term);
            (until < Instant::now() + term / 2, idle)
        };
        if due && idle {
            self.give_back(source).await;
        } else if due {
            self.exchange(source, AT_HAND).await;
        }
    }

    /// The end of the host.
    pub(super) async fn close(&self, source: &dyn LeaseSource) {
        let _turn = self.asking.lock().await;
        if self.state.lock().until.is_some() {
            self.give_back(source).await;
        }
    }

    async fn give_back(&self, source: &dyn LeaseSource) {
        // From now on nobody draws on what goes back.
        self.state.lock().until = None;
        self.exchange(source, 0).await;
        self.state.lock().until = None;
    }

    async fn exchange(&self, source: &dyn LeaseSource, want: i128) {
        let began = Instant::now();
        let (drawn, want) = {
            let state = self.state.lock();
            // Less than is there would give back what others draw on meanwhile.
            (state.spent + state.held, if want == 0 { 0 } else { want.max(state.left()) })
        };
        let answer = source.lease(&self.tenant, self.key.as_deref(), Pico(drawn), Pico(want)).await;
        let mut state = self.state.lock();
        state.answered = Some(Instant::now());
        state.away = answer == Err(LeaseError::Away);
        match answer {
            Ok(lease) => {
                state.granted = lease.granted.0;
                // By the clock of the question: the ledger counts from its arrival.
                state.until = Some(began + Duration::from_millis(lease.for_ms));
            }
            // What is leased is good until it runs out.
            Err(LeaseError::Away) => {}
            Err(LeaseError::Gone) => state.until = None,
        }
    }

    /// What a caller is told whom this account refuses.
    pub(super) fn refusal(&self) -> Error {
        if self.state.lock().away {
            let message =
                "billing does not answer, and the host has nothing left of the tenant's budget: retry later";
            return Error::new(ErrorKind::Unavailable, message);
        }
        Error::new(ErrorKind::PaymentRequired, self.why())
    }

    pub(super) fn why(&self) -> String {
        match &self.key {
            None => format!(
                "the budget of tenant {} is used up: raise it with `wasmeter budget set`, or have credits granted",
                self.tenant
            ),
            Some(key) => {
                format!("the key {key} has used up its cap: raise it with `wasmeter budget set --key`")
            }
        }
    }
}
