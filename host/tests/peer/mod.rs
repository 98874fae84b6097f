//! A server elsewhere, for functions to call.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Answers what it was asked: `/echo` as JSON, `/to?URL` redirects, `/endless` sends for ever, `/never` says nothing.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    pub(crate) async fn start() -> Self {
        Self::serve(None).await
    }

    pub(crate) async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        None => talk(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                talk(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, connections }
    }

    /// Connections that anybody made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    // A function that leaves in the middle is what some tests are about.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
    let (parts, body) = request.into_parts();
    let whole = |bytes: String| Response::new(Full::new(Bytes::from(bytes)).boxed());
    match parts.uri.path() {
        "/to" => {
            let mut answer = whole(String::new());
            *answer.status_mut() = http::StatusCode::FOUND;
            let to = parts.uri.query().unwrap_or_default().parse().expect("a location");
            answer.headers_mut().insert(http::header::LOCATION, to);
            answer
        }
        "/endless" => {
            let chunk = || Ok(Frame::data(Bytes::from(vec![b'x'; 64 << 10])));
            Response::new(StreamBody::new(futures_util::stream::repeat_with(chunk)).boxed())
        }
        "/never" => std::future::pending().await,
        _ => {
            let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            let headers: Vec<_> = parts
                .headers
                .iter()
                .map(|(n, v)| json!([n.as_str(), String::from_utf8_lossy(v.as_bytes())]))
                .collect();
            let seen = json!({
                "method": parts.method.as_str(),
                "target": parts.uri.to_string(),
                "headers": headers,
                "bytes": body.len(),
            });
            let mut answer = whole(seen.to_string());
            answer.headers_mut().insert("x-wasmeter-cost", http::HeaderValue::from_static("forged"));
            answer
        }
    }
}
