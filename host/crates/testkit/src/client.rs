use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::task::AbortHandle;

use crate::tls;

/// No call of a test may hang.
const LONGEST: Duration = Duration::from_secs(60);

/// Calls a host; each call on a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    tls: bool,
    token: Option<String>,
}

impl Client {
    /// Without a token.
    ///
    /// # Panics
    /// If the URL is not `http://address:port` or `https://address:port`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let (tls, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, Some(rest)),
            None => (false, url.strip_prefix("http://")),
        };
        let address = rest.and_then(|a| a.trim_end_matches('/').parse().ok());
        let address = address.unwrap_or_else(|| panic!("{url:?} is no http://address:port"));
        Self { address, tls, token: None }
    }

    /// The same with this token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Where it connects to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as an URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// The token, if it has one.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A call.
    #[must_use]
    pub fn call(&self, method: Method, path: &str) -> Call {
        let mut headers = HeaderMap::new();
        let own = HeaderValue::from_str(&self.address.to_string()).expect("an address is a header value");
        headers.insert(header::HOST, own);
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("a token is a header value");
            headers.insert(header::AUTHORIZATION, value);
        }
        let body = Outgoing { bytes: Bytes::new(), chunked: false };
        Call { address: self.address, tls: self.tls, method, path: path.to_owned(), headers, body }
    }

    /// GET.
    #[must_use]
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// POST.
    #[must_use]
    pub fn post(&self, path: &str, body: impl Into<Bytes>) -> Call {
        self.call(Method::POST, path).body(body)
    }

    /// PUT.
    #[must_use]
    pub fn put(&self, path: &str, body: impl Into<Bytes>) -> Call {
        self.call(Method::PUT, path).body(body)
    }

    /// DELETE.
    #[must_use]
    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }
}

/// A call that is being made.
pub struct Call {
    address: SocketAddr,
    tls: bool,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Outgoing,
}

impl Call {
    /// Adds a header; `host` and `authorization` replace.
    ///
    /// # Panics
    /// If it is not a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        let value = HeaderValue::from_str(value).expect("a header value");
        if name == header::HOST || name == header::AUTHORIZATION {
            self.headers.insert(name, value);
        } else {
            self.headers.append(name, value);
        }
        self
    }

    /// The body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body.bytes = body.into();
        self
    }

    /// A JSON body.
    #[must_use]
    pub fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }

    /// Sends the body in chunks, without its length.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.body.chunked = true;
        self
    }

    /// The whole answer.
    ///
    /// # Panics
    /// If there is none.
    pub async fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.path);
        self.try_send().await.unwrap_or_else(|e| panic!("{what}: {e}"))
    }

    /// The whole answer, or why there is none.
    ///
    /// # Errors
    /// Of the connection, or an answer that breaks off.
    pub async fn try_send(self) -> io::Result<Answer> {
        let whole = async { self.try_stream().await?.rest().await };
        Box::pin(tokio::time::timeout(LONGEST, whole)).await.map_err(io::Error::other)?
    }

    /// The head of the answer; the body comes as it is read.
    ///
    /// # Panics
    /// If there is none.
    pub async fn stream(self) -> Streaming {
        let what = format!("{} {}", self.method, self.path);
        self.try_stream().await.unwrap_or_else(|e| panic!("{what}: {e}"))
    }

    /// The head of the answer, or why there is none.
    ///
    /// # Errors
    /// Of the connection.
    pub async fn try_stream(self) -> io::Result<Streaming> {
        let head = async {
            let stream = tls::connect(self.address, self.tls).await?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)?;
            let connection = Connection(tokio::spawn(async move { drop(connection.await) }).abort_handle());
            let mut request = Request::builder().method(self.method).uri(self.path);
            *request.headers_mut().ok_or_else(|| io::Error::other("the path is not a URI"))? = self.headers;
            let request = request.body(self.body).map_err(io::Error::other)?;
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            Ok(Streaming { response, trailers: HeaderMap::new(), _connection: connection })
        };
        Box::pin(tokio::time::timeout(LONGEST, head)).await.map_err(io::Error::other)?
    }
}

/// Closes the connection when nobody reads any more.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose body is still coming. Dropped, it leaves.
pub struct Streaming {
    response: Response<Incoming>,
    trailers: HeaderMap,
    _connection: Connection,
}

impl Streaming {
    /// Status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next piece of the body.
    ///
    /// # Errors
    /// If the answer breaks off.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(frame) = self.response.body_mut().frame().await {
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(frame) => self.trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        Ok(None)
    }

    /// The rest of the body, as an answer.
    ///
    /// # Errors
    /// If the answer breaks off.
    pub async fn rest(mut self) -> io::Result<Answer> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        let status = self.status();
        let headers = self.response.headers().clone();
        Ok(Answer { status, headers, body: body.freeze(), trailers: self.trailers })
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Trailers.
    pub trailers: HeaderMap,
}

impl Answer {
    /// The body as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        let shown = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("status {}: {shown:?}: {e}", self.status))
    }

    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `x-wasmeter-invocation`.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn invocation(&self) -> String {
        self.header("x-wasmeter-invocation").expect("x-wasmeter-invocation").to_owned()
    }

    /// `x-wasmeter-cost` of the head or of the trailers, in 10^-12 of the currency unit.
    #[must_use]
    pub fn cost_pico(&self) -> Option<u128> {
        let text =
            self.header("x-wasmeter-cost").or_else(|| self.trailers.get("x-wasmeter-cost")?.to_str().ok())?;
        let (units, pico) = text.split_once(' ')?.0.split_once('.')?;
        assert_eq!(pico.len(), 12, "a cost has twelve digits: {text}");
        Some(units.parse::<u128>().ok()? * 1_000_000_000_000 + pico.parse::<u128>().ok()?)
    }

    /// `code` of an error body.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// `message` of an error body.
    #[must_use]
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// The answer, if it has this status.
    ///
    /// # Panics
    /// If it has another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

struct Outgoing {
    bytes: Bytes,
    chunked: bool,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.bytes.len().min(64 << 10);
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.chunked { SizeHint::default() } else { SizeHint::with_exact(self.bytes.len() as u64) }
    }
}
