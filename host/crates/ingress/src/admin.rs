use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wasmeter_types::Error;

use crate::answer::{self, Body};

/// Connections of the admin listener at one time.
const CONNECTIONS: usize = 32;

/// What the admin listener shows.
#[derive(Clone)]
pub struct AdminDeps {
    /// The metrics in Prometheus' text format 0.0.4.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Serves `/metrics` until `stop`. Never on the public listener.
///
/// # Errors
/// The listener's.
pub async fn serve_admin(listener: TcpListener, deps: AdminDeps, stop: CancellationToken) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stop.cancelled() => return Ok(()),
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (deps, stop) = (deps.clone(), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = respond(&deps, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                () = stop.cancelled() => {}
            }
            drop(slot);
        });
    }
}

fn respond(deps: &AdminDeps, request: &Request<Incoming>) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            answer::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", (deps.metrics)())
        }
        _ => answer::error(&Error::not_found(), None),
    }
}
