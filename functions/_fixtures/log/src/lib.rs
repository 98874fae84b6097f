//! Writes `?lines=` (default 3) lines to stdout and to stderr, each `?width=` bytes wide at least, then answers.

use wasmeter_guest::{Request, Response};

#[wasmeter_guest::handler]
fn handle(req: Request) -> Response {
    let number = |name, default| req.query_param(name).and_then(|t| t.parse().ok()).unwrap_or(default);
    let (lines, width): (usize, usize) = (number("lines", 3), number("width", 0));
    for line in 0..lines {
        println!("{:<width$}", format!("stdout line {line}"));
        eprintln!("{:<width$}", format!("stderr line {line}"));
    }
    Response::text(format!("{lines} lines each\n"))
}
