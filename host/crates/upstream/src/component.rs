use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::sync::oneshot;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};
use wasmtime_wasi_nn::wit::{self, WasiNnView};

use crate::models::Models;

pub(crate) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    nn: wit::WasiNnCtx,
    table: ResourceTable,
    offline: Offline,
}

struct Offline;

type Sent = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

/// A guest calls nobody, here as there.
impl WasiHttpHooks for Offline {
    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.offline }
    }
}

pub(crate) fn link(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<ProxyPre<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wit::add_to_linker(&mut linker, |guest: &mut Guest| WasiNnView::new(&mut guest.table, &mut guest.nn))?;
    ProxyPre::new(linker.instantiate_pre(&Component::new(engine, wasm)?)?)
}

/// Hands a component one request; the answer is the body of its response.
pub(crate) async fn call(
    pre: ProxyPre<Guest>,
    models: Models,
    query: String,
    body: Bytes,
) -> wasmtime::Result<Vec<u8>> {
    let (backends, registry) = models.parts();
    let guest = Guest {
        wasi: WasiCtx::builder().build(),
        http: WasiHttpCtx::new(),
        nn: wit::WasiNnCtx::new(backends, registry),
        table: ResourceTable::new(),
        offline: Offline,
    };
    let mut store = Store::new(pre.engine(), guest);
    let request = http::Request::post(format!("http://guest/?{query}")).body(Full::new(body))?;
    let (answer, answered) = oneshot::channel::<Result<_, ErrorCode>>();
    let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
    let outparam = store.data_mut().http().new_response_outparam(answer)?;
    // The body is read while the guest writes it.
    let reader = tokio::spawn(async move {
        let response = answered.await.map_err(|_| wasmtime::format_err!("no answer"))??;
        let (_, body) = response.into_parts();
        Ok::<_, wasmtime::Error>(body.collect().await?.to_bytes().to_vec())
    });
    let proxy = pre.instantiate_async(&mut store).await?;
    proxy.wasi_http_incoming_handler().call_handle(&mut store, request, outparam).await?;
    drop(store);
    reader.await?
}
