//! A component that handles HTTP with WASI 0.3 (`wasi:http/handler`), one case a path.
//!
//! - `/hello` the smallest answer
//! - `/echo` reads the body and answers it, chunk by chunk; `/pass` gives the request's own stream back
//! - `/slow?chunks=N&delay_ms=M` N chunks of 1 KiB, with pauses
//! - `/me` the invocation's id and what is left, through `wasmeter:function/invocation`; a line to the log, and one to stderr
//! - `/out?URL` calls elsewhere and answers the status, or the error
//! - `/trailers` an answer with a trailer
//! - `/short` says more bytes than it writes
//! - `/error` answers an error code; `/trap` traps, `/late` after its head and 100,000 bytes
//! - `/spin` never ends; `/after` answers and then never ends; `/sleep` waits for ever; `/tasks` starts tasks for ever;
//!   `/mute` answers a head and keeps its body open
//! - `/body` an endless answer; `/stack` recurses for ever; `/leak` takes memory for ever, `/grow` until it is refused
//! - with `START=trap` or `START=loop` in its environment it does not get as far as a request

use std::hint::black_box;

use wasip3::clocks::monotonic_clock;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme, Trailers};
use wasip3::wit_bindgen::{StreamReader, spawn_local};
use wasip3::{wit_future, wit_stream};

struct Service;

wasip3::http::service::export!(Service);

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/hello" => Ok(text("hello\n".to_owned())),
            "/echo" => Ok(echo(request)),
            "/pass" => Ok(pass(request)),
            "/slow" => Ok(slow(number(query, "chunks"), number(query, "delay_ms"))),
            "/me" => Ok(text(me())),
            "/out" => Ok(text(out(query).await)),
            "/trailers" => trailers(),
            "/short" => short(),
            "/error" => Err(ErrorCode::ConfigurationError),
            "/trap" => panic!("a trap"),
            "/late" => Ok(late()),
            "/mute" => Ok(mute()),
            "/body" => Ok(endless()),
            "/stack" => Ok(text(format!("{}\n", down(u64::MAX)))),
            "/leak" => leak(),
            "/grow" => Ok(text(grow())),
            "/spin" => spin(),
            "/after" => {
                spawn_local(async { spin::<()>() });
                Ok(text("before\n".to_owned()))
            }
            "/sleep" => {
                monotonic_clock::wait_for(u64::MAX / 2).await;
                Ok(text("awake\n".to_owned()))
            }
            "/tasks" => loop {
                spawn_local(monotonic_clock::wait_for(u64::MAX / 2));
                monotonic_clock::wait_for(1).await;
            },
            _ => Ok(answer(404, &[], None)),
        }
    }
}

fn number(query: &str, name: &str) -> u64 {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok()).unwrap_or(0)
}

fn spin<T>() -> T {
    let mut n = 0u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: Option<StreamReader<u8>>) -> Response {
    let fields: Vec<_> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let fields = Fields::from_list(&fields).unwrap_or_else(|_| Fields::new());
    let (_, none) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(fields, body, none);
    // A status of three digits is always taken.
    let _ = response.set_status_code(status);
    response
}

fn text(text: String) -> Response {
    let (mut write, read) = wit_stream::new();
    spawn_local(async move {
        write.write_all(text.into_bytes()).await;
    });
    answer(200, &[("content-type", "text/plain")], Some(read))
}

fn body(request: Request) -> StreamReader<u8> {
    let (_, done) = wit_future::new(|| Ok(()));
    Request::consume_body(request, done).0
}

fn echo(request: Request) -> Response {
    let mut from = body(request);
    let (mut write, read) = wit_stream::new();
    spawn_local(async move {
        loop {
            let (result, chunk) = from.read(Vec::with_capacity(16 << 10)).await;
            if !write.write_all(chunk).await.is_empty()
                || matches!(result, wasip3::wit_bindgen::StreamResult::Dropped)
            {
                break;
            }
        }
    });
    answer(200, &[], Some(read))
}

fn pass(request: Request) -> Response {
    answer(200, &[], Some(body(request)))
}

fn slow(chunks: u64, delay_ms: u64) -> Response {
    let (mut write, read) = wit_stream::new();
    spawn_local(async move {
        for _ in 0..chunks {
            if !write.write_all(vec![b'x'; 1024]).await.is_empty() {
                break;
            }
            monotonic_clock::wait_for(delay_ms * 1_000_000).await;
        }
    });
    answer(200, &[], Some(read))
}

fn me() -> String {
    use wasmeter_guest::invocation;
    eprintln!("to stderr");
    wasmeter_guest::log::info("to the log");
    let (fuel, time) = (invocation::fuel_left(), invocation::time_left().as_millis());
    format!("{} {fuel} {time}\n", invocation::id())
}

async fn out(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "no URL\n".to_owned() };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (_, none) = wit_future::new(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), None, none, None);
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let set = request.set_method(&Method::Get).is_ok()
        && request.set_scheme(Some(&scheme)).is_ok()
        && request.set_authority(Some(authority)).is_ok()
        && request.set_path_with_query(Some(&format!("/{path}"))).is_ok();
    if !set {
        return "not a URL\n".to_owned();
    }
    match client::send(request).await {
        Ok(response) => {
            let status = response.get_status_code();
            let (_, done) = wit_future::new(|| Ok(()));
            let body = Response::consume_body(response, done).0.collect().await;
            format!("{status} {}\n", body.len())
        }
        Err(error) => format!("{error:?}\n"),
    }
}

fn trailers() -> Result<Response, ErrorCode> {
    let (mut write, read) = wit_stream::new();
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(Fields::new(), Some(read), trailers);
    let fields: Trailers = Fields::from_list(&[("x-sum".to_owned(), b"42".to_vec())])
        .map_err(|e| ErrorCode::InternalError(Some(format!("{e:?}"))))?;
    spawn_local(async move {
        write.write_all(b"with a trailer\n".to_vec()).await;
        drop(write);
        let _ = end.write(Ok(Some(fields))).await;
    });
    Ok(response)
}

fn short() -> Result<Response, ErrorCode> {
    let (mut write, read) = wit_stream::new();
    spawn_local(async move {
        write.write_all(b"abc".to_vec()).await;
    });
    Ok(answer(200, &[("content-length", "10")], Some(read)))
}

fn late() -> Response {
    let (mut write, read) = wit_stream::new();
    spawn_local(async move {
        write.write_all(vec![b'x'; 100_000]).await;
        panic!("a late trap");
    });
    answer(200, &[], Some(read))
}

fn mute() -> Response {
    let (write, read) = wit_stream::new();
    spawn_local(async move {
        monotonic_clock::wait_for(u64::MAX / 2).await;
        drop(write);
    });
    answer(200, &[], Some(read))
}

fn endless() -> Response {
    let (mut write, read) = wit_stream::new();
    spawn_local(async move { while write.write_all(vec![b'x'; 16 << 10]).await.is_empty() {} });
    answer(200, &[], Some(read))
}

/// No tail call: the sum waits for the level below.
#[inline(never)]
fn down(levels: u64) -> u64 {
    if levels == 0 { 0 } else { black_box(down(black_box(levels - 1))) + 1 }
}

fn leak() -> ! {
    loop {
        black_box(Vec::leak(vec![1u8; 64 << 10]));
    }
}

#[cfg(target_arch = "wasm32")]
fn grow() -> String {
    use core::arch::wasm32::{memory_grow, memory_size};
    // The answer needs a little heap of its own when there is no more to have.
    let reserve = black_box(vec![1u8; 256 << 10]);
    while memory_grow(0, 16) != usize::MAX {}
    while memory_grow(0, 1) != usize::MAX {}
    drop(reserve);
    format!("{} pages\n", memory_size(0))
}

#[cfg(not(target_arch = "wasm32"))]
fn grow() -> String {
    String::new()
}

/// What runs when the component is instantiated.
#[cfg(target_arch = "wasm32")]
extern "C" fn start() {
    match std::env::var("START").as_deref() {
        Ok("trap") => panic!("a trap at start"),
        Ok("loop") => spin(),
        _ => {}
    }
}

#[allow(unsafe_code, reason = "the linker's list of what runs first has no safe name")]
#[cfg(target_arch = "wasm32")]
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;
