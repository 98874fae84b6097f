use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;
use wasmeter_admission::{Principal, Scope};
use wasmeter_catalog::Revision;
use wasmeter_runtime::{BodyError, Invocation};
use wasmeter_types::{Error, ErrorKind, InvocationId};

use crate::answer::{self, Body};
use crate::route::Target;
use crate::server::Deps;
use crate::walls;

/// Which of an alias' revisions answered, for a caller who holds the tenant's token.
const REVISION: HeaderName = HeaderName::from_static("x-wasmeter-revision");

/// A function trigger, from the request's head to its answer.
pub(crate) async fn trigger(deps: &Deps, target: Target, request: Request<Incoming>) -> Response<Body> {
    let id = InvocationId::new();
    let mut response = match invoke(deps, id, &target, request).await {
        Ok(response) => response,
        Err(error) => answer::error(&error, Some(id)),
    };
    answer::set_invocation(&mut response, id);
    response
}

async fn invoke(
    deps: &Deps,
    id: InvocationId,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let accepted = Instant::now();
    let depth = deps.hops.check(request.headers())?;
    let (revision, caller) = authorize(deps, id, target, request.headers())?;
    let limits = &revision.manifest.limits;
    check_length(request.headers(), limits.request_body.0)?;
    if !deps.invoker.accepting() {
        let message =
            "the host cannot record more usage until billing has taken what is waiting: retry later";
        return Err(Error::new(ErrorKind::Overloaded, message));
    }
    let permit = deps.gate.admit(&target.tenant, &target.function, limits.concurrency)?;
    let request = for_guest(request, target, |value| deps.tokens.named_in(value))?;
    let figures = caller == Caller::Tenant;
    let tenant = target.tenant.clone();
    // Ids are made of hexadecimal digits.
    let which = HeaderValue::from_str(&revision.id).ok().filter(|_| figures);
    let invocation = Invocation { id, tenant, revision, request, permit, figures, accepted, depth };
    let reply = deps.invoker.invoke(invocation).await;
    let mut response = match reply.answer {
        Ok(response) => {
            let (mut parts, body) = response.into_parts();
            walls::outbound(&mut parts.headers, &target.prefix);
            Response::from_parts(parts, answer::boxed(body))
        }
        Err(error) => answer::error(&error, Some(id)),
    };
    if let Some(shown) = reply.figures.filter(|_| figures) {
        shown.write(response.headers_mut());
    }
    if let Some(which) = which {
        response.headers_mut().insert(REVISION, which);
    }
    Ok(response)
}

/// Who triggers, as far as the guest and the figures are concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// No token, or not the tenant's.
    Anonymous,
    /// The tenant's token, or the operator's: may see the figures.
    Tenant,
}

/// Without a token a private and an unknown function look the same, and so do another tenant's and an unknown one
/// with a token.
fn authorize(
    deps: &Deps,
    id: InvocationId,
    target: &Target,
    headers: &HeaderMap,
) -> Result<(Arc<Revision>, Caller), Error> {
    let snapshot = deps.catalog.snapshot();
    let Target { tenant, function, alias, .. } = target;
    let revision = snapshot.resolve(tenant.as_str(), function.as_str(), alias.as_str(), id.draw());
    let token = deps.tokens.verify_header(headers);
    let public = revision.filter(|r| r.manifest.function.public);
    match (public, token) {
        // The guest of a public function may have an Authorization scheme of its own.
        (Some(revision), Ok(None) | Err(_)) => Ok((revision.clone(), Caller::Anonymous)),
        (Some(revision), Ok(Some(principal))) => Ok((revision.clone(), caller(&principal, target))),
        (None, Err(error)) => Err(error),
        (None, Ok(None)) => Err(Error::unauthenticated()),
        (None, Ok(Some(principal))) => {
            principal.may(&target.tenant, Scope::Invoke)?;
            Ok((revision.ok_or_else(Error::not_found)?.clone(), Caller::Tenant))
        }
    }
}

fn caller(principal: &Principal, target: &Target) -> Caller {
    match principal.may(&target.tenant, Scope::Invoke) {
        Ok(()) => Caller::Tenant,
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
fn for_guest(
    request: Request<Incoming>,
    target: &Target,
    is_platform_token: impl Fn(&HeaderValue) -> bool,
) -> Result<Request<http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BodyError>>, Error> {
    let (mut parts, body) = request.into_parts();
    walls::inbound(&mut parts.headers, is_platform_token);
    let authority = match parts.uri.authority() {
        Some(authority) => authority.clone(),
        None => {
            let malformed = || Error::new(ErrorKind::Malformed, "a request needs one valid Host header");
            let mut hosts = parts.headers.get_all(HOST).iter();
            let (host, None) = (hosts.next().ok_or_else(malformed)?, hosts.next()) else {
                return Err(malformed());
            };
            host.to_str().ok().and_then(|h| h.parse().ok()).ok_or_else(malformed)?
        }
    };
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        parts.headers.insert(HOST, host);
    }
    parts.uri = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(target.rest.clone())
        .build()
        .map_err(|e| Error::new(ErrorKind::Malformed, e.to_string()))?;
    let body = body.map_err(|e| BodyError::Broken(e.to_string())).boxed_unsync();
    Ok(Request::from_parts(parts, body))
}
