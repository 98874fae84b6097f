use tokio::sync::oneshot;
use tokio::time::Instant;
use wasmeter_types::{Error, FunctionManifest};
use wasmtime::{InstancePre, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{I32Exit, WasiCtxBuilder};

use super::cgi::{Input, Output, variables};
use super::guest_body::GuestBody;
use super::run::{BodyEnd, Books, Ended, HeadResult, Run};
use crate::guest::{Guest, Metered};
use crate::guest_core::CoreGuest;

/// What becomes the answer of a command.
pub(super) struct Answering {
    output: Output,
    head: oneshot::Receiver<HeadResult>,
}

impl Answering {
    /// Gives a command its request: environment, standard input, and the standard output that is the answer.
    pub(super) fn to(
        request: http::Request<GuestBody>,
        manifest: &FunctionManifest,
        wasi: &mut WasiCtxBuilder,
    ) -> Self {
        let (parts, body) = request.into_parts();
        let name = manifest.function.name.as_str();
        for (key, value) in variables(&parts, name) {
            // What the author set is not the caller's to change.
            if !manifest.env.contains_key(&key) {
                wasi.env(key, value);
            }
        }
        let (head_tx, head) = oneshot::channel();
        let output = Output::new(head_tx);
        wasi.arg(name).stdin(Input::new(body)).stdout(output.clone());
        Self { output, head }
    }
}

impl Run<'_> {
    /// Runs a component as a CGI program, under the limits and with the accounts of one that handles HTTP.
    pub(super) async fn command(
        &self,
        pre: &CommandPre<Guest>,
        guest: Guest,
        answering: Answering,
        books: &mut Books<'_>,
    ) -> Ended {
        let Answering { output, head } = answering;
        let store = match self.store(pre.engine(), guest) {
            Ok(store) => store,
            Err(ended) => return ended,
        };
        // The output moves into the call: the last sending end of the body ends with it and the store.
        self.drive(store, pre, head, BodyEnd::Store, books, |store, pre, instantiated| {
            Box::pin(async move {
                let command = pre.instantiate_async(&mut *store).await?;
                *instantiated = Some(Instant::now());
                let ended = command.wasi_cli_run().call_run(store).await;
                // It says no more of its failure than that.
                let ended = ended.and_then(|ended| ended.map_err(|()| I32Exit(1).into()));
                finish(ended, &output)
            })
        })
        .await
    }

    /// Runs a core module in the same way.
    pub(super) async fn core_command(
        &self,
        pre: &InstancePre<CoreGuest>,
        guest: CoreGuest,
        answering: Answering,
        books: &mut Books<'_>,
    ) -> Ended {
        let Answering { output, head } = answering;
        let store = match self.store(pre.module().engine(), guest) {
            Ok(store) => store,
            Err(ended) => return ended,
        };
        self.drive(store, pre, head, BodyEnd::Store, books, |store, pre, instantiated| {
            Box::pin(async move {
                let instance = pre.instantiate_async(&mut *store).await?;
                *instantiated = Some(Instant::now());
                let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
                finish(start.call_async(store, ()).await, &output)
            })
        })
        .await
    }

    fn store<T: Metered>(&self, engine: &wasmtime::Engine, guest: T) -> Result<Store<T>, Ended> {
        let mut store = Store::new(engine, guest);
        self.prepare(&mut store).map(|()| store).map_err(|error| {
            tracing::error!(%error, "an invocation cannot be prepared");
            Ended { error: Some(Error::internal()), ..Ended::default() }
        })
    }
}

/// An exit with status 0 is a good end too.
fn finish(ended: wasmtime::Result<()>, output: &Output) -> wasmtime::Result<()> {
    match ended {
        Err(error) if error.downcast_ref::<I32Exit>().is_none_or(|exit| exit.0 != 0) => Err(error),
        _ => {
            output.finish();
            Ok(())
        }
    }
}
