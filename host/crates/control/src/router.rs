use axum::Json;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use wasmeter_types::{Error, ErrorKind};

use crate::error::{Failure, refuse};
use crate::extract::authenticate;
use crate::shared::Shared;
use crate::{Deps, functions, ledger, logs, models, recordings, secrets, tenants, token};

/// Request bodies other than uploads, in bytes. Uploads read their bodies themselves, with limits of their own.
const MAX_BODY: usize = 64 << 10;

#[derive(utoipa::OpenApi)]
#[openapi(info(title = "wasmeter control API", description = "Functions, models, tokens, usage and bills."))]
struct Document;

/// All routes of the control API, and the OpenAPI 3.1 document that is generated from them.
///
/// The router answers everything, so it can be the service of the prefix `/api`.
pub fn router(deps: Deps) -> (axum::Router, OpenApi) {
    let shared = Shared::new(deps);
    let (router, mut document) = OpenApiRouter::<Shared>::with_openapi(Document::openapi())
        .merge(tenants::routes())
        .merge(functions::routes())
        .merge(logs::routes())
        .merge(models::routes())
        .merge(ledger::routes())
        .merge(secrets::routes())
        .merge(recordings::routes())
        .merge(token::routes())
        .split_for_parts();
    secure(&mut document);
    let served = document.clone();
    let router = router
        .route("/api/openapi.json", get(move || std::future::ready(Json(served.clone()))))
        .fallback(async || Failure(Error::new(ErrorKind::NotFound, "no such address; see /api/openapi.json")))
        .method_not_allowed_fallback(async || {
            refuse(ErrorKind::Method, "this address has other methods; see /api/openapi.json")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(shared.clone(), authenticate))
        .with_state(shared);
    (router, document)
}

/// Everything needs a bearer token.
fn secure(document: &mut OpenApi) {
    let mut scheme = Http::new(HttpAuthScheme::Bearer);
    scheme.bearer_format = Some("JWT".to_owned());
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    document.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
}
