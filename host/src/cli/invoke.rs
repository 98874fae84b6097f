use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;
use ureq::SendBody;
use wasmeter_types::FunctionName;

use super::client::Client;
use super::connect::TenantConnect;
use super::output::{Paint, count, harmless, talk, time};

#[derive(clap::Args)]
pub(crate) struct InvokeArgs {
    /// The function
    function: FunctionName,
    /// Body of the request; @file reads a file, @- standard input
    #[arg(long, short = 'd', value_name = "TEXT|@FILE")]
    data: Option<String>,
    /// Method [default: POST with a body, else GET]
    #[arg(long, short = 'X')]
    method: Option<Method>,
    /// Path below the function, with a query
    #[arg(long, default_value = "/")]
    path: String,
    /// Header, such as 'content-type: image/png'; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    #[command(flatten)]
    connect: TenantConnect,
}

/// Prints the body; 1 if the answer is not a success.
pub(crate) fn run(args: &InvokeArgs) -> Result<ExitCode> {
    let (client, tenant) = args.connect.client()?;
    if !args.path.starts_with(['/', '?']) {
        bail!("path {:?} does not begin with /", args.path);
    }
    let body = args.data.as_deref().map(body).transpose()?;
    // The function's own platform sees this token; it is short and allows nothing but the call.
    let grant = json!({ "tenant": tenant, "scopes": ["invoke"], "ttl_seconds": 60 });
    let minted = client.post("/api/v1/token", &grant).context("a token for the call could not be made")?;
    let token = minted["token"].as_str().context("the server gave no token")?.to_owned();
    let client = client.with_token(token);
    call(args, &client, &format!("/fn/{tenant}/{}{}", args.function, args.path), body)
}

fn call(args: &InvokeArgs, client: &Client, path: &str, body: Option<Vec<u8>>) -> Result<ExitCode> {
    let default = if body.is_some() { Method::POST } else { Method::GET };
    let mut request = client.request(args.method.clone().unwrap_or(default), path);
    let guess =
        body.as_deref().map(media_type).filter(|_| !args.headers.iter().any(|(n, _)| n == "content-type"));
    if let Some(media) = guess {
        request = request.header("content-type", media);
    }
    for (name, value) in &args.headers {
        request = request.header(name, value);
    }
    let start = Instant::now();
    let mut response = match body {
        None => client.send(request.body(())?)?,
        Some(body) => {
            let request = request.header("content-length", body.len());
            client.send(request.body(SendBody::from_owned_reader(io::Cursor::new(body)))?)?
        }
    };
    let mut reader = response.body_mut().with_config().limit(u64::MAX).reader();
    let mut stdout = io::stdout().lock();
    let mut buffer = vec![0; 64 << 10];
    let mut last = b'\n';
    loop {
        let n = reader.read(&mut buffer).context("the answer broke off")?;
        if n == 0 {
            break;
        }
        last = buffer[n - 1];
        stdout.write_all(&buffer[..n])?;
        stdout.flush()?;
    }
    if last != b'\n' && io::IsTerminal::is_terminal(&stdout) {
        stdout.write_all(b"\n")?;
    }
    drop(stdout);
    drop(reader);
    let ok = response.status().is_success();
    summary(response.status(), response.headers(), start.elapsed());
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Who answered what, and what that cost, on stderr.
fn summary(status: http::StatusCode, headers: &HeaderMap, took: Duration) {
    let paint = Paint::stderr();
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(harmless);
    let shown = status.to_string();
    let shown = if status.is_success() { paint.green(&shown) } else { paint.red(&shown) };
    let took = time(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    let source = header("x-wasmeter-error-source").map(|s| format!(" (from the {s})")).unwrap_or_default();
    talk(&format!("{shown}{source} in {took}"));
    let invocation = header("x-wasmeter-invocation");
    if let Some(invocation) = &invocation {
        talk(&paint.dim(&format!("invocation {invocation}")));
    }
    let number = |name: &str| header(name).and_then(|v| v.parse::<u64>().ok());
    let mut figures = Vec::new();
    figures.extend(number("x-wasmeter-fuel").map(|n| format!("fuel {}", count(n))));
    figures.extend(number("x-wasmeter-device-ns").map(|n| format!("device {}", time(n))));
    figures.extend(header("x-wasmeter-cost").map(|c| format!("cost {c}")));
    let late = status.is_success() || status == http::StatusCode::GATEWAY_TIMEOUT;
    if let (true, true, Some(invocation)) = (figures.is_empty(), late, &invocation) {
        // An answer that is streamed has them in its trailers; one at the deadline may come before they are known.
        figures.push(format!(
            "its figures came too late for the head: `wasmeter receipts {invocation}` has them"
        ));
    }
    if !figures.is_empty() {
        talk(&paint.dim(&figures.join("  ")));
    }
    if let Some(timing) = header("server-timing").map(|t| server_timing(&t)).filter(|t| !t.is_empty()) {
        talk(&paint.dim(&timing));
    }
}

/// `queue;dur=0.1, run;dur=3.2` as `queue 0.1 ms  run 3.2 ms` (W3C Server Timing: milliseconds).
fn server_timing(value: &str) -> String {
    let entry = |entry: &str| {
        let mut parts = entry.split(';').map(str::trim);
        let name = parts.next()?;
        let ms = parts.find_map(|p| p.strip_prefix("dur="))?;
        Some(format!("{name} {ms} ms"))
    };
    value.split(',').filter_map(entry).collect::<Vec<_>>().join("  ")
}

fn body(data: &str) -> Result<Vec<u8>> {
    match data.strip_prefix('@') {
        None => Ok(data.as_bytes().to_vec()),
        Some("-") => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).context("standard input")?;
            Ok(bytes)
        }
        Some(path) => std::fs::read(path).with_context(|| format!("file {path}")),
    }
}

/// What the body looks like; `-H content-type:…` says otherwise.
fn media_type(body: &[u8]) -> &'static str {
    match body {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        _ if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() => "application/json",
        _ if std::str::from_utf8(body).is_ok() => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'name: value'")?;
    let name: HeaderName = name.trim().parse().map_err(|_| format!("{name:?} is not a header's name"))?;
    if name == "authorization" || name == "content-length" {
        return Err(format!("{name} is set by this command; use curl to set it yourself"));
    }
    let value = value.trim().parse().map_err(|_| "the value has characters that no header has".to_owned())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_bodies() {
        assert_eq!(
            header("X-A: b c").unwrap(),
            (HeaderName::from_static("x-a"), HeaderValue::from_static("b c"))
        );
        assert!(
            header("nothing").is_err() && header("authorization: x").is_err() && header("a: b\nc").is_err()
        );
        assert_eq!(media_type(b"\x89PNG\r\n"), "image/png");
        assert_eq!(media_type(b"{\"a\": 1}"), "application/json");
        assert_eq!(media_type("grüß".as_bytes()), "text/plain; charset=utf-8");
        assert_eq!(media_type(&[0xff, 0]), "application/octet-stream");
        assert_eq!(body("@").err().unwrap().to_string(), "file ");
        assert_eq!(body("a@b").unwrap(), b"a@b");
    }

    #[test]
    fn timings() {
        assert_eq!(
            server_timing("queue;dur=0.012, run;desc=\"x\";dur=3.2,bad"),
            "queue 0.012 ms  run 3.2 ms"
        );
        assert_eq!(server_timing(""), "");
    }
}
