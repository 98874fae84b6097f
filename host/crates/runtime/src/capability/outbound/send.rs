use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use wasmeter_types::{HttpLimits, Origin};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::super::Caller;
use super::body::{Download, Upload};
use super::connect::connect;
use super::slots::Full;
use super::used::Connection;
use super::{Failed, Sent, Shared, head};

/// Bytes of a response's head.
const HEAD: usize = 64 << 10;
/// Headers of a response.
const HEADERS: usize = 100;

/// One call, from the guest's request to the head of its response.
pub(super) async fn send(
    shared: &Shared,
    caller: Arc<Caller>,
    request: Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<Sent, Error> {
    let limits = caller.revision.manifest.http.limits();
    let number = caller.outbound.call();
    if number > limits.calls {
        // Once: a guest must not fill its log by calling on.
        if number == limits.calls.saturating_add(1) {
            caller.note(&format!(
                "outbound call refused: the invocation has made its [http] calls of {}",
                limits.calls
            ));
        }
        return Err(Error::HttpRequestDenied);
    }
    let made = call(shared, &caller, request, options.unwrap_or_default(), limits).await;
    metrics::counter!("wasmeter_outbound_calls_total", "outcome" => if made.is_ok() { "ok" } else { "failed" })
        .increment(1);
    made.map_err(|failed| {
        caller.note(&format!("outbound call failed: {}", failed.why));
        failed.error
    })
}

async fn call(
    shared: &Shared,
    caller: &Arc<Caller>,
    request: Request<WasiBody>,
    options: RequestOptions,
    limits: HttpLimits,
) -> Result<Sent, Failed> {
    let (mut parts, body) = request.into_parts();
    let origin = head::origin(&parts)?;
    if !caller.revision.manifest.http.allows(&origin) {
        let why = format!("{origin} is not in the manifest: add \"{origin}\" to [http] allow");
        return Err(Failed::new(Error::HttpRequestDenied, why));
    }
    head::seal(shared, &mut parts, &origin, caller.depth)?;
    let announced = caller.outbound.sent().saturating_add(head::length(&parts.headers).unwrap_or(0));
    if announced > limits.send {
        return Err(too_much(limits.send, announced));
    }
    let full = |whose: String| Failed::new(Error::ConnectionLimitReached, whose);
    let connection = Connection::open(caller, limits.connections).ok_or_else(|| {
        full(format!("the invocation has its [http] connections of {} open", limits.connections))
    })?;
    let slot = shared.slots.take(&caller.tenant).map_err(|whose| match whose {
        Full::Host => full("the host has no connection left for functions: call later".to_owned()),
        Full::Tenant(most) => {
            full(format!("the tenant's functions have {most} connections open: call later"))
        }
    })?;
    let slot = Arc::new(slot);
    let patience = |asked: Option<Duration>, most: Duration| {
        (Instant::now() + asked.map_or(most, |a| a.min(most))).min(caller.deadline)
    };
    let until = patience(options.connect_timeout, limits.connect_timeout);
    let stream = connect(shared, &origin, &slot, until).await?;
    let broken = |e: hyper::Error| from_hyper(&e, &origin, limits.send);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD).max_headers(HEADERS);
    let (mut sender, wire) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the guest's interest in it: dropping the handle drops the connection and what it holds.
    let wire: AbortOnDropJoinHandle<()> = spawn(async move {
        let _held = (connection, slot);
        let _ = wire.await;
    });
    let request = Request::from_parts(parts, Upload::new(body, caller.clone(), limits.send));
    let until = patience(options.first_byte_timeout, limits.first_byte_timeout);
    let response = match timeout_at(until, sender.send_request(request)).await {
        Ok(response) => response.map_err(broken)?,
        Err(_) => {
            let why = format!("{origin} did not answer in time ([http] first-byte-timeout)");
            return Err(Failed::new(Error::HttpResponseTimeout, why));
        }
    };
    let (mut parts, body) = response.into_parts();
    let announced = head::open(&mut parts)?;
    let announced = caller.outbound.received().saturating_add(announced.unwrap_or(0));
    if announced > limits.receive {
        let why = format!(
            "the answer of {origin} would make {announced} bytes; the invocation's [http] receive is {}",
            limits.receive
        );
        return Err(Failed::new(Error::HttpResponseBodySize(Some(announced)), why));
    }
    let body = Download::new(body, caller.clone(), limits.receive, options.between_bytes_timeout);
    let done = async move {
        wire.await;
        Ok(())
    };
    Ok((Response::from_parts(parts, body.boxed_unsync()), Box::new(done)))
}

fn too_much(most: u64, got: u64) -> Failed {
    let why = format!("the request bodies make {got} bytes; the invocation's [http] send is {most}");
    Failed::new(Error::HttpRequestBodySize(Some(got)), why)
}

/// What hyper says of a call that broke.
fn from_hyper(error: &hyper::Error, origin: &Origin, most: u64) -> Failed {
    let mut source = error.source();
    while let Some(cause) = source {
        // The guest's own body is at fault.
        match cause.downcast_ref::<Error>() {
            Some(Error::HttpRequestBodySize(Some(got))) => return too_much(most, *got),
            Some(_) => {
                return Failed::new(Error::ConnectionTerminated, "the guest did not finish its request body");
            }
            None => source = cause.source(),
        }
    }
    let why = format!("{origin} did not answer as HTTP/1.1: {error}");
    let shown = if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Error::ConnectionTerminated
    } else if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(u32::try_from(HEAD).ok())
    } else {
        Error::HttpProtocolError
    };
    Failed::new(shown, why)
}
