use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wasmeter_ledger::DueAlert;
use wasmeter_usage::Pico;

use super::address::is_public;

/// One attempt, from the name to the answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Addresses of one name that are tried.
const TRIES: usize = 4;

/// Posts alerts as "Standard Webhooks" has it (standardwebhooks.com): `webhook-id`, `webhook-timestamp`, and in
/// `webhook-signature` a `v1a`, an Ed25519 signature.
pub(super) struct Sender {
    tls: TlsConnector,
    private: bool,
}

/// A place that is posted to.
struct Place {
    secure: bool,
    host: String,
    port: u16,
    /// As it stands in the `Host` header.
    authority: String,
    path: String,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Sender {
    /// With `private`, addresses that are not of the public internet are posted to as well, and in clear text.
    pub(super) fn new(private: bool) -> anyhow::Result<Self> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), private })
    }

    /// What is wrong with an address, by its text alone: a name is looked up each time that it is posted to.
    pub(super) fn check(&self, url: &str) -> Result<(), String> {
        let place = self.parse(url)?;
        match place.host.parse::<IpAddr>() {
            Ok(address) if !self.may(address) => Err(format!(
                "{url:?} is not a public address: only the operator can allow it ([billing.alerts] private)"
            )),
            _ => Ok(()),
        }
    }

    fn may(&self, address: IpAddr) -> bool {
        self.private || is_public(address)
    }

    fn parse(&self, url: &str) -> Result<Place, String> {
        let shown: String = url.chars().take(80).collect();
        let uri: Uri = url.parse().map_err(|_| format!("{shown:?} is not an address: write https://…"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if self.private => false,
            _ => return Err(format!("{shown:?} does not begin with https://")),
        };
        let authority = uri.authority().ok_or_else(|| format!("{shown:?} names no host"))?;
        if authority.as_str().contains('@') {
            return Err(format!("{shown:?} holds a user or a password: leave it out, the POST is signed"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(format!("{shown:?} names no host"));
        }
        Ok(Place {
            secure,
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            host,
        })
    }

    /// Posts once. Taken is any 2xx; redirections are not followed, and of the answer nothing but its status is read.
    pub(super) async fn send(
        &self,
        url: &str,
        id: &str,
        time: i64,
        signature: &[u8],
        body: String,
    ) -> Result<(), String> {
        let place = self.parse(url)?;
        let request = Request::post(&place.path)
            .header(HOST, &place.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("wasmeter/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", time)
            .header("webhook-signature", format!("v1a,{}", STANDARD.encode(signature)))
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| e.to_string())?;
        let status = timeout(PATIENCE, self.exchange(&place, request))
            .await
            .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))??;
        if status.is_success() { Ok(()) } else { Err(format!("answered {}", status.as_u16())) }
    }

    async fn exchange(&self, place: &Place, request: Request<Full<Bytes>>) -> Result<StatusCode, String> {
        let stream = self.connect(place).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let exchange = async { sender.send_request(request).await.map(|answer| answer.status()) };
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer.map_err(|e| e.to_string()),
            ended = connection => match ended {
                Ok(()) => exchange.await.map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            }
        }
    }

    /// What is checked is what is connected to: the name is looked up once.
    async fn connect(&self, place: &Place) -> Result<Box<dyn Stream>, String> {
        let found: Vec<SocketAddr> = match place.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, place.port)],
            Err(_) => lookup_host((place.host.as_str(), place.port))
                .await
                .map_err(|e| format!("the name {} was not resolved: {e}", place.host))?
                .collect(),
        };
        let mut last = match found.first() {
            Some(address) => format!(
                "{} is at {}, which is not a public address: only the operator can allow it ([billing.alerts] private)",
                place.host,
                address.ip()
            ),
            None => format!("the name {} has no address", place.host),
        };
        for address in found.into_iter().filter(|address| self.may(address.ip())).take(TRIES) {
            match timeout(PATIENCE / 3, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return self.secured(place, stream).await,
                Ok(Err(error)) => last = format!("{address} took no connection: {error}"),
                Err(_) => last = format!("{address} took no connection in time"),
            }
        }
        Err(last)
    }

    async fn secured(&self, place: &Place, stream: TcpStream) -> Result<Box<dyn Stream>, String> {
        if !place.secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(place.host.clone()).map_err(|e| e.to_string())?;
        match self.tls.connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(format!("TLS with {} failed: {error}", place.host)),
        }
    }
}

/// What is posted: the same bytes each time.
pub(super) fn body(alert: &DueAlert, currency: &str, stamp: &str) -> String {
    let amount = |pico: Pico| json!({ "pico": pico.0.to_string(), "amount": format!("{pico} {currency}") });
    let mut body = json!({
        "id": alert.id,
        "type": "budget.threshold",
        "created": alert.fired_ns / 1_000_000_000,
        "tenant": alert.tenant,
        "ledger": stamp,
        "of": alert.of.as_str(),
        "percent": alert.percent,
        "bound": amount(alert.bound),
        "spent": amount(alert.spent),
    });
    if let (Some(month), Value::Object(fields)) = (&alert.month, &mut body) {
        fields.insert("month".to_owned(), json!(month));
    }
    body.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_alerts_may_go() {
        let public = Sender::new(false).unwrap();
        for good in ["https://example.com/hook?a=1", "https://example.com:8443", "https://93.184.216.34/x"] {
            assert_eq!(public.check(good), Ok(()), "{good}");
        }
        for (bad, word) in [
            ("http://example.com/", "https://"),
            ("ftp://example.com/", "https://"),
            ("example.com", "https://"),
            ("https://user:pw@example.com/", "password"),
            ("https://127.0.0.1/", "public"),
            ("https://[::1]:9/", "public"),
            ("https://169.254.169.254/latest/meta-data", "public"),
            ("https://[::ffff:10.0.0.1]/", "public"),
            ("", "https://"),
        ] {
            let why = public.check(bad).unwrap_err();
            assert!(why.contains(word), "{bad}: {why}");
        }
        let private = Sender::new(true).unwrap();
        assert_eq!(private.check("http://127.0.0.1:8000/hook"), Ok(()));
    }

    /// Whoever cannot prove the name gets nothing but a greeting.
    #[tokio::test]
    async fn an_unknown_certificate_gets_no_alert() {
        use tokio::io::AsyncReadExt;
        use tokio_rustls::rustls::ServerConfig;
        use tokio_rustls::rustls::pki_types::PrivateKeyDer;

        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut text = Vec::new();
            if let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                let _ = stream.read_to_end(&mut text).await;
            }
            text
        });
        let sender = Sender::new(true).unwrap();
        let why = sender.send(&url, "alert_1", 0, &[0; 64], "{}".to_owned()).await.unwrap_err();
        assert!(why.contains("TLS with localhost failed"), "{why}");
        assert!(server.await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_name_of_a_private_address_is_not_posted_to() {
        let sender = Sender::new(false).unwrap();
        let sent = sender.send("https://localhost:1/", "alert_1", 0, &[0; 64], String::new()).await;
        let why = sent.unwrap_err();
        assert!(why.contains("not a public address"), "{why}");
    }
}
