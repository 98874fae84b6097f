//! Functions that call elsewhere: what they may, what they may not, and what they are told.

mod peer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use peer::Peer;
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use wasmeter_testkit::{Answer, Host, Manifest, component, manifest};

const LOOPBACK: &str = "[outbound]\nallow-private = [\"127.0.0.1/32\"]\n";

fn builder() -> wasmeter_testkit::Builder {
    Host::builder(env!("CARGO_BIN_EXE_wasmeter"))
}

fn allowing(lines: &str) -> Manifest {
    manifest("outbound").public().section("http", lines)
}

fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

async fn call(host: &Host, path: &str, url: &str) -> Value {
    let path = format!("/fn/dev/outbound{path}url={}", encoded(url));
    host.anonymous().get(&path).send().await.expect(200).json()
}

fn body(answer: &Value) -> Value {
    serde_json::from_str(answer["body"].as_str().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{answer}: {e}"))
}

fn header(answer: &Value, name: &str) -> Vec<String> {
    let headers = answer["headers"].as_array().cloned().unwrap_or_default();
    headers.iter().filter(|h| h[0] == name).map(|h| h[1].as_str().unwrap_or_default().to_owned()).collect()
}

async fn logs(host: &Host) -> String {
    host.dev().get("/api/v1/tenants/dev/functions/outbound/logs").send().await.expect(200).text().to_owned()
}

/// The call failed with this code, and the function's log says why.
async fn fails(host: &Host, path: &str, url: &str, code: &str, why: &str) {
    let answer = call(host, path, url).await;
    assert!(answer["error"].as_str().is_some_and(|e| e.contains(code)), "{url}: {answer}");
    let logs = logs(host).await;
    assert!(logs.contains(why), "{url}: {why:?} is not in\n{logs}");
}

#[tokio::test]
async fn only_what_the_manifest_lists() {
    let (peer, other) = (Peer::start().await, Peer::start().await);
    let host = builder().config(LOOPBACK).start().await;
    let (here, there) = (format!("http://{}", peer.address), format!("http://{}", other.address));
    let refused = host.try_deploy("dev", component("outbound"), &allowing("allow = [\"example.com\"]")).await;
    assert_eq!((refused.status, refused.code().as_str()), (422, "invalid"));
    assert!(
        refused.message().contains("http.allow: \"example.com\" is not an origin"),
        "{}",
        refused.message()
    );

    // Nothing by default.
    host.deploy("outbound", &manifest("outbound").public()).await;
    fails(
        &host,
        "?",
        &format!("{here}/echo"),
        "HttpRequestDenied",
        &format!("add \\\"{here}\\\" to [http] allow"),
    )
    .await;
    assert_eq!(peer.connections(), 0);

    host.deploy("outbound", &allowing(&format!("allow = [\"{here}\"]"))).await;
    let token = host.dev().token().expect("a token").to_owned();
    let sets = [
        "x-own:kept".to_owned(),
        "te:trailers".to_owned(),
        "x-wasmeter-hops:1.0.forged".to_owned(),
        format!("authorization:Bearer {token}"),
        format!("x-hidden:prefix {token} suffix"),
    ];
    let sets: String = sets.iter().map(|s| format!("set={}&", encoded(s))).collect();
    let path = format!("/fn/dev/outbound?{sets}url={}", encoded(&format!("{here}/echo?a=b")));
    let answer = host.anonymous().post(&path, "four").send().await.expect(200);
    let egress = answer.body.len();
    let json = answer.json();
    let seen = body(&json);
    assert_eq!(
        (&seen["method"], &seen["target"], &seen["bytes"]),
        (&"POST".into(), &"/echo?a=b".into(), &4.into())
    );
    assert_eq!(header(&seen, "host"), [peer.address.to_string()]);
    assert_eq!(header(&seen, "x-own"), ["kept"]);
    assert_eq!(header(&seen, "content-length"), ["4"]);
    for dropped in ["te", "authorization", "x-hidden"] {
        assert_eq!(header(&seen, dropped), Vec::<String>::new(), "{dropped}");
    }
    assert!(!seen.to_string().contains(&token) && !seen.to_string().contains("forged"), "{seen}");
    assert_eq!(header(&seen, "x-wasmeter-hops").len(), 1);
    assert_eq!(header(&json, "x-wasmeter-cost"), Vec::<String>::new());
    let receipt = host.receipt("dev", &answer.invocation()).await;
    assert_eq!(receipt["record"]["egress_bytes"], egress + 4, "what was sent elsewhere is egress");

    // A token does not leave in the target either.
    fails(&host, "?", &format!("{here}/echo?t={token}"), "HttpRequestDenied", "must not leave").await;
    // Another origin is another origin, whoever leads there.
    fails(&host, "?", &format!("{there}/echo"), "HttpRequestDenied", &there).await;
    let hop = format!("{here}/to?{here}/to?{there}/echo");
    fails(&host, "/follow?", &hop, "HttpRequestDenied", &there).await;
    assert_eq!(other.connections(), 0);
    let hop = format!("{here}/to?http://169.254.169.254/latest/meta-data");
    fails(&host, "/follow?", &hop, "HttpRequestDenied", "http://169.254.169.254 is not in the manifest")
        .await;
    let user = here.replace("http://", "http://user:pw@");
    assert!(call(&host, "?", &user).await["error"].is_string());
}

#[tokio::test]
async fn only_public_addresses() {
    let peer = Peer::start().await;
    let host = builder().start().await;
    let port = peer.address.port();
    let names = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://127.1:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://0x7f.1:{port}"),
        format!("http://0.0.0.0:{port}"),
        format!("http://[::1]:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        format!("http://[64:ff9b::7f00:1]:{port}"),
        "http://169.254.169.254".to_owned(),
        "http://[fd00:ec2::254]".to_owned(),
        "http://10.0.0.1".to_owned(),
        "http://192.168.0.1".to_owned(),
        "http://100.100.100.200".to_owned(),
        "http://224.0.0.1".to_owned(),
        "https://168.63.129.16".to_owned(),
    ];
    let list: Vec<_> = names.iter().map(|n| format!("{n:?}")).collect();
    host.deploy("outbound", &allowing(&format!("allow = [{}]", list.join(", ")))).await;
    for name in &names {
        fails(&host, "?", &format!("{name}/echo"), "DestinationIpProhibited", "not a public address").await;
    }
    assert_eq!(peer.connections(), 0, "nothing was even connected to");
}

#[tokio::test]
async fn within_limits() {
    let peer = Peer::start().await;
    let host = builder().config(LOOPBACK).start().await;
    let here = format!("http://{}", peer.address);
    let limits = format!(
        "allow = [\"{here}\", \"http://127.0.0.1:1\", \"http://no-such-name.invalid\"]\ncalls = 6\nconnections = 2\nsend = \"1KiB\"\nreceive = \"1MiB\"\nfirst-byte-timeout = \"300ms\""
    );
    host.deploy("outbound", &allowing(&limits)).await;
    fails(&host, "/size?", &format!("{here}/endless"), "body size exceeds limit", "receive of 1048576 bytes")
        .await;
    fails(&host, "?", &format!("{here}/never"), "HttpResponseTimeout", "first-byte-timeout").await;
    fails(&host, "?", "http://127.0.0.1:1/", "ConnectionRefused", "took no connection").await;
    fails(&host, "?", "http://no-such-name.invalid/", "DnsError", "was not resolved").await;
    let post = |bytes: usize| {
        let path = format!("/fn/dev/outbound?url={}", encoded(&format!("{here}/echo")));
        host.anonymous().post(&path, vec![b'x'; bytes]).send()
    };
    assert_eq!(body(&post(1024).await.expect(200).json())["bytes"], 1024);
    assert!(post(1025).await.expect(200).text().contains("HttpRequestBodySize"));

    let answer = call(&host, "/many?n=3&", &format!("{here}/endless")).await;
    assert_eq!(answer["answered"], 2, "{answer}");
    assert!(answer["errors"][0].as_str().is_some_and(|e| e.contains("ConnectionLimitReached")), "{answer}");
    let before = peer.connections();
    let answer = call(&host, "/many?n=500&", "http://127.0.0.1:1/").await;
    let errors = answer["errors"].as_array().expect("errors");
    let denied =
        errors.iter().filter(|e| e.as_str().is_some_and(|e| e.contains("HttpRequestDenied"))).count();
    assert_eq!((errors.len(), denied), (500, 494));
    assert_eq!(logs(&host).await.matches("has made its [http] calls of 6").count(), 1);
    assert_eq!(peer.connections(), before);

    // The deadline ends what waits, and what waits takes no connection with it.
    let waits = format!("allow = [\"{here}\"]");
    host.deploy("outbound", &allowing(&waits).limits("deadline = \"1s\"")).await;
    let began = Instant::now();
    let path = format!("/fn/dev/outbound?url={}", encoded(&format!("{here}/never")));
    let answers: Vec<_> = (0..8).map(|_| tokio::spawn(host.anonymous().get(&path).send())).collect();
    for answer in answers {
        let answer: Answer = answer.await.expect("the call");
        assert_eq!((answer.status, answer.code().as_str()), (504, "deadline"));
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(body(&call(&host, "?", &format!("{here}/echo")).await)["method"], "GET");
}

#[tokio::test]
async fn a_function_that_calls_itself_ends() {
    let host = builder().config(LOOPBACK).start().await;
    let own = host.url();
    host.deploy("outbound", &allowing(&format!("allow = [\"{own}\"]"))).await;
    // The header of a caller counts for nothing.
    let path = format!("/fn/dev/outbound?url={}", encoded(&format!("{own}/fn/dev/outbound")));
    for forged in ["1.200.00000000000000000000000000000000", "1.200", "200", ""] {
        host.anonymous().get(&path).header("x-wasmeter-hops", forged).send().await.expect(200);
    }
    let answer = host.anonymous().get("/fn/dev/outbound/loop").send().await.expect(200).json();
    assert_eq!(answer["depth"], 9, "{answer}");
    assert_eq!(answer["status"], 508, "{answer}");
    assert!(answer["body"].as_str().is_some_and(|b| b.contains("too_deep")), "{answer}");
}

#[tokio::test]
async fn tls_names_are_checked() {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let pem = folder.path().join("authority.pem");
    std::fs::write(&pem, signed.cert.pem()).expect("the certificate is written");
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .expect("a server");
    let peer = Peer::serve(Some(TlsAcceptor::from(Arc::new(server)))).await;
    let port = peer.address.port();
    let origins = format!(
        "allow = [\"https://localhost:{port}\", \"https://127.0.0.1:{port}\", \"http://localhost:{port}\"]"
    );

    // The web's authorities do not know it.
    let host = builder().config(LOOPBACK).start().await;
    host.deploy("outbound", &allowing(&origins)).await;
    let secure = format!("https://localhost:{port}/echo");
    fails(&host, "?", &secure, "TlsCertificateError", "TLS with https://localhost").await;
    drop(host);

    let host =
        builder().config(&format!("{LOOPBACK}authorities = {:?}\n", pem.display().to_string())).start().await;
    host.deploy("outbound", &allowing(&origins)).await;
    let seen = body(&call(&host, "?", &secure).await);
    assert_eq!(header(&seen, "host"), [format!("localhost:{port}")]);
    // The certificate is of the name, not of the address.
    fails(&host, "?", &format!("https://127.0.0.1:{port}/echo"), "TlsCertificateError", "https://127.0.0.1")
        .await;
    fails(&host, "?", &format!("http://localhost:{port}/echo"), "HttpProtocolError", "did not answer").await;
}

#[tokio::test]
async fn a_wrong_configuration_does_not_start() {
    for (text, why) in [
        ("allow-private = [\"127.0.0.1/64\"]", "outbound.allow-private"),
        ("connections = 0", "outbound.connections"),
        ("tenant-connections = 1000", "outbound.tenant-connections"),
        ("authorities = \"/does/not/exist.pem\"", "outbound.authorities"),
    ] {
        let (status, said) = builder().config(&format!("[outbound]\n{text}\n")).refused().await;
        assert!(!status.success() && said.contains(why), "{text}: {said}");
    }
}
