use std::future::poll_fn;

use tokio::sync::oneshot;
use tokio::time::Instant;
use wasmeter_types::Error;
use wasmtime::{AsContextMut as _, Store};
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::Request;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::guest_body::GuestBody;
use super::run::{BodyEnd, Books, Ended, HeadResult, Run};
use crate::guest::Guest;

impl Run<'_> {
    /// Runs a component that handles HTTP with WASI 0.3: one request a store, whose fuel is one bill. It may go on after
    /// it has given its answer, for the body and beyond; it ends when none of its tasks is left.
    pub(super) async fn service(
        &self,
        pre: &ServicePre<Guest>,
        guest: Guest,
        request: http::Request<GuestBody>,
        books: &mut Books<'_>,
    ) -> Ended {
        let mut store = Store::new(pre.engine(), guest);
        let (head_tx, head) = oneshot::channel::<HeadResult>();
        if let Err(error) = self.prepare(&mut store) {
            tracing::error!(%error, "an invocation cannot be prepared");
            return Ended { error: Some(Error::internal()), ..Ended::default() };
        }
        // What becomes of the request's body is told to nobody: its sender sees the answer.
        let (request, _) = Request::from_http(store.data_mut().http_view().hooks, request);
        books.carrier.hold_to_length();
        self.drive(store, pre, head, BodyEnd::Store, books, |store, pre, instantiated| {
            Box::pin(async move {
                let service = pre.instantiate_async(&mut *store).await?;
                *instantiated = Some(Instant::now());
                let tasks = store.run_concurrent(async |accessor| {
                    let answer = match service.handle(accessor, request).await? {
                        Ok(answer) => Ok(accessor
                            .with(|mut store| answer.into_http(store.as_context_mut(), async { Ok(()) }))?),
                        // Which one, the caller is not told in WASI 0.2 either.
                        Err(_) => Err(ErrorCode::InternalError(None)),
                    };
                    let _ = head_tx.send(answer);
                    poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                    wasmtime::Result::Ok(())
                });
                tasks.await?
            })
        })
        .await
    }
}
