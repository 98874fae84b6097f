use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::event::VERSION;
use crate::exchange::{self, Request};
use crate::page::Page;
use crate::twin::{Options, Twin, TwinError};
use crate::{control, files, page, webhook};

/// Connections at once; those beyond wait to be accepted.
const CONNECTIONS: usize = 256;
/// No request is longer.
const MAX_BODY: usize = 1 << 20;
/// How long a client may take for its head, and for its body.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often time is looked at when nothing else happens.
const TICK: Duration = Duration::from_millis(200);

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A twin that listens.
pub struct Running {
    listener: TcpListener,
    twin: Arc<Twin>,
    address: SocketAddr,
}

impl Running {
    /// Reads what is kept and takes the port: the asked one, or, where any will do, the one that the twin had before,
    /// so that its address outlives it. Writes `twin-url`, `secret-key` and `webhook-secret` into the data directory.
    ///
    /// # Errors
    /// [`TwinError`].
    pub async fn start(options: &Options, listen: SocketAddr) -> Result<Self, TwinError> {
        let twin = Twin::open(options)?;
        let path = options.data.join("twin-url");
        let before = std::fs::read_to_string(&path).ok();
        let before = before.and_then(|url| url.trim().strip_prefix("http://")?.parse::<SocketAddr>().ok());
        let again = before.filter(|before| listen.port() == 0 && before.ip() == listen.ip());
        let bound = match again {
            Some(again) => match TcpListener::bind(again).await {
                Ok(listener) => Ok(listener),
                Err(_) => TcpListener::bind(listen).await,
            },
            None => TcpListener::bind(listen).await,
        };
        let fail = |error| TwinError::Io { what: format!("address {listen}"), error };
        let listener = bound.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        twin.inner.lock().base = format!("http://{address}");
        files::write(&path, &format!("http://{address}"))?;
        Ok(Self { listener, twin, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped.
    pub async fn serve(self) {
        let Self { listener, twin, .. } = self;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(webhook::deliver(Arc::clone(&twin)));
        tasks.spawn(tick(Arc::clone(&twin)));
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let twin = Arc::clone(&twin);
                    tasks.spawn(async move {
                        connection(stream, twin).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            while tasks.try_join_next().is_some() {}
        }
    }
}

/// Time passes without requests too.
async fn tick(twin: Arc<Twin>) {
    loop {
        tokio::time::sleep(TICK).await;
        let done = twin.inner.lock().catch_up(200);
        match done {
            Ok(0) => {}
            Ok(_) => twin.news.notify_one(),
            Err(error) => tracing::error!(%error, "the journal cannot be written"),
        }
    }
}

/// The connection is to end without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut on purpose")]
struct Cut;

async fn connection(stream: TcpStream, twin: Arc<Twin>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let twin = Arc::clone(&twin);
        async move { answer(request, &twin).await }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 << 10);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(request: hyper::Request<Incoming>, twin: &Arc<Twin>) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await;
    let body = match read {
        Ok(Ok(body)) => body.to_bytes().to_vec(),
        Ok(Err(_)) => {
            let error = json!({ "error": { "type": "invalid_request_error", "message": "The request is too large." } });
            return Ok(plain(413, &error));
        }
        Err(_) => return Err(Cut),
    };
    let request = Request {
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        method: head.method,
        headers: head.headers,
        body,
    };
    if request.path.starts_with("/_twin/") {
        let (status, body) = control::answer(twin, &request).await;
        return Ok(plain(status, &body));
    }
    if !request.path.starts_with("/v1/") && !request.path.starts_with("/v2/") {
        return Ok(shown(page::answer(twin, &request)));
    }
    let answer = Box::pin(exchange::answer(twin, request)).await.ok_or(Cut)?;
    let mut response = json_of(answer.status, &answer.body);
    let headers = response.headers_mut();
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    };
    put(REQUEST_ID, &answer.request_id);
    put(STRIPE_VERSION, VERSION);
    if let Some(key) = &answer.key {
        put(IDEMPOTENCY_KEY, key);
    }
    if answer.replayed {
        put(REPLAYED, "true");
    }
    Ok(response)
}

fn json_of(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let text = serde_json::to_vec_pretty(body).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn plain(status: u16, body: &Value) -> Response<Full<Bytes>> {
    json_of(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body)
}

fn shown(page: Page) -> Response<Full<Bytes>> {
    use hyper::header::HeaderValue;
    let (status, body, to) = match page {
        Page::Html(status, body) => (status, body, None),
        Page::To(url) => (303, String::new(), Some(url)),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    if let Some(to) = to.and_then(|url| url.parse().ok()) {
        headers.insert(LOCATION, to);
    }
    response
}
