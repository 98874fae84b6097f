use std::pin::Pin;

use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tower::ServiceExt;
use wasmeter_admission::{IDEMPOTENCY_KEY, OnceKey, idempotency_key};
use wasmeter_types::{Error, InvocationId};

use crate::answer::{self, Body};
use crate::once::Entered;
use crate::server::Deps;

/// Whose keys an operator's are; a tenant of that name shares the bound on their number, and nothing else.
const OPERATOR: &str = "operator";

/// A change through the control API that is asked for with a key. Only POST needs one: the other methods have the
/// same effect however often they are sent (RFC 9110, section 9.2.2).
pub(crate) async fn control(deps: &Deps, request: Request<Incoming>) -> Result<Response<Body>, Error> {
    let keyed = request.method() == http::Method::POST && request.headers().contains_key(IDEMPOTENCY_KEY);
    let caller = deps.tokens.verify_header(request.headers()).ok().flatten().filter(|_| keyed);
    let Some(caller) = caller else { return Ok(ask(deps, request.map(answer::boxed)).await) };
    let Some(key) = idempotency_key(request.headers())? else {
        return Ok(ask(deps, request.map(answer::boxed)).await);
    };
    let tenant = match caller.tenant {
        Some(tenant) => tenant,
        None => OPERATOR.parse().map_err(|_| Error::internal())?,
    };
    let key = OnceKey { tenant, scope: format!("api {}", caller.subject), key };
    let (head, body) = request.into_parts();
    let whole = Request::from_parts(head.clone(), body);
    match deps.once.enter(key, None, InvocationId::new(), whole).await? {
        Entered::Answered(mut response) => {
            // There was no invocation that a receipt could be asked for.
            response.headers_mut().remove(&answer::INVOCATION);
            Ok(response)
        }
        Entered::First(claim, whole) => {
            let body: Body = whole.into_body().boxed_unsync();
            let response = ask(deps, Request::from_parts(head, body)).await;
            let done = !response.status().is_server_error();
            claim.leave(done, response).await
        }
    }
}

fn ask(deps: &Deps, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
    let answered = deps.control.clone().oneshot(request);
    Box::pin(answered.map(|answer| match answer {
        Ok(response) => response,
        Err(never) => match never {},
    }))
}
