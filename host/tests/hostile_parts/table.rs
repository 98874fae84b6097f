//! The table.

use wasmeter_testkit::{Host, component, manifest};

use super::case::{Case, Sees};
use super::guests;

/// Limits of those that never end.
const SHORT: &str = "deadline = \"400ms\"\nfuel = 1_000_000_000_000\nmemory = \"32MiB\"";
/// Of those that do, on a busy machine too.
const LONG: &str =
    "deadline = \"60s\"\nfuel = 20_000_000_000\nmemory = \"32MiB\"\nresponse-body = \"256KiB\"";
/// The same, and few handles: what they leak else takes long.
const THREE_LONG: &str = "deadline = \"60s\"\nfuel = 20_000_000_000\nmemory = \"32MiB\"\n\
    response-body = \"256KiB\"\nhandles = 1000";
const FUEL: &str = "deadline = \"60s\"\nfuel = 20_000_000";
/// So small that the head is still held when it is met.
const SMALL: &str = "deadline = \"60s\"\nfuel = 20_000_000_000\nresponse-body = \"32KiB\"";

/// Name, guest (a fixture, or of `guests`), limits.
const FUNCTIONS: [(&str, &str, &str); 19] = [
    ("short", "hostile", SHORT),
    ("long", "hostile", LONG),
    ("fuel", "hostile", FUEL),
    ("small", "hostile", SMALL),
    ("start-trap", "", LONG),
    ("start-loop", "", SHORT),
    ("start-memory", "", LONG),
    ("table-grow", "", LONG),
    ("table-grow-command", "", LONG),
    ("loop-command", "", SHORT),
    ("flood-command", "", LONG),
    ("pointer-command", "", LONG),
    ("recursion-command", "", LONG),
    ("three-short", "service", SHORT),
    ("three-long", "service", THREE_LONG),
    ("three-fuel", "service", FUEL),
    ("three-small", "service", SMALL),
    ("three-start-trap", "service", LONG),
    ("three-start-loop", "service", SHORT),
];

/// Everything that the table calls, for the tenant `dev`: each row has a function of its own, and so a log of its own.
pub async fn deploy(host: &Host) {
    host.push_tiny("mlp").await;
    let settings = host.operator().put("/api/v1/tenants/dev/settings", "{\"wasi3\": true}");
    settings.header("content-type", "application/json").send().await.expect(200);
    // It may call itself, and look for doors.
    let allow = format!("allow = [{:?}, \"http://10.0.0.1\", \"http://127.0.0.1:1\"]", host.url());
    deploy_one(host, component("hostile"), &manifest("self").public().limits(LONG).section("http", &allow))
        .await;
    for (row, case) in TABLE.iter().enumerate().filter(|(_, case)| case.function != "self") {
        let (_, guest, limits) = FUNCTIONS
            .iter()
            .find(|(name, ..)| *name == case.function)
            .unwrap_or_else(|| panic!("no function {}", case.function));
        let bytes = if guest.is_empty() { guests::guest(case.function) } else { component(guest) };
        let mut manifest = manifest(&name(row)).limits(limits).models(&["mlp"]);
        if let Some(what) = case.function.strip_prefix("three-start-") {
            manifest = manifest.section("env", &format!("START = {what:?}"));
        }
        deploy_one(host, bytes, &manifest).await;
    }
}

/// The name of the function of a row.
pub fn name(row: usize) -> String {
    match TABLE[row].function {
        // Its guest knows its name.
        "self" => "self".to_owned(),
        function => format!("{function}-{row}"),
    }
}

async fn deploy_one(host: &Host, bytes: Vec<u8>, manifest: &wasmeter_testkit::Manifest) {
    let answer = host.try_deploy("dev", bytes, manifest).await;
    assert!(matches!(answer.status, 200 | 201), "{} {}\n{}", answer.status, answer.text(), manifest.text());
}

/// No bound but the limit of most.
const SOME: (u64, u64) = (1, 20_000_000_000);
/// Work until the deadline.
const MUCH: (u64, u64) = (10_000, 1_000_000_000_000);
/// What waits does not work.
const LITTLE: (u64, u64) = (1, 1_000_000);
const ALL: (u64, u64) = (20_000_000, 20_000_000);

const fn row(
    function: &'static str,
    path: &'static str,
    sees: Sees,
    outcome: &'static str,
    fuel: (u64, u64),
    log: &'static str,
) -> Case {
    Case { function, path, sees, outcome, fuel, log }
}

const fn ok(function: &'static str, path: &'static str, text: &'static str) -> Case {
    row(function, path, Sees::Answer(200, text), "ok", SOME, "")
}

const fn late(function: &'static str, path: &'static str, fuel: (u64, u64)) -> Case {
    let sees = Sees::Error(504, "deadline", "limits.deadline of 400ms");
    row(function, path, sees, "deadline", fuel, "did not end within its limits.deadline")
}

const fn spent(path: &'static str) -> Case {
    spent_by("fuel", path)
}

const fn spent_by(function: &'static str, path: &'static str) -> Case {
    let sees = Sees::Error(502, "guest_failed", "limits.fuel of 20000000");
    row(function, path, sees, "out_of_fuel", ALL, "all fuel consumed")
}

const fn trap(function: &'static str, path: &'static str, message: &'static str, log: &'static str) -> Case {
    row(function, path, Sees::Error(502, "guest_failed", message), "trap", SOME, log)
}

const UNFINISHED: &str = "without finishing its response body";

/// Each guest, a line.
pub const TABLE: &[Case] = &[
    // What does not end.
    late("short", "/loop", MUCH),
    late("short", "/loop-in-host", MUCH),
    late("short", "/loop-in-poll", MUCH),
    late("short", "/sleep", LITTLE),
    late("short", "/sleep-many", LITTLE),
    late("short", "/fill", MUCH),
    late("short", "/random", MUCH),
    late("short", "/environment", MUCH),
    late("start-loop", "/", MUCH),
    late("loop-command", "/", MUCH),
    spent("/loop"),
    spent("/loop-in-host"),
    spent("/loop-in-poll"),
    spent("/random"),
    spent("/environment"),
    spent("/leak"),
    spent("/fill"),
    spent("/stdout"),
    row("short", "/body-trickle", Sees::BreaksOff, "deadline", LITTLE, "limits.deadline"),
    // Memory.
    ok("long", "/grow", "512 pages\n"),
    ok("long", "/grow-and-touch", "512 pages\n"),
    ok("long", "/allocate?n=2000000", "2000000 bytes\n"),
    trap("long", "/allocate?n=40000000", "limits.memory is 32MiB", "wasm backtrace"),
    trap("long", "/leak", "limits.memory is 32MiB", "wasm backtrace"),
    ok("long", "/stack?n=1000", "1000\n"),
    trap("long", "/stack", "stack", "call stack exhausted"),
    trap("recursion-command", "/", "stack", "call stack exhausted"),
    row("start-memory", "/", Sees::Error(502, "guest_failed", "limits.memory"), "trap", (0, 0), "memory"),
    trap("table-grow", "/", "without an answer", "without an answer"),
    ok("table-grow-command", "/", "enough"),
    // Answers.
    trap("long", "/silent", "without an answer", "must set the response outparam"),
    trap("long", "/silent-leak", "without an answer", "must set the response outparam"),
    trap("long", "/twice", "failed in a call to the host", "unknown handle"),
    trap("long", "/error", "without an answer", "without an answer"),
    trap("long", "/panic", "trapped", "deliberate_panic"),
    trap("long", "/unreachable", "unreachable", "unreachable"),
    trap("long", "/exit", "exited with status 1", "exited with status 1"),
    trap("start-trap", "/", "unreachable", "unreachable"),
    trap("long", "/header", "limits.header-bytes of 65536", "total size of fields exceeds limit"),
    // Less than the bytes of header fields, more than their number.
    trap("long", "/headers?n=500", "500 header fields; its limits.headers is 100", "limits.headers"),
    trap("long", "/headers", "limits.header-bytes", "total size of fields exceeds limit"),
    ok("long", "/header-split", "0 taken\n"),
    ok("long", "/header-ours", "forged\n"),
    ok("long", "/status?n=200", "odd\n"),
    trap("long", "/status?n=999", "status 999: set one of 200 to 599", "status 999"),
    trap("long", "/status?n=100", "status 100", "status 100"),
    ok("long", "/status?n=99", "refused\n"),
    trap("long", "/status?n=101", "status 101", "status 101"),
    trap("long", "/trailers", "failed in a call to the host", "total size of fields exceeds limit"),
    trap("long", "/length?n=3", UNFINISHED, "the host objects"),
    trap("long", "/length?n=20", UNFINISHED, "the host objects"),
    trap("long", "/body-unfinished", UNFINISHED, UNFINISHED),
    row("long", "/body-unfinished?n=100000", Sees::BreaksOff, "trap", SOME, UNFINISHED),
    trap("long", "/body-kept", UNFINISHED, UNFINISHED),
    row("long", "/body-kept?n=100000", Sees::BreaksOff, "trap", SOME, UNFINISHED),
    row("long", "/body-trap", Sees::BreaksOff, "trap", SOME, "after 100000 bytes"),
    row("long", "/body", Sees::BreaksOff, "trap", SOME, "limits.response-body of 262144 bytes"),
    row("long", "/body?n=262144", Sees::Begins("xxxxxxxxxx"), "ok", SOME, ""),
    row("flood-command", "/", Sees::BreaksOff, "trap", SOME, "limits.response-body of 262144 bytes"),
    trap("small", "/body", "limits.response-body of 32768 bytes", "limits.response-body"),
    // Calls to the host.
    ok("long", "/calls", "1000000 calls\n"),
    ok("long", "/big-argument?n=1000", "taken\n"),
    trap(
        "long",
        "/big-argument?n=1000000",
        "failed in a call to the host",
        "total size of fields exceeds limit",
    ),
    trap("long", "/random-at-once", "failed in a call to the host", "exceeds limit 65536"),
    trap("pointer-command", "/", "", "wasm backtrace"),
    row("long", "/stdout-line", Sees::Answer(200, "true\n"), "ok", SOME, "log is full (64KiB)"),
    // Handles.
    trap("long", "/leak-fields", "limits.handles of 10000", "wasm backtrace"),
    trap("long", "/leak-pollables", "limits.handles of 10000", "wasm backtrace"),
    trap("long", "/leak-errors", "failed in a call to the host", "wasm backtrace"),
    trap("long", "/forged", "failed in a call to the host", "unknown handle index"),
    trap("long", "/dropped-twice", "failed in a call to the host", "unknown handle index"),
    trap("long", "/parent-first", "without an answer", "without an answer"),
    ok("long", "/body-twice", "(true, false) (true, false)\n"),
    // Models.
    ok("long", "/graphs", "64 graphs\n"),
    ok("long", "/contexts", "64 contexts\n"),
    trap("long", "/computes", "unreachable", "a compute was refused"),
    ok("long", "/tensor-lies", "ErrorCode::InvalidArgument\n"),
    ok("long", "/in-flight", "32 under way\n"),
    trap("long", "/tensors", "failed in a call to the host", "tensors of"),
    // Elsewhere.
    ok("self", "/self", "508\n"),
    row("self", "/scan", Sees::Answer(200, "0 answers\n"), "ok", SOME, "has made its [http] calls of 32"),
    // WASI 0.3.
    late("three-short", "/spin", MUCH),
    late("three-short", "/after", MUCH),
    late("three-short", "/sleep", LITTLE),
    late("three-short", "/mute", LITTLE),
    late("three-start-loop", "/", MUCH),
    spent_by("three-fuel", "/spin"),
    spent_by("three-fuel", "/leak"),
    trap("three-start-trap", "/", "trapped", "a trap at start"),
    trap("three-long", "/trap", "trapped", "a trap"),
    trap("three-long", "/error", "without an answer", "without an answer"),
    trap("three-long", "/short", UNFINISHED, UNFINISHED),
    row("three-long", "/late", Sees::BreaksOff, "trap", SOME, "wasm backtrace"),
    row("three-long", "/body", Sees::BreaksOff, "trap", SOME, "limits.response-body of 262144 bytes"),
    trap("three-small", "/body", "limits.response-body of 32768 bytes", "limits.response-body"),
    ok("three-long", "/grow", "512 pages\n"),
    trap("three-long", "/leak", "limits.memory is 32MiB", "wasm backtrace"),
    trap("three-long", "/stack", "stack", "call stack exhausted"),
    trap("three-long", "/tasks", "", "wasm backtrace"),
];
