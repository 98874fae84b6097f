//! A floor of the benchmark `deploy/bench/hello.sh`: hyper, wasmtime with the host's pool, a fresh instance for each
//! request, and nothing else: no admission, no limits, no deadline, no metering, no log, no isolation of tenants.
//!
//!     bare_guest COMPONENT [ADDRESS]

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::error::Context;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView, p2,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Done = Box<dyn Future<Output = Result<(), Error>> + Send>;

struct Guest {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Alone,
}

/// It calls nobody.
struct Alone;

impl WasiHttpHooks for Alone {
    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Done,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Done), Error>> + Send> {
        Box::new(async { Err(p2::bindings::http::types::ErrorCode::HttpRequestDenied.into()) })
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// As the host's (`engine.rs`).
fn engine() -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.max_memory_size(1 << 30)
        .max_unused_warm_slots(1000)
        .table_keep_resident(64 << 10)
        .linear_memory_keep_resident(1 << 20)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config.consume_fuel(true).max_wasm_stack(512 << 10).async_stack_size(1 << 20);
    config.concurrency_support(false).wasm_component_model_async(false);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

async fn call(
    pre: Arc<ProxyPre<Guest>>,
    request: http::Request<Incoming>,
) -> Result<http::Response<HyperOutgoingBody>> {
    let guest = Guest {
        table: ResourceTable::new(),
        wasi: WasiCtx::builder().build(),
        http: WasiHttpCtx::new(),
        hooks: Alone,
    };
    let mut store = Store::new(pre.engine(), guest);
    store.set_fuel(10_000_000_000)?;
    store.fuel_async_yield_interval(Some(10_000_000))?;
    let (head, answer) = oneshot::channel();
    let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
    let outparam = store.data_mut().http().new_response_outparam(head)?;
    let mut run = Box::pin(async move {
        let proxy = pre.instantiate_async(&mut store).await?;
        proxy.wasi_http_incoming_handler().call_handle(store, request, outparam).await
    });
    // As the host does: a short call ends in the first poll of its connection's task, without a wake-up.
    let mut ended = None;
    poll_fn(|cx| {
        ended = match run.as_mut().poll(cx) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        };
        Poll::Ready(())
    })
    .await;
    match ended {
        Some(result) => result?,
        None => drop(tokio::spawn(run)),
    }
    Ok(answer.await.context("the guest gave no answer")??)
}

#[tokio::main]
async fn main() -> Result<()> {
    let component = std::env::args().nth(1).context("say which component")?;
    let address = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:8098".to_owned());
    let engine = engine()?;
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    p2::add_only_http_to_linker_async(&mut linker)?;
    let component = Component::from_file(&engine, component)?;
    let pre = Arc::new(ProxyPre::new(linker.instantiate_pre(&component)?)?);
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let pre = pre.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| call(pre.clone(), request));
            let _ = http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
