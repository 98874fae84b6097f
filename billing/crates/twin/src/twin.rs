use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::clock::wall;
use crate::faults::{Dice, Faults};
use crate::journal::JournalError;
use crate::kind::Kind;
use crate::limits::{Lanes, Rate};
use crate::object::webhook_endpoint;
use crate::state::State;

/// Requests that `/_twin/requests` remembers.
const REMEMBERED: usize = 5_000;

/// How a twin is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept; ours alone, and there already.
    pub data: PathBuf,
    /// Makes ids, secrets and faults of a new data directory repeatable.
    pub seed: Option<u64>,
    /// Where webhooks go, on this machine.
    pub webhook_url: Option<String>,
}

/// Why a twin does not start.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// What was kept cannot be read.
    #[error("{0}")]
    Journal(String),
    /// Not an address that the twin sends to.
    #[error("webhook address {0:?} is not like http://127.0.0.1:8080/stripe/webhook")]
    WebhookUrl(String),
    /// A file or socket of the twin's.
    #[error("cannot use {what}: {error}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        error: std::io::Error,
    },
}

impl From<JournalError> for TwinError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error.to_string())
    }
}

/// All of a twin: what every request locks, and what wakes its deliveries.
pub(crate) struct Twin {
    pub(crate) inner: Mutex<Inner>,
    /// Something is to be delivered.
    pub(crate) news: Notify,
}

pub(crate) struct Inner {
    pub(crate) state: State,
    pub(crate) faults: Faults,
    pub(crate) dice: Dice,
    pub(crate) lanes: Lanes,
    pub(crate) rate: Rate,
    pub(crate) meter_rate: Rate,
    pub(crate) requests: VecDeque<Value>,
    /// What happened to requests since the start.
    pub(crate) counts: Map<String, Value>,
    pub(crate) key: String,
    pub(crate) base: String,
}

impl Twin {
    /// Reads what is kept, and makes what a new data directory lacks: the key, the signing secret, the endpoint.
    pub(crate) fn open(options: &Options) -> Result<Arc<Self>, TwinError> {
        let mut state = State::open(&options.data, options.seed)?;
        let fail = |error| TwinError::Io { what: "the journal".to_owned(), error };
        let text = |setting: Option<&Value>| setting.and_then(|s| s["text"].as_str()).map(str::to_owned);
        let key = match text(state.get(Kind::Setting, "key")) {
            Some(key) => key,
            None => {
                let key = format!("sk_test_twin{}", state.token(32));
                state.put(Kind::Setting, json!({ "id": "key", "text": key }));
                key
            }
        };
        let secret = match text(state.get(Kind::Setting, "webhook_secret")) {
            Some(secret) => secret,
            None => {
                let secret = format!("whsec_{}", state.token(32));
                state.put(Kind::Setting, json!({ "id": "webhook_secret", "text": secret }));
                secret
            }
        };
        if let Some(url) = &options.webhook_url {
            webhook_endpoint::address(url).map_err(|_| TwinError::WebhookUrl(url.clone()))?;
            let endpoint = json!({
                "id": "we_twin",
                "object": "webhook_endpoint",
                "api_version": crate::event::VERSION,
                "application": null,
                "created": wall(),
                "description": "the address that the twin was started with",
                "enabled_events": ["*"],
                "livemode": false,
                "metadata": {},
                "status": "enabled",
                "url": url,
                "_secret": secret,
            });
            state.put(Kind::WebhookEndpoint, endpoint);
        }
        state.commit().map_err(fail)?;
        for (name, text) in [("secret-key", &key), ("webhook-secret", &secret)] {
            crate::files::write(&options.data.join(name), text)?;
        }
        let faults = state.get(Kind::Setting, "faults").map(Faults::from_json).unwrap_or_default();
        // Another draw after each start, and the same ones for the same history.
        let dice = Dice::new(state.seed() ^ state.made());
        let inner = Inner {
            state,
            faults,
            dice,
            lanes: Lanes::default(),
            rate: Rate::new(),
            meter_rate: Rate::new(),
            requests: VecDeque::new(),
            counts: Map::new(),
            key,
            base: String::new(),
        };
        Ok(Arc::new(Self { inner: Mutex::new(inner), news: Notify::new() }))
    }
}

impl Inner {
    pub(crate) fn count(&mut self, what: &str) {
        let before = self.counts.get(what).and_then(Value::as_u64).unwrap_or(0);
        self.counts.insert(what.to_owned(), json!(before + 1));
    }

    pub(crate) fn log(&mut self, request: Value) {
        if self.requests.len() == REMEMBERED {
            self.requests.pop_front();
        }
        self.requests.push_back(request);
    }

    /// Does what time has brought so far.
    pub(crate) fn catch_up(&mut self, most: usize) -> std::io::Result<usize> {
        let base = self.base.clone();
        crate::bill::due::run(&mut self.state, &base, most)
    }
}
