use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use wasmeter_usage::PriceSheet;
use wasmeter_usage::wire::{self, Call, PROTOCOL, Reply};

use crate::prices;

/// Between two attempts to connect: doubles from the first to the second. A Unix socket costs next to nothing to try.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// How billing is reached.
#[derive(Clone, Debug)]
pub struct BillingOptions {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Name of this node, for `Hello`.
    pub node: String,
    /// Connections at one time; further calls wait for one.
    pub pool: usize,
    /// Of one call, waiting and connecting included.
    pub timeout: Duration,
    /// Where the last price sheet is kept, so that a host that starts before billing can price.
    pub prices: Option<PathBuf>,
}

impl BillingOptions {
    /// The defaults: 8 connections, 10 seconds, prices not kept.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, node: impl Into<String>) -> Self {
        Self {
            socket: socket.into(),
            node: node.into(),
            pool: 8,
            timeout: Duration::from_secs(10),
            prices: None,
        }
    }
}

/// A call that got no good answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BillingError {
    /// Billing is not there, or did not answer in time. The call may have been carried out.
    #[error("billing is not available: {0}")]
    Unavailable(String),
    /// Billing refused the call; nothing changed.
    #[error("billing refused the call ({code}): {message}")]
    Refused {
        /// Stable word, such as `gap`.
        code: String,
        /// What, which, and what to do.
        message: String,
    },
    /// The two sides do not speak the same protocol.
    #[error("billing speaks another protocol: {0}: run host and billing of the same version")]
    Protocol(String),
}

impl From<io::Error> for BillingError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Protocol(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Calls to billing over its socket, with a bounded pool of connections. Cheap to clone.
#[derive(Clone)]
pub struct BillingClient {
    inner: Arc<Inner>,
}

struct Inner {
    options: BillingOptions,
    permits: Semaphore,
    idle: Mutex<Vec<UnixStream>>,
    prices: ArcSwapOption<PriceSheet>,
    /// Held while a new sheet is taken over: connections greet at one time, and the file has one writer.
    adopting: tokio::sync::Mutex<()>,
    /// When the next connection may be tried, and the delay after a failure.
    retry: Mutex<(Option<Instant>, Duration)>,
}

impl BillingClient {
    /// A client; it connects at its first call. Reads the kept prices: blocking, and short.
    #[must_use]
    pub fn new(options: BillingOptions) -> Self {
        let kept = options.prices.as_deref().and_then(prices::load).map(Arc::new);
        let inner = Inner {
            permits: Semaphore::new(options.pool.max(1)),
            idle: Mutex::new(Vec::new()),
            prices: ArcSwapOption::new(kept),
            adopting: tokio::sync::Mutex::new(()),
            retry: Mutex::new((None, RETRY.0)),
            options,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The last known list prices: of the last `Hello`, or kept from an earlier run. `None` if billing was never seen.
    #[must_use]
    pub fn prices(&self) -> Option<Arc<PriceSheet>> {
        self.inner.prices.load_full()
    }

    /// Makes one call. Every call of the protocol may be repeated, so that a pooled connection that turns out to be
    /// closed is replaced without the caller knowing.
    ///
    /// # Errors
    /// `Unavailable`, `Refused`, `Protocol`.
    pub async fn call(&self, call: Call) -> Result<Reply, BillingError> {
        let frame = wire::encode(&call)?;
        self.call_encoded(&frame).await
    }

    /// The same for a call that is a frame already.
    ///
    /// # Errors
    /// As [`BillingClient::call`].
    pub(crate) async fn call_encoded(&self, frame: &[u8]) -> Result<Reply, BillingError> {
        self.within(self.inner.options.timeout, self.exchange(frame)).await
    }

    /// Waits until billing has answered a `Hello`, which also brings the current prices.
    ///
    /// # Errors
    /// `Unavailable` after `wait`; `Refused`, `Protocol`.
    pub async fn ready(&self, wait: Duration) -> Result<(), BillingError> {
        let connect = async {
            let _permit = self.permit().await?;
            loop {
                match self.connect().await {
                    Ok(stream) => break self.inner.idle.lock().push(stream),
                    Err(BillingError::Unavailable(_)) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        };
        self.within(wait, connect).await
    }

    async fn within<T>(
        &self,
        time: Duration,
        work: impl Future<Output = Result<T, BillingError>>,
    ) -> Result<T, BillingError> {
        timeout(time, work).await.unwrap_or_else(|_| {
            let socket = self.inner.options.socket.display();
            Err(BillingError::Unavailable(format!("no answer at {socket} within {time:?}")))
        })
    }

    async fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, BillingError> {
        self.inner.permits.acquire().await.map_err(|e| BillingError::Unavailable(e.to_string()))
    }

    async fn exchange(&self, frame: &[u8]) -> Result<Reply, BillingError> {
        let _permit = self.permit().await?;
        let pooled = self.inner.idle.lock().pop();
        if let Some(mut stream) = pooled {
            match round_trip(&mut stream, frame).await {
                Err(BillingError::Unavailable(_)) => {
                    // Billing was restarted: the others of the pool are as dead as this one.
                    self.inner.idle.lock().clear();
                }
                answer => return self.settle(stream, answer),
            }
        }
        let mut stream = self.connect().await?;
        let answer = round_trip(&mut stream, frame).await;
        self.settle(stream, answer)
    }

    /// Puts the connection back if it is in order.
    fn settle(&self, stream: UnixStream, answer: Result<Reply, BillingError>) -> Result<Reply, BillingError> {
        let reply = answer?;
        self.inner.idle.lock().push(stream);
        accept(reply)
    }

    async fn connect(&self) -> Result<UnixStream, BillingError> {
        let not_before = self.inner.retry.lock().0;
        if let Some(not_before) = not_before {
            sleep_until(not_before).await;
        }
        let stream = self.greet().await;
        let mut retry = self.inner.retry.lock();
        *retry = match &stream {
            Ok(_) => (None, RETRY.0),
            Err(_) => (Some(Instant::now() + retry.1), (retry.1 * 2).min(RETRY.1)),
        };
        stream
    }

    async fn greet(&self) -> Result<UnixStream, BillingError> {
        let options = &self.inner.options;
        let mut stream = UnixStream::connect(&options.socket).await.map_err(|e| {
            BillingError::Unavailable(format!("cannot connect to {}: {e}", options.socket.display()))
        })?;
        let hello = wire::encode(&Call::Hello { protocol: PROTOCOL, node: options.node.clone() })?;
        match accept(round_trip(&mut stream, &hello).await?)? {
            Reply::Hello { protocol: PROTOCOL, prices, .. } => {
                self.adopt(prices).await;
                Ok(stream)
            }
            Reply::Hello { protocol, .. } => {
                Err(BillingError::Protocol(format!("it has version {protocol}, this host {PROTOCOL}")))
            }
            _ => Err(BillingError::Protocol("it did not answer hello with hello".to_owned())),
        }
    }

    async fn adopt(&self, prices: PriceSheet) {
        let _adopting = self.inner.adopting.lock().await;
        if self.inner.prices.load().as_deref() == Some(&prices) {
            return;
        }
        let prices = Arc::new(prices);
        self.inner.prices.store(Some(prices.clone()));
        let Some(path) = self.inner.options.prices.clone() else { return };
        let kept = tokio::task::spawn_blocking(move || prices::store(&path, &prices)).await;
        if let Err(error) = kept.map_err(io::Error::other).flatten() {
            tracing::warn!(%error, "cannot keep the price sheet: a restart without billing shows no costs");
        }
    }
}

fn accept(reply: Reply) -> Result<Reply, BillingError> {
    match reply {
        Reply::Refused { code, message } => Err(BillingError::Refused { code, message }),
        reply => Ok(reply),
    }
}

async fn round_trip(stream: &mut UnixStream, frame: &[u8]) -> Result<Reply, BillingError> {
    stream.write_all(frame).await?;
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await?;
    let mut body = vec![0; wire::body_length(prefix)?];
    stream.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map_err(|e| BillingError::Protocol(e.to_string()))
}
