//! Alerts by mail over TLS, to a real listener with certificates of this test: what is believed, and what is not.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use support::{Client, Home, acked, record};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};
use wasmeter_usage::wire::{Call, Reply};
use wasmeter_usage::{AlertState, AlertTerms, BudgetState, BudgetTerms};

const PASSWORD: &str = "only-within-TLS";

/// A certificate authority.
struct Authority {
    key: KeyPair,
    params: CertificateParams,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { key, params, pem }
    }

    /// What a server needs that is called `name`.
    fn certify(&self, name: &str, until_year: i32) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until_year, 1, 1));
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap())
    }

    fn write(&self, home: &Home) -> PathBuf {
        let path = home.dir.path().join("authorities.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path
    }
}

/// When a server speaks TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Tls,
    /// From STARTTLS on.
    StartTls,
    /// Never.
    Plain,
}

/// What a server heard: each line, with a mark for those that everybody on the way could read.
type Heard = Arc<Mutex<Vec<(bool, String)>>>;

fn serve(config: Arc<ServerConfig>, speaks: Speaks) -> (u16, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard: Heard = Arc::default();
    let kept = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            if speaks != Speaks::Tls {
                let _ = stream.write_all(b"220 localhost ESMTP\r\n");
                if !converse(&mut BufReader::new(&mut stream), speaks, true, &kept) {
                    continue;
                }
            }
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            // A client that does not believe the certificate leaves here.
            if speaks == Speaks::Tls && tls.write_all(b"220 localhost ESMTP\r\n").is_err() {
                continue;
            }
            converse(&mut BufReader::new(tls), speaks, false, &kept);
        }
    });
    (port, heard)
}

/// One conversation (RFC 5321); whether the client asked for TLS in the middle of it.
fn converse<S: Read + Write>(stream: &mut BufReader<S>, speaks: Speaks, open: bool, heard: &Heard) -> bool {
    let mut data = false;
    loop {
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line), Ok(read) if read > 0) {
            return false;
        }
        let line = line.trim_end().to_owned();
        heard.lock().unwrap().push((open, line.clone()));
        let answer = match line.split([' ', ':']).next().unwrap().to_ascii_uppercase().as_str() {
            "." if data => {
                data = false;
                "250 2.0.0 taken"
            }
            _ if data => continue,
            "EHLO" if open && speaks == Speaks::StartTls => "250-localhost\r\n250 STARTTLS",
            "EHLO" => "250-localhost\r\n250 AUTH PLAIN",
            "STARTTLS" if open && speaks == Speaks::StartTls => {
                let _ = stream.get_mut().write_all(b"220 2.0.0 go on\r\n");
                return true;
            }
            "AUTH" => "235 2.7.0 it is you",
            "DATA" => {
                data = true;
                "354 go on"
            }
            "QUIT" => "221 2.0.0 bye",
            _ => "250 2.0.0 ok",
        };
        let _ = stream.get_mut().write_all(format!("{answer}\r\n").as_bytes());
        let _ = stream.get_mut().flush();
    }
}

fn budget(client: &mut Client, call: &Call) -> BudgetState {
    match client.call(call) {
        Reply::Budget(state) => *state,
        other => panic!("{other:?}"),
    }
}

/// Spends a budget, and says what became of the mail: that it is delivered, or the reason of the first attempt that failed.
fn told(home: &Home, smtp: &str, authorities: Option<&PathBuf>) -> Result<(), String> {
    let password = home.dir.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut args = vec!["--smtp", smtp, "--smtp-from", "billing@example.com", "--smtp-password-file"];
    args.push(password.to_str().unwrap());
    if let Some(path) = authorities {
        args.extend(["--smtp-authorities", path.to_str().unwrap()]);
    }
    let _billing = home.start_with(&args);
    let mut client = home.client();
    let one = record(&client.prices, "dev", 1_000_000_000_000);
    let alerts = AlertTerms { percent: vec![50], webhook: None, email: Some("ops@example.com".into()) };
    let terms = BudgetTerms { monthly: client.prices.cost(&one), alerts, ..BudgetTerms::default() };
    budget(&mut client, &Call::SetBudget { tenant: "dev".into(), terms });
    assert_eq!(acked(client.append(1, &[one])), 1);
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let state = budget(&mut client, &Call::Budget { tenant: "dev".into() });
        for delivery in state.fired.iter().flat_map(|alert| &alert.deliveries) {
            match delivery.state {
                AlertState::Delivered => return Ok(()),
                _ if delivery.attempts > 0 => return Err(delivery.reason.clone()),
                _ => {}
            }
        }
        assert!(Instant::now() < deadline, "{state:?}\n{}", home.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_mail_goes_over_tls_from_the_first_byte_or_from_starttls_on() {
    let authority = Authority::new("ours");
    for (scheme, speaks) in [("smtps", Speaks::Tls), ("smtp", Speaks::StartTls)] {
        let home = Home::new();
        let (port, heard) = serve(authority.certify("localhost", 2099), speaks);
        let authorities = authority.write(&home);
        told(&home, &format!("{scheme}://billing@localhost:{port}"), Some(&authorities)).unwrap();
        let heard = heard.lock().unwrap();
        let clear: Vec<_> = heard.iter().filter(|(open, _)| *open).map(|(_, line)| line.as_str()).collect();
        let said = match speaks {
            Speaks::StartTls => &["EHLO example.com", "STARTTLS"][..],
            _ => &[],
        };
        assert_eq!(clear, said, "{scheme}");
        let within: Vec<_> = heard.iter().filter(|(open, _)| !open).map(|(_, line)| line.as_str()).collect();
        let secret = STANDARD.encode(format!("\0billing\0{PASSWORD}"));
        for line in [
            format!("AUTH PLAIN {secret}"),
            "RCPT TO:<ops@example.com>".to_owned(),
            "To: ops@example.com".to_owned(),
            "Subject: wasmeter: dev has spent 50 % of the budget of ".to_owned(),
        ] {
            assert!(within.iter().any(|heard| heard.starts_with(&line)), "{scheme}: {line} in {within:?}");
        }
        home.assert_quiet(&[]);
    }
}

#[test]
fn a_certificate_that_is_not_the_servers_gets_no_mail() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("a stranger"));
    for (scheme, speaks) in [("smtps", Speaks::Tls), ("smtp", Speaks::StartTls)] {
        for (what, config, believed, word) in [
            ("of another authority", stranger.certify("localhost", 2099), true, "UnknownIssuer"),
            (
                "of an authority that nobody named",
                authority.certify("localhost", 2099),
                false,
                "UnknownIssuer",
            ),
            ("for another name", authority.certify("mail.test", 2099), true, "not valid for"),
            ("of another year", authority.certify("localhost", 2021), true, "expired"),
        ] {
            let home = Home::new();
            let (port, heard) = serve(config, speaks);
            let authorities = authority.write(&home);
            let url = format!("{scheme}://billing@localhost:{port}");
            let why = told(&home, &url, believed.then_some(&authorities)).unwrap_err();
            assert!(why.to_lowercase().contains(&word.to_lowercase()), "{scheme}, {what}: {why}");
            let heard = heard.lock().unwrap();
            let polite = |line: &str| line.starts_with("EHLO") || line == "STARTTLS" || line == "QUIT";
            assert!(heard.iter().all(|(open, line)| *open && polite(line)), "{scheme}, {what}: {heard:?}");
        }
    }
}

#[test]
fn a_server_without_starttls_gets_neither_password_nor_mail() {
    let authority = Authority::new("ours");
    let home = Home::new();
    let (port, heard) = serve(authority.certify("localhost", 2099), Speaks::Plain);
    let authorities = authority.write(&home);
    let why = told(&home, &format!("smtp://billing@localhost:{port}"), Some(&authorities)).unwrap_err();
    assert!(why.to_lowercase().contains("starttls"), "{why}");
    let heard = heard.lock().unwrap();
    assert!(heard.iter().all(|(_, line)| line.starts_with("EHLO") || line == "QUIT"), "{heard:?}");
}

#[test]
fn authorities_that_are_none_are_refused_at_the_start() {
    let home = Home::new();
    let path = home.dir.path().join("none.pem");
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    let said = |args: &[&str]| {
        let mut command = home.command();
        command.args(["serve", "--socket", "s", "--data"]).arg(home.data()).args(args);
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let path = path.to_str().unwrap();
    let mail = ["--smtp", "smtps://mail.example.com", "--smtp-from", "a@example.com"];
    let why = said(&[&mail[..], &["--smtp-authorities", path]].concat());
    assert!(why.contains("--smtp-authorities"), "{why}");
    let why = said(&[&mail[..], &["--smtp-authorities", "/nowhere/ca.pem"]].concat());
    assert!(why.contains("/nowhere/ca.pem"), "{why}");
    assert!(said(&["--smtp-authorities", path]).contains("need --smtp"));
    assert!(!home.data().exists());
}
