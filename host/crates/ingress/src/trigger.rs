use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::time::Instant;
use wasmeter_admission::{Concurrency, Depth, OnceKey, Permit, Principal, Scope, idempotency_key};
use wasmeter_catalog::{Revision, Snapshot};
use wasmeter_runtime::{BodyError, Invocation, Tape};
use wasmeter_types::{Error, ErrorKind, InvocationId};

use crate::answer::{self, Body};
use crate::budget::purse;
use crate::head;
use crate::once::Entered;
use crate::paced::Paced;
use crate::route::Target;
use crate::server::Deps;
use crate::taped::taped;
use crate::walls;

/// Which of an alias' revisions answered, for a caller who holds the tenant's token.
const REVISION: HeaderName = HeaderName::from_static("x-wasmeter-revision");

/// A function trigger, from the request's head to its answer.
pub(crate) async fn trigger(
    deps: &Deps,
    scheme: Scheme,
    target: Target,
    request: Request<Incoming>,
) -> Response<Body> {
    let id = InvocationId::new();
    let mut response = match invoke(deps, id, scheme, &target, request).await {
        Ok(response) => response,
        Err(error) => answer::error(&error, Some(id)),
    };
    // A repeated request is answered with the first one's.
    if !response.headers().contains_key(&answer::INVOCATION) {
        answer::set_invocation(&mut response, id);
    }
    response
}

/// A caller who may trigger a function now.
pub(crate) struct Admitted {
    pub(crate) revision: Arc<Revision>,
    pub(crate) caller: Caller,
    pub(crate) permit: Permit,
    /// How deep in a chain of functions.
    pub(crate) depth: Depth,
    /// Whether the tenant's calls are recorded.
    pub(crate) recorded: bool,
}

/// Cheapest checks first; nothing is read of the body.
pub(crate) fn admit(
    deps: &Deps,
    id: InvocationId,
    target: &Target,
    headers: &HeaderMap,
) -> Result<Admitted, Error> {
    let depth = deps.hops.check(headers)?;
    let snapshot = deps.catalog.snapshot();
    let (revision, caller) = authorize(deps, &snapshot, id, target, headers)?;
    deps.budgets.subscribed(target.tenant.as_str(), caller.is_tenant())?;
    let limits = &revision.manifest.limits;
    let concurrency = Concurrency {
        most: limits.concurrency,
        provisioned: snapshot.provisioned(target.tenant.as_str(), target.function.as_str()),
        provisioned_of_all: snapshot.provisioned,
    };
    let bounds = limits.bounds();
    head::check_for(headers, bounds.headers, bounds.header_bytes, "this function's, by its [limits],")?;
    check_length(headers, limits.request_body.0)?;
    if !deps.invoker.accepting() {
        let message =
            "the host cannot record more usage now: billing or the disk is not keeping up; retry later";
        return Err(Error::new(ErrorKind::Metering, message));
    }
    let permit = deps.gate.admit(&target.tenant, &target.function, concurrency)?;
    let recorded = snapshot.recorded.contains(&target.tenant);
    Ok(Admitted { revision, caller, permit, depth, recorded })
}

async fn invoke(
    deps: &Deps,
    id: InvocationId,
    scheme: Scheme,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let accepted = Instant::now();
    let Admitted { revision, caller, permit, depth, recorded } = admit(deps, id, target, request.headers())?;
    let figures = caller.is_tenant();
    let (head, body) = request.into_parts();
    let (claim, mut body) = match idempotency_key(&head.headers)? {
        None => (None, Paced::new(body, deps.silence).boxed_unsync()),
        Some(key) => {
            let key = OnceKey { tenant: target.tenant.clone(), scope: scope(target, &caller), key };
            let keep = revision.manifest.idempotency.as_ref().map(|i| i.keep_answers.0);
            let whole = Request::from_parts(head.clone(), body);
            // Boxed, as what follows: few calls have it, and all would be moved with its size.
            match Box::pin(deps.once.enter(key, keep, id, whole)).await? {
                Entered::Answered(response) => return Ok(response),
                Entered::First(claim, whole) => (Some(claim), whole.into_body().boxed_unsync()),
            }
        }
    };
    let purse = purse(deps, &target.tenant, &revision, &caller, &head.headers).await?;
    let mut tape = None;
    if recorded {
        let whole;
        (body, whole) = Box::pin(taped(body, accepted + revision.manifest.limits.deadline.0)).await?;
        tape = Some(Tape::record(whole));
    }
    let is_token = |value: &HeaderValue| deps.tokens.named_in(value);
    let request = for_guest(Request::from_parts(head, body), scheme, target, is_token)?;
    let tenant = target.tenant.clone();
    // Ids are made of hexadecimal digits.
    let which = HeaderValue::from_str(&revision.id).ok().filter(|_| figures);
    let invocation =
        Invocation { id, tenant, revision, request, permit, purse, figures, accepted, depth, tape };
    let reply = deps.invoker.invoke(invocation).await;
    // A guest that its budget stopped has run, and is charged for that.
    let is_charged = |e: &Error| e.kind.is_charged() || e.kind == ErrorKind::PaymentRequired;
    let charged = reply.answer.as_ref().map_or_else(is_charged, |_| true);
    let mut response = match reply.answer {
        Ok(response) => {
            let (mut parts, body) = response.into_parts();
            walls::outbound(&mut parts.headers, &target.place);
            Response::from_parts(parts, answer::boxed(body))
        }
        Err(error) => answer::error(&error, Some(id)),
    };
    if let Some(claim) = claim {
        response = Box::pin(claim.leave(charged, response)).await?;
    }
    if let Some(shown) = reply.figures.filter(|_| figures) {
        shown.write(response.headers_mut());
    }
    if let Some(which) = which {
        response.headers_mut().insert(REVISION, which);
    }
    Ok(response)
}

/// What a key is about: two callers, or two functions, do not meet.
fn scope(target: &Target, caller: &Caller) -> String {
    let who = match caller {
        Caller::Anonymous => "",
        Caller::Tenant(subject) => subject,
    };
    format!("fn/{} {who}", target.function)
}

/// Who triggers, as far as the guest and the figures are concerned.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// No token, or not the tenant's.
    Anonymous,
    /// The tenant's token, or the operator's, with its subject: may see the figures.
    Tenant(String),
}

impl Caller {
    pub(crate) fn is_tenant(&self) -> bool {
        matches!(self, Self::Tenant(_))
    }

    /// The subject of its token.
    pub(crate) fn subject(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::Tenant(subject) => Some(subject),
        }
    }
}

/// Without a token a private and an unknown function look the same, and so do another tenant's and an unknown one
/// with a token.
fn authorize(
    deps: &Deps,
    snapshot: &Snapshot,
    id: InvocationId,
    target: &Target,
    headers: &HeaderMap,
) -> Result<(Arc<Revision>, Caller), Error> {
    let Target { tenant, function, alias, .. } = target;
    let revision = snapshot.resolve(tenant.as_str(), function.as_str(), alias.as_str(), id.draw());
    let token = deps.tokens.verify_header(headers);
    let public = revision.filter(|r| r.manifest.function.public);
    match (public, token) {
        // The guest of a public function may have an Authorization scheme of its own.
        (Some(revision), Ok(None) | Err(_)) => Ok((revision.clone(), Caller::Anonymous)),
        (Some(revision), Ok(Some(principal))) => Ok((revision.clone(), caller(principal, target))),
        (None, Err(error)) => Err(error),
        (None, Ok(None)) => Err(Error::unauthenticated()),
        (None, Ok(Some(principal))) => {
            principal.may(&target.tenant, Scope::Invoke)?;
            Ok((revision.ok_or_else(Error::not_found)?.clone(), Caller::Tenant(principal.subject)))
        }
    }
}

fn caller(principal: Principal, target: &Target) -> Caller {
    match principal.may(&target.tenant, Scope::Invoke) {
        Ok(()) => Caller::Tenant(principal.subject),
        Err(_) => Caller::Anonymous,
    }
}

/// Refuses by the declared length before a byte is read; what is not declared is counted on its way to the guest.
fn check_length(headers: &HeaderMap, most: u64) -> Result<(), Error> {
    let Some(declared) = headers.get(CONTENT_LENGTH) else { return Ok(()) };
    let length: u64 = declared
        .to_str()
        .ok()
        .and_then(|l| l.parse().ok())
        .ok_or_else(|| Error::new(ErrorKind::Malformed, "content-length is not a number"))?;
    if length > most {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the request body has {length} bytes; the function's limits.request-body is {most}"),
        ));
    }
    Ok(())
}

/// The request as the guest sees it.
pub(crate) fn for_guest(
    request: Request<UnsyncBoxBody<Bytes, BodyError>>,
    scheme: Scheme,
    target: &Target,
    is_platform_token: impl Fn(&HeaderValue) -> bool,
) -> Result<Request<UnsyncBoxBody<Bytes, BodyError>>, Error> {
    let (mut parts, body) = request.into_parts();
    walls::inbound(&mut parts.headers, is_platform_token);
    let authority = target.authority.clone();
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        parts.headers.insert(HOST, host);
    }
    parts.uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(target.rest.clone())
        .build()
        .map_err(|e| Error::new(ErrorKind::Malformed, e.to_string()))?;
    Ok(Request::from_parts(parts, body))
}
