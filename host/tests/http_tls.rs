//! TLS on the public listener: ALPN, HTTP/2, certificates that change, and what is refused at the start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wasmeter_testkit::{Host, manifest, raw};

/// Writes a new certificate for `localhost` and its key; gives the certificate.
fn write(folder: &Path) -> CertificateDer<'static> {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.join("cert.pem"), pair.cert.pem()).expect("written");
    let key = folder.join("key.pem");
    fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("private");
    pair.cert.der().clone()
}

fn config(folder: &Path) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    format!("[server]\ntls-certificate = {:?}\ntls-key = {:?}\n", path("cert.pem"), path("key.pem"))
}

async fn connect(
    host: &Host,
    trusted: &CertificateDer<'static>,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(host.address()).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn both_versions_and_a_new_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = write(folder.path());
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).config(&config(folder.path())).start().await;
    assert!(host.url().starts_with("https://"), "{}", host.url());
    host.deploy("echo", &manifest("echo").public()).await;
    // HTTP/1.1 by the test kit; the guest is told the scheme.
    let answer = host.anonymous().get("/fn/dev/echo/x").send().await.expect(200);
    assert_eq!(answer.json()["scheme"], "https");
    // HTTP/2 where the client can.
    let stream = connect(&host, &first, &["h2", "http/1.1"]).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("h2");
    tokio::spawn(connection);
    let ask = |path: &str| {
        let uri = format!("https://localhost:{}{path}", host.address().port());
        Request::get(uri).body(Full::new(Bytes::new())).expect("a request")
    };
    let answer = sender.send_request(ask("/fn/dev/echo/x")).await.expect("an answer");
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&json["scheme"], &json["path"]), (&"https".into(), &"/x".into()));
    // Plain text on that port is no request.
    assert_eq!(
        raw(host.address(), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.matches("HTTP/1.1").count(),
        0
    );

    // A broken file changes nothing; a good one is served from the next handshake on, open connections stay.
    host.allow_log("the old TLS certificate is served on");
    let good = fs::read(folder.path().join("key.pem")).expect("the key");
    fs::write(folder.path().join("key.pem"), "nonsense").expect("written");
    host.signal(Signal::HUP);
    tokio::time::sleep(Duration::from_millis(300)).await;
    connect(&host, &first, &[]).await.expect("the old certificate");
    fs::write(folder.path().join("key.pem"), good).expect("written");
    let second = write(folder.path());
    host.signal(Signal::HUP);
    let mut tries = 0;
    while connect(&host, &second, &[]).await.is_err() {
        tries += 1;
        assert!(tries < 100, "the new certificate is not served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(connect(&host, &first, &[]).await.is_err(), "the old certificate is served on");
    let kept = sender.send_request(ask("/healthz")).await.expect("the open connection");
    assert_eq!(kept.status(), 200);
    // Without a hint, too.
    let third = write(folder.path());
    let mut tries = 0;
    while connect(&host, &third, &[]).await.is_err() {
        tries += 1;
        assert!(tries < 200, "changed files are not noticed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path());
    let refused = async |config: &str, part: &str| {
        let (status, said) = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).config(config).refused().await;
        assert!(!status.success() && said.contains(part), "{part:?} in {said}");
    };
    let key = folder.path().join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("open");
    refused(&config(folder.path()), "chmod 600").await;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("private");
    fs::write(folder.path().join("cert.pem"), "nonsense").expect("written");
    refused(&config(folder.path()), "holds no certificate").await;
    let other = tempfile::tempdir().expect("a folder");
    write(other.path());
    fs::copy(other.path().join("cert.pem"), folder.path().join("cert.pem")).expect("copied");
    refused(&config(folder.path()), "cannot be used").await;
    refused("[server]\ntls-key = \"key.pem\"\n", "together").await;
    let open = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).argument("--listen").argument("0.0.0.0:0");
    let (status, said) = open.refused().await;
    assert!(!status.success() && said.contains("--insecure") && said.contains("tls-certificate"), "{said}");
}
