use tokio::sync::oneshot;
use tokio::time::Instant;
use wasmeter_types::Error;
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use super::guest_body::GuestBody;
use super::run::{BodyEnd, Books, Ended, HeadResult, Run};
use crate::guest::Guest;

impl Run<'_> {
    /// Runs a component that handles HTTP.
    pub(super) async fn component(
        &self,
        pre: &ProxyPre<Guest>,
        guest: Guest,
        request: http::Request<GuestBody>,
        books: &mut Books<'_>,
    ) -> Ended {
        let mut store = Store::new(pre.engine(), guest);
        let (head_tx, head) = oneshot::channel::<HeadResult>();
        let secure = request.uri().scheme() == Some(&http::uri::Scheme::HTTPS);
        let scheme = if secure { Scheme::Https } else { Scheme::Http };
        let prepared = self.prepare(&mut store).and_then(|()| {
            let mut http = store.data_mut().http_view();
            Ok((http.new_incoming_request(scheme, request)?, http.new_response_outparam(head_tx)?))
        });
        let (request, outparam) = match prepared {
            Ok(resources) => resources,
            Err(error) => {
                tracing::error!(%error, "an invocation cannot be prepared");
                return Ended { error: Some(Error::internal()), ..Ended::default() };
            }
        };
        self.drive(store, pre, head, BodyEnd::Said, books, |store, pre, instantiated| {
            Box::pin(async move {
                let proxy = pre.instantiate_async(&mut *store).await?;
                *instantiated = Some(Instant::now());
                proxy.wasi_http_incoming_handler().call_handle(store, request, outparam).await
            })
        })
        .await
    }
}
