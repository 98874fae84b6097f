//! One row of the table, and how it is checked.

use serde_json::Value;
use wasmeter_testkit::{Answer, Host};

use super::table::{TABLE, name};

/// What a guest does, and what must come of it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The function that is called, by its name in `table::FUNCTIONS`.
    pub function: &'static str,
    /// The path below it.
    pub path: &'static str,
    pub sees: Sees,
    /// The outcome that is billed.
    pub outcome: &'static str,
    /// Fuel that is billed, at least and at most.
    pub fuel: (u64, u64),
    /// A part of one line of the function's log about this invocation; empty where the platform has nothing to say of it.
    pub log: &'static str,
}

/// What the caller gets.
#[derive(Clone, Copy, Debug)]
pub enum Sees {
    /// A whole answer of the guest's own: its status and text.
    Answer(u16, &'static str),
    /// The same, of which only the beginning is known.
    Begins(&'static str),
    /// An error about the function: status, code and a part of the message.
    Error(u16, &'static str, &'static str),
    /// A head with 200, then a body that breaks off.
    BreaksOff,
}

/// How much can be said: beside others, a guest may be stopped before it has done anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Alone,
    Crowd,
}

/// Calls a row of the table and checks everything.
pub async fn check(host: &Host, row: usize, pass: Pass) {
    let (case, function) = (TABLE[row], name(row));
    let path = case.path;
    let what = format!("{function}{path}");
    let answer = host.dev().get(&format!("/fn/dev/{function}{path}")).stream().await;
    let (status, invocation) = (answer.status(), answer.header("x-wasmeter-invocation").map(str::to_owned));
    let invocation = invocation.unwrap_or_else(|| panic!("{what}: an answer without an invocation"));
    let answer = answer.rest().await;
    match (case.sees, answer) {
        // Its head is still held if it came to its turn late.
        (Sees::BreaksOff, Ok(answer)) if pass == Pass::Crowd && case.outcome == "deadline" => {
            assert_eq!((answer.status, answer.code().as_str()), (504, "deadline"), "{what}");
        }
        (Sees::BreaksOff, Err(_)) => assert_eq!(status, 200, "{what}"),
        (Sees::BreaksOff, Ok(answer)) => panic!("{what}: {} {}", answer.status, answer.text()),
        (_, Err(error)) => panic!("{what}: {status}, then {error}"),
        (Sees::Answer(status, text), Ok(answer)) => {
            assert_eq!((answer.status, answer.text()), (status, text), "{what}");
        }
        (Sees::Begins(text), Ok(answer)) => {
            assert!(answer.status == 200 && answer.text().starts_with(text), "{what}: {}", answer.status);
        }
        (Sees::Error(status, code, part), Ok(answer)) => failed(&what, &answer, status, code, part),
    }
    let receipt = host.receipt("dev", &invocation).await;
    bill(&what, case, pass, &receipt);
    let path = format!("/api/v1/tenants/dev/functions/{function}/logs");
    let log = host.dev().get(&path).send().await.expect(200);
    let own: Vec<_> = log.text().lines().filter(|line| line.contains(&invocation)).collect();
    let said = own.iter().any(|line| line.contains(case.log));
    assert!(case.log.is_empty() || said, "{what}: {:?} is not in\n{}", case.log, own.join("\n"));
    let alarm = own.iter().any(|line| line.contains("\"stream\":\"platform\""));
    assert!(alarm || case.outcome == "ok", "{what}: the platform says nothing\n{}", own.join("\n"));
    assert!(!(alarm && case.log.is_empty()), "{what}: the platform speaks of nothing\n{}", own.join("\n"));
}

/// An error of the function's, as every caller sees it.
fn failed(what: &str, answer: &Answer, status: u16, code: &str, part: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_eq!(answer.code(), code, "{what}: {}", answer.text());
    assert_eq!(answer.header("x-wasmeter-error-source"), Some("function"), "{what}");
    assert_eq!(answer.json()["invocation_id"], answer.invocation(), "{what}");
    assert!(answer.message().contains(part), "{what}: {part:?} is not in {:?}", answer.message());
    assert!(!answer.text().contains("deliberate_panic"), "{what}: the backtrace is the author's alone");
    assert!(answer.message().len() < 400, "{what}: {}", answer.message());
}

fn bill(what: &str, case: Case, pass: Pass, receipt: &Value) {
    let record = &receipt["record"];
    assert_eq!(record["outcome"], case.outcome, "{what}: {receipt}");
    let fuel = record["fuel"].as_u64().expect("fuel");
    let least = if pass == Pass::Alone { case.fuel.0 } else { 0 };
    assert!((least..=case.fuel.1).contains(&fuel), "{what}: {fuel} is not in {:?}", case.fuel);
    let cost: u128 = receipt["cost_pico"].as_str().and_then(|c| c.parse().ok()).expect("a cost");
    // All of it is the guest's own doing.
    assert!(cost > 0 || fuel == 0, "{what}: nothing is charged: {receipt}");
}
