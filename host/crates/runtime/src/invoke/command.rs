use tokio::sync::oneshot;
use tokio::time::Instant;
use wasmeter_nn::NnCtx;
use wasmeter_types::{Error, FunctionManifest};
use wasmtime::{InstancePre, Store};
use wasmtime_wasi::{I32Exit, WasiCtxBuilder};

use super::cgi::{Input, Output, variables};
use super::guest_body::GuestBody;
use super::run::{Books, Ended, HeadResult, Run};
use crate::guest_core::CoreGuest;

/// A command and what it starts with.
pub(super) struct Start<'a> {
    pub(super) pre: &'a InstancePre<CoreGuest>,
    pub(super) wasi: WasiCtxBuilder,
    pub(super) nn: NnCtx,
    pub(super) manifest: &'a FunctionManifest,
    pub(super) request: http::Request<GuestBody>,
}

impl Run<'_> {
    /// Runs a core module as a CGI program, under the limits and with the accounts of a component.
    pub(super) async fn command(&self, start: Start<'_>, books: &mut Books<'_>) -> Ended {
        let Start { pre, mut wasi, nn, manifest, request } = start;
        let (parts, body) = request.into_parts();
        let name = manifest.function.name.as_str();
        for (key, value) in variables(&parts, name) {
            // What the author set is not the caller's to change.
            if !manifest.env.contains_key(&key) {
                wasi.env(key, value);
            }
        }
        let (head_tx, head) = oneshot::channel::<HeadResult>();
        let output = Output::new(head_tx);
        wasi.arg(name).stdin(Input::new(body)).stdout(output.clone());
        let mut store = Store::new(pre.module().engine(), CoreGuest::new(wasi, nn, self.limits.memory.0));
        if let Err(error) = self.prepare(&mut store) {
            tracing::error!(%error, "an invocation cannot be prepared");
            return Ended { error: Some(Error::internal()), ..Ended::default() };
        }
        // The output moves into the call: the last sending end of the body ends with it and the store.
        self.drive(store, pre, head, books, |store, pre, instantiated| {
            Box::pin(async move {
                let instance = pre.instantiate_async(&mut *store).await?;
                *instantiated = Some(Instant::now());
                let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
                match start.call_async(store, ()).await {
                    Err(error) if error.downcast_ref::<I32Exit>().is_none_or(|exit| exit.0 != 0) => {
                        return Err(error);
                    }
                    _ => output.finish(),
                }
                Ok(())
            })
        })
        .await
    }
}
