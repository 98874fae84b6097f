use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::uri::Scheme;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use metrics::Counter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;
use wasmeter_admission::{Budgets, Gate, HopKey, TokenKeys};
use wasmeter_catalog::Catalog;
use wasmeter_runtime::Invoker;
use wasmeter_types::{Error, ErrorKind, HEADER_BYTES, HEADERS};

use crate::answer::{self, Body};
use crate::authority::Domain;
use crate::control::control;
use crate::head;
use crate::once::Once;
use crate::route::{Route, route};
use crate::socket::Sockets;
use crate::tls::Tls;
use crate::trigger::trigger;
use crate::webhook::Webhooks;

/// The control API, as the composition root gives it.
pub type ControlService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Limits of the public listener.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Connections at one time; more are closed at once.
    pub connections: usize,
    /// Time for a request's head to arrive.
    pub head_timeout: Duration,
    /// WebSockets at one time.
    pub websockets: usize,
    /// How long a drain waits for connections to finish what they do.
    pub drain_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections: 4096,
            head_timeout: Duration::from_secs(10),
            websockets: 1024,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// Whether the host takes new work: the answer of `/readyz`.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says yes or no from now on.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// The answer.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What the public listener stands on.
#[derive(Clone)]
pub struct Deps {
    /// What is deployed.
    pub catalog: Catalog,
    /// Who is calling.
    pub tokens: TokenKeys,
    /// How deep a chain of functions is.
    pub hops: HopKey,
    /// How much at one time.
    pub gate: Gate,
    /// For how much money.
    pub budgets: Budgets,
    /// Runs functions.
    pub invoker: Invoker,
    /// `/api/…`.
    pub control: ControlService,
    /// `/stripe/webhook`; nothing is there without.
    pub webhooks: Option<Webhooks>,
    /// Requests that carry an idempotency key.
    pub once: Once,
    /// Below it, each function has a host name of its own; without it, none has.
    pub domain: Option<Domain>,
    /// TLS; plain text without.
    pub tls: Option<Tls>,
    /// The longest silence of a client within a request's body.
    pub silence: Duration,
    /// `/readyz`.
    pub ready: Readiness,
}

/// Serves until `stop`, then drains: no new connections, each open one finishes what it does.
///
/// No more connections begin at one time than there are processors: a flood of them waits in the system's queue, and
/// those that are open do not stand behind it in the runtime's. A connection that is silent at first keeps no place.
///
/// # Errors
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    deps: Deps,
    options: ServerOptions,
    stop: CancellationToken,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(options.connections));
    let beginners = Arc::new(Semaphore::new(thread::available_parallelism().map_or(1, usize::from)));
    let graceful = GracefulShutdown::new();
    let sockets = Sockets::new(options.websockets, stop.clone());
    let front = Arc::new(Front { deps, sockets: sockets.clone(), builder: builder(options), options });
    loop {
        let accepted = async {
            let place = beginners.clone().acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        let (stream, place) = tokio::select! {
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Such as too many open files: accepting again at once would only spin.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            metrics::counter!("wasmeter_connections_refused_total").increment(1);
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (front, watcher) = (front.clone(), graceful.watcher());
        let mut place = Some(place);
        tokio::spawn(async move {
            let mut connection = pin!(front.accept(stream, watcher));
            poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                place = None;
                polled
            })
            .await;
            drop(slot);
        });
    }
    drop(listener);
    let drained = async {
        graceful.shutdown().await;
        sockets.drained().await;
    };
    if tokio::time::timeout(options.drain_timeout, drained).await.is_err() {
        tracing::warn!("connections were still open at the end of the drain time");
    }
    Ok(())
}

/// What all connections share.
struct Front {
    deps: Deps,
    sockets: Sockets,
    builder: auto::Builder<TokioExecutor>,
    options: ServerOptions,
}

impl Front {
    async fn accept(self: Arc<Self>, stream: TcpStream, watcher: Watcher) {
        let Some(tls) = self.deps.tls.clone() else { return self.carry(stream, Scheme::HTTP, watcher).await };
        let handshake = tls.acceptor().accept(stream);
        match tokio::time::timeout(self.options.head_timeout, handshake).await {
            Ok(Ok(stream)) => Box::pin(self.carry(stream, Scheme::HTTPS, watcher)).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("no TLS within the time for a head"),
        }
    }

    /// Serves one connection to its end.
    async fn carry<I>(self: Arc<Self>, io: I, scheme: Scheme, watcher: Watcher)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let asked = Arc::new(AtomicBool::new(false));
        let (front, seen) = (self.clone(), asked.clone());
        let service = service_fn(move |request| {
            seen.store(true, Ordering::Relaxed);
            let (front, scheme) = (front.clone(), scheme.clone());
            async move { Ok::<_, Infallible>(front.respond(scheme, request).await) }
        });
        let connection = self.builder.serve_connection_with_upgrades(TokioIo::new(io), service).into_owned();
        // Until the version is known the library waits for ever.
        let silent = async {
            tokio::time::sleep(self.options.head_timeout).await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            // A peer that breaks off or breaks the protocol is its own matter.
            ended = watcher.watch(connection) => if let Err(error) = ended {
                tracing::debug!(error = %error, "connection ended");
            },
            () = silent => tracing::debug!("a connection without a request"),
        }
    }
}

/// Header fields, and bytes of a head, beyond which the parser ends the connection with an answer that cannot say why.
const PARSED: usize = 2 * HEADERS as usize;
const PARSED_BYTES: usize = 2 * HEADER_BYTES as usize;

fn builder(options: ServerOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_buf_size(PARSED_BYTES)
        .max_headers(PARSED)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(PARSED_BYTES as u32)
        .max_local_error_reset_streams(256)
        .keep_alive_interval(Duration::from_secs(30));
    builder
}

impl Front {
    async fn respond(&self, scheme: Scheme, request: Request<Incoming>) -> Response<Body> {
        let deps = &self.deps;
        let version = request.version();
        let found = head::check(request.headers()).and_then(|()| {
            let (method, uri) = (request.method(), request.uri());
            route(deps.domain.as_ref(), method, version, uri, request.headers())
        });
        let response = match found {
            Ok(Route::Function(target)) => trigger(deps, scheme, *target, request).await,
            // Boxed, so that a trigger is not moved with the size of these.
            Ok(Route::Socket(target)) => Box::pin(self.sockets.open(deps, scheme, *target, request)).await,
            Ok(Route::Control) => {
                Box::pin(control(deps, request)).await.unwrap_or_else(|error| answer::error(&error, None))
            }
            Ok(Route::Webhook) => match &deps.webhooks {
                Some(webhooks) => Box::pin(webhooks.receive(request)).await,
                None => answer::error(&nothing(), None),
            },
            Ok(Route::Done) => answer::text(StatusCode::OK, "text/plain; charset=utf-8", DONE),
            Ok(Route::Live) => answer::text(StatusCode::OK, "text/plain", "ok\n"),
            Ok(Route::Ready) if deps.ready.get() => answer::text(StatusCode::OK, "text/plain", "ready\n"),
            Ok(Route::Ready) => {
                answer::error(&Error::new(ErrorKind::Overloaded, "the host is starting or draining"), None)
            }
            Ok(Route::Server) => answer::text(StatusCode::NO_CONTENT, "text/plain", ""),
            Ok(Route::Nothing) => answer::error(&nothing(), None),
            Err(error) => {
                let mut response = answer::error(&error, None);
                if version < Version::HTTP_2 {
                    // What follows on the connection may not be what its sender meant.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        };
        let class = match response.status().as_u16() / 100 {
            1 | 2 => 0,
            3 => 1,
            4 => 2,
            _ => 3,
        };
        RESPONSES[class].increment(1);
        response
    }
}

/// Where the pages of Stripe lead back to, unless the tenant has a page of its own.
const DONE: &str = "Done. This page can be closed; `wasmeter bill` shows how the subscription stands.\n";
/// Looked up once, at the first answer: that costs more than to count.
static RESPONSES: LazyLock<[Counter; 4]> = LazyLock::new(|| {
    ["2xx", "3xx", "4xx", "5xx"]
        .map(|class| metrics::counter!("wasmeter_http_responses_total", "class" => class))
});

fn nothing() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "nothing is here: functions are at /fn/{tenant}/{function}, the API at /api/v1",
    )
}
