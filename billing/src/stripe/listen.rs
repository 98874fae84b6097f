use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wasmeter_stripe::MAX_WEBHOOK;

use super::{Stripe, webhook};
use crate::service::Service;

/// Where Stripe sends webhooks to.
const PATH: &str = "/stripe/webhook";

/// Connections at once. Each holds at most one body of [`MAX_WEBHOOK`] bytes.
const CONNECTIONS: usize = 32;

/// How long a connection may last: Stripe waits for no answer longer than this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens the listener; its address goes to the log.
pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen for webhooks on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, path = PATH, "listening for webhooks");
    Ok(listener)
}

/// Takes webhooks on a listener of our own.
pub(super) async fn run(
    listener: TcpListener,
    service: Arc<Service>,
    stripe: Arc<Stripe>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection for webhooks");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (service, stripe, stop) = (Arc::clone(&service), Arc::clone(&stripe), stop.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let answer = service_fn(|request| answer(&service, &stripe, request));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), answer);
            tokio::select! {
                () = stop.cancelled() => {}
                // Who does not keep to HTTP is not worth a line.
                _ = timeout(PATIENCE, served) => {}
            }
        });
    }
}

async fn answer(
    service: &Service,
    stripe: &Stripe,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != PATH {
        return Ok(text(StatusCode::NOT_FOUND, "nothing is here".to_owned()));
    }
    if request.method() != Method::POST {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "webhooks are posted".to_owned()));
    }
    let signature = request.headers().get("stripe-signature").and_then(|value| value.to_str().ok());
    let signature = signature.unwrap_or_default().to_owned();
    let body = match Limited::new(request.into_body(), MAX_WEBHOOK).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Ok(text(StatusCode::BAD_REQUEST, error.to_string())),
    };
    let (status, message) = webhook::take(service, stripe, &signature, &body).await;
    Ok(text(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), message))
}

fn text(status: StatusCode, message: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(message)));
    *response.status_mut() = status;
    response
}
