use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use wasmeter_admission::{Gate, HopKey, TokenKeys};
use wasmeter_catalog::Catalog;
use wasmeter_runtime::Invoker;
use wasmeter_types::{Error, ErrorKind};

use crate::answer::{self, Body};
use crate::route::{Route, route};
use crate::trigger::trigger;

/// The control API, as the composition root gives it.
pub type ControlService = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// Limits of the public listener.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Connections at one time; more are closed at once.
    pub connections: usize,
    /// Time for a request's head to arrive.
    pub head_timeout: Duration,
    /// How long a drain waits for connections to finish what they do.
    pub drain_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections: 4096,
            head_timeout: Duration::from_secs(10),
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
    /// Runs functions.
    pub invoker: Invoker,
    /// `/api/…`.
    pub control: ControlService,
    /// `/readyz`.
    pub ready: Readiness,
}

/// Serves until `stop`, then drains: no new connections, each open one finishes what it does.
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
    let graceful = GracefulShutdown::new();
    let deps = Arc::new(deps);
    let server = builder(options);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
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
        let deps = deps.clone();
        let service = service_fn(move |request| {
            let deps = deps.clone();
            async move { Ok::<_, Infallible>(respond(&deps, request).await) }
        });
        let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A peer that breaks off or breaks the protocol is its own matter.
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(options.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open at the end of the drain time");
    }
    Ok(())
}

fn builder(options: ServerOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_buf_size(64 << 10)
        .max_headers(100)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(64 << 10)
        .max_local_error_reset_streams(256)
        .keep_alive_interval(Duration::from_secs(30));
    builder
}

async fn respond(deps: &Deps, request: Request<Incoming>) -> Response<Body> {
    let response = match route(request.uri()) {
        Ok(Route::Function(target)) => trigger(deps, *target, request).await,
        Ok(Route::Control) => match deps.control.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Ok(Route::Live) => answer::text(StatusCode::OK, "text/plain", "ok\n"),
        Ok(Route::Ready) if deps.ready.get() => answer::text(StatusCode::OK, "text/plain", "ready\n"),
        Ok(Route::Ready) => {
            answer::error(&Error::new(ErrorKind::Overloaded, "the host is starting or draining"), None)
        }
        Ok(Route::Nothing) => answer::error(&nothing(), None),
        Err(error) => answer::error(&error, None),
    };
    let class = match response.status().as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    metrics::counter!("wasmeter_http_responses_total", "class" => class).increment(1);
    response
}

fn nothing() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "nothing is here: functions are at /fn/{tenant}/{function}, the API at /api/v1",
    )
}
