//! Alerts of budgets: told once a threshold, signed, by a POST and by mail, whatever fails in between.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use support::{Client, Home, acked, record, refusal};
use wasmeter_receipt::{PublicKey, Signature};
use wasmeter_usage::wire::{Call, Reply};
use wasmeter_usage::{AlertState, AlertTerms, BudgetState, BudgetTerms, Pico};

/// What a server took, in order.
type Taken<T> = Arc<Mutex<Vec<T>>>;

/// A POST: its head, each line, and its body.
#[derive(Clone, Debug)]
struct Post {
    head: Vec<String>,
    body: String,
}

impl Post {
    fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.head.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{self:?}"))
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Takes POSTs and answers the first ones with `statuses`, the others with 200.
fn receiver(listener: TcpListener, statuses: &'static [u16]) -> Taken<Post> {
    let taken: Taken<Post> = Arc::default();
    let kept = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = Vec::new();
            for line in reader.by_ref().lines() {
                match line.unwrap() {
                    line if line.is_empty() => break,
                    line => head.push(line),
                }
            }
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let mut kept = kept.lock().unwrap();
            let status = statuses.get(kept.len()).copied().unwrap_or(200);
            kept.push(Post { head, body: String::from_utf8(body).unwrap() });
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    taken
}

/// A mail: who says it is from, for whom, and its text.
#[derive(Clone, Debug)]
struct Mail {
    from: String,
    to: String,
    text: String,
}

/// Speaks SMTP (RFC 5321) with one client after another; the first conversation is put off.
fn mail_server(listener: TcpListener) -> Taken<Mail> {
    let taken: Taken<Mail> = Arc::default();
    let kept = Arc::clone(&taken);
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            converse(stream.unwrap(), n == 0, &kept);
        }
    });
    taken
}

fn converse(stream: TcpStream, put_off: bool, kept: &Taken<Mail>) {
    let mut out = stream.try_clone().unwrap();
    let mut say = |line: &str| {
        let _ = out.write_all(format!("{line}\r\n").as_bytes());
    };
    say("220 mail.test ESMTP");
    let mut mail = Mail { from: String::new(), to: String::new(), text: String::new() };
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(line)) = lines.next() {
        match line.split([' ', ':']).next().unwrap().to_ascii_uppercase().as_str() {
            "EHLO" => {
                say("250-mail.test");
                say("250 8BITMIME");
            }
            "MAIL" if put_off => say("451 4.3.0 come later"),
            "MAIL" => {
                mail.from = line;
                say("250 2.1.0 ok");
            }
            "RCPT" => {
                mail.to = line;
                say("250 2.1.5 ok");
            }
            "DATA" => {
                say("354 go on");
                for line in lines.by_ref() {
                    let line = line.unwrap();
                    if line == "." {
                        break;
                    }
                    // RFC 5321, 4.5.2: a line that begins with a dot has one more.
                    mail.text.push_str(line.strip_prefix('.').unwrap_or(&line));
                    mail.text.push('\n');
                }
                kept.lock().unwrap().push(mail.clone());
                say("250 2.0.0 taken");
            }
            "QUIT" => return say("221 2.0.0 bye"),
            "RSET" | "NOOP" => say("250 2.0.0 ok"),
            _ => say("502 5.5.1 what?"),
        }
    }
}

/// Waits until there are so many.
fn until<T: Clone + std::fmt::Debug>(taken: &Taken<T>, count: usize, home: &Home) -> Vec<T> {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let now = taken.lock().unwrap().clone();
        if now.len() >= count {
            return now;
        }
        assert!(Instant::now() < deadline, "{} of {count}: {now:?}\n{}", now.len(), home.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn budget(client: &mut Client, call: &Call) -> BudgetState {
    match client.call(call) {
        Reply::Budget(state) => *state,
        other => panic!("{other:?}"),
    }
}

fn set(client: &mut Client, terms: &BudgetTerms) -> Reply {
    client.call(&Call::SetBudget { tenant: "dev".into(), terms: terms.clone() })
}

fn shown(client: &mut Client) -> BudgetState {
    budget(client, &Call::Budget { tenant: "dev".into() })
}

/// Waits until nothing is to be told any more.
fn told(client: &mut Client, home: &Home) -> BudgetState {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let state = shown(client);
        let mut all = state.fired.iter().flat_map(|alert| &alert.deliveries);
        if all.all(|d| d.state == AlertState::Delivered) {
            return state;
        }
        assert!(Instant::now() < deadline, "{state:?}\n{}", home.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn each_threshold_is_told_once_whatever_fails() {
    let home = Home::new();
    let ((posts, post_port), (mails, mail_port)) = (listener(), listener());
    let smtp = format!("smtp-plain://127.0.0.1:{mail_port}");
    let args = ["--alert-private", "--smtp", &smtp, "--smtp-from", "Wasmeter <billing@example.com>"];
    let mut billing = home.start_with(&args);
    let mut client = home.client();
    // Nobody takes anything yet: what is to be told is kept over a death.
    drop(posts);
    drop(mails);
    let one = record(&client.prices, "dev", 1_000_000_000_000);
    let Pico(cost) = client.prices.cost(&one).unwrap();
    let terms = BudgetTerms {
        monthly: Some(Pico(cost * 2)),
        alerts: AlertTerms {
            percent: vec![100, 50],
            webhook: Some(format!("http://127.0.0.1:{post_port}/hook?of=dev")),
            email: Some("ops@example.com".into()),
        },
        ..BudgetTerms::default()
    };
    budget(&mut client, &Call::SetBudget { tenant: "dev".into(), terms: terms.clone() });
    assert_eq!(acked(client.append(1, &[one])), 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    let first = loop {
        let state = shown(&mut client);
        let tried = state.fired.iter().flat_map(|a| &a.deliveries).filter(|d| d.attempts > 0).count();
        if tried == 2 {
            break state;
        }
        assert!(Instant::now() < deadline, "{state:?}\n{}", home.log());
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(first.terms, Some(terms));
    let [alert] = &first.fired[..] else { panic!("{first:?}") };
    assert_eq!((alert.percent, alert.bound, alert.spent), (50, Pico(cost * 2), Pico(cost)));
    assert_eq!(alert.month.as_ref(), Some(&first.month));
    assert!(alert.deliveries.iter().all(|d| d.reason.contains("127.0.0.1") || !d.reason.is_empty()));
    billing.child.kill().unwrap();
    billing.wait();

    // Now they are there, and refuse at first.
    let posts = receiver(TcpListener::bind(("127.0.0.1", post_port)).unwrap(), &[500]);
    let mails = mail_server(TcpListener::bind(("127.0.0.1", mail_port)).unwrap());
    let _billing = home.start_with(&args);
    let mut client = home.client();
    let both = until(&posts, 2, &home);
    assert_eq!(both[0].header("webhook-id"), alert.id);
    assert_eq!(both[1].header("webhook-id"), alert.id);
    assert_eq!(both[0].body, both[1].body);
    assert!(both[0].head[0].starts_with("POST /hook?of=dev HTTP/1.1"), "{:?}", both[0]);
    let Reply::ReceiptKeys { keys } = client.call(&Call::ReceiptKeys) else { panic!("no keys") };
    let key = PublicKey::parse(&keys[0].public).unwrap();
    for post in &both {
        let signature = post.header("webhook-signature").strip_prefix("v1a,").unwrap();
        let signature = Signature(STANDARD.decode(signature).unwrap().try_into().unwrap());
        let time = post.header("webhook-timestamp");
        assert!(key.signed(&format!("{}.{time}.{}", alert.id, post.body), &signature), "{post:?}");
        assert!(!key.signed(&format!("{}.{time}.{} ", alert.id, post.body), &signature));
        let now = i64::try_from(support::now_ns() / 1_000_000_000).unwrap();
        assert!((now - time.parse::<i64>().unwrap()).abs() < 60);
    }
    let said = both[0].json();
    let told_of = ["type", "tenant", "ledger", "of", "percent"].map(|key| said[key].clone());
    let expected = serde_json::json!(["budget.threshold", "dev", "unstamped", "monthly", 50]);
    assert_eq!(serde_json::json!(told_of), expected, "{said}");
    assert_eq!(said["spent"]["pico"], cost.to_string());

    let mail = until(&mails, 1, &home).remove(0);
    assert!(mail.from.contains("<billing@example.com>") && mail.to.contains("<ops@example.com>"), "{mail:?}");
    for part in
        ["From: Wasmeter <billing@example.com>", "To: ops@example.com", "Auto-Submitted: auto-generated"]
    {
        assert!(mail.text.contains(part), "{part}: {}", mail.text);
    }
    assert!(mail.text.contains(&format!("Message-ID: <{}@example.com>", alert.id)), "{}", mail.text);
    assert!(mail.text.contains("dev has spent 50 %"), "{}", mail.text);

    // The next threshold is another alert, and the first is not told again.
    let two = record(&client.prices, "dev", 1_000_000_000_000);
    assert_eq!(acked(client.append(2, &[two])), 2);
    assert_eq!(until(&posts, 3, &home)[2].json()["percent"], 100);
    until(&mails, 2, &home);
    let state = told(&mut client, &home);
    assert_eq!(state.fired.iter().map(|a| a.percent).collect::<Vec<_>>(), [100, 50]);
    // Another bound is told of anew: of this one half is spent.
    let raised = BudgetTerms { monthly: Some(Pico(cost * 4)), ..state.terms.unwrap() };
    set(&mut client, &raised);
    let again = until(&posts, 4, &home).remove(3).json();
    assert_eq!((&again["percent"], &again["bound"]["pico"]), (&50.into(), &(cost * 4).to_string().into()));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((posts.lock().unwrap().len(), mails.lock().unwrap().len()), (4, 3));
    home.assert_quiet(&[]);
}

#[test]
fn credits_have_thresholds_too() {
    let home = Home::new();
    let (listener, port) = listener();
    let posts = receiver(listener, &[]);
    let _billing = home.start_with(&["--alert-private"]);
    let mut client = home.client();
    let one = record(&client.prices, "dev", 1_000_000_000_000);
    let Pico(cost) = client.prices.cost(&one).unwrap();
    let webhook = Some(format!("http://127.0.0.1:{port}"));
    let alerts = AlertTerms { percent: vec![80], webhook, email: None };
    let terms = BudgetTerms { prepaid: true, alerts, ..BudgetTerms::default() };
    budget(&mut client, &Call::SetBudget { tenant: "dev".into(), terms });
    let grant = |client: &mut Client, id: &str| {
        let (id, amount) = (id.to_owned(), Pico(cost));
        budget(client, &Call::GrantCredit { tenant: "dev".into(), id, amount, note: String::new() })
    };
    grant(&mut client, "one");
    assert_eq!(acked(client.append(1, &[one])), 1);
    let post = until(&posts, 1, &home).remove(0).json();
    assert_eq!((&post["of"], &post["bound"]["pico"]), (&"credits".into(), &cost.to_string().into()));
    assert!(post.get("month").is_none());
    // More credits, of which half is spent; then four fifths and more.
    grant(&mut client, "two");
    let two = record(&client.prices, "dev", 900_000_000_000);
    assert_eq!(acked(client.append(2, &[two])), 2);
    let post = until(&posts, 2, &home).remove(1).json();
    assert_eq!(post["bound"]["pico"], (cost * 2).to_string());
    told(&mut client, &home);
}

#[test]
fn what_cannot_be_told_is_refused_and_changes_nothing() {
    let home = Home::new();
    let _billing = home.start();
    let mut client = home.client();
    let terms = |percent: &[u16], webhook: Option<&str>, email: Option<&str>| BudgetTerms {
        monthly: Some(Pico(1)),
        alerts: AlertTerms {
            percent: percent.to_vec(),
            webhook: webhook.map(str::to_owned),
            email: email.map(str::to_owned),
        },
        ..BudgetTerms::default()
    };
    let good = terms(&[80, 100], Some("https://example.com/hook"), None);
    budget(&mut client, &Call::SetBudget { tenant: "dev".into(), terms: good.clone() });
    let unbounded = BudgetTerms { monthly: None, ..good.clone() };
    for (bad, word) in [
        (terms(&[80], Some("http://example.com/"), None), "https://"),
        (terms(&[80], Some("https://127.0.0.1/"), None), "not a public address"),
        (terms(&[80], Some("https://[fd00:ec2::254]/"), None), "not a public address"),
        (terms(&[80], Some("https://169.254.169.254/latest"), None), "not a public address"),
        (terms(&[80], Some("https://me:pw@example.com/"), None), "password"),
        (terms(&[80], None, Some("ops@example.com")), "mail server"),
        (terms(&[80], None, Some("ops")), "not a mail address"),
        (terms(&[80], None, None), "name nobody"),
        (terms(&[], Some("https://example.com/"), None), "thresholds"),
        (terms(&[0], Some("https://example.com/"), None), "1 to 1000"),
        (terms(&[1001], Some("https://example.com/"), None), "1 to 1000"),
        (terms(&[1, 2, 3, 4, 5, 6, 7, 8, 9], Some("https://example.com/"), None), "at most 8"),
        (unbounded, "monthly budget"),
    ] {
        let (code, why) = refusal(set(&mut client, &bad));
        assert_eq!(code, "budget", "{why}");
        assert!(why.contains(word), "{why}");
    }
    assert_eq!(shown(&mut client).terms, Some(good));
    for (args, word) in [
        (vec!["--smtp", "smtps://mail.example.com"], "--smtp-from"),
        (vec!["--smtp", "mail", "--smtp-from", "a@example.com"], "is not like"),
        (vec!["--smtp-from", "a@example.com"], "need --smtp"),
    ] {
        let other = Home::new();
        let output =
            other.command().args(["serve", "--socket", "s", "--data"]).arg(other.data()).args(args).output();
        let said = String::from_utf8(output.unwrap().stderr).unwrap();
        assert!(said.contains(word), "{said}");
        assert!(!other.data().exists());
    }
}
