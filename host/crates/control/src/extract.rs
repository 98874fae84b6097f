use std::str::FromStr;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;
use wasmeter_admission::{Principal, Scope};
use wasmeter_types::{Error, ErrorKind, NameError, TenantName};

use crate::error::{Failure, refuse};
use crate::shared::Shared;

/// Who is calling. Handlers that take one cannot be reached without a token.
pub(crate) struct Caller(pub(crate) Principal);

/// Refuses everything under `/api/v1` that comes without a good token, known route or not.
pub(crate) async fn authenticate(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path == "/api/v1" || path.starts_with("/api/v1/") {
        match shared.deps.keys.verify_header(request.headers()) {
            Ok(Some(principal)) => {
                request.extensions_mut().insert(principal);
            }
            Ok(None) => return Failure(Error::unauthenticated()).into_response(),
            Err(error) => return Failure(error).into_response(),
        }
    }
    next.run(request).await
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get().cloned().map(Self).ok_or_else(|| Failure(Error::unauthenticated()))
    }
}

impl Caller {
    /// The tenant of the path, if the caller may use it so.
    pub(crate) fn tenant(&self, text: &str, scope: Scope) -> Result<TenantName, Failure> {
        match text.parse::<TenantName>() {
            Ok(tenant) => {
                self.0.may(&tenant, scope)?;
                Ok(tenant)
            }
            Err(error) if self.0.is_operator() => Err(bad_name(&error)),
            Err(_) => Err(Failure(Error::not_found())),
        }
    }
}

/// A function or model name of the path.
pub(crate) fn name<T: FromStr<Err = NameError>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|e: NameError| bad_name(&e))
}

fn bad_name(error: &NameError) -> Failure {
    refuse(ErrorKind::Malformed, error.to_string())
}

/// The variable parts of a path, percent-decoded.
pub(crate) struct Segments<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(error) => Err(refuse(ErrorKind::Malformed, format!("path: {}", error.body_text()))),
        }
    }
}

/// The query.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(refuse(ErrorKind::Malformed, format!("query: {}", error.body_text()))),
        }
    }
}

/// A JSON body, of the router's default limit.
pub(crate) struct Given<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Given<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(error) => Err(body_refused(&error)),
        }
    }
}

/// A JSON body, or none.
pub(crate) struct GivenOrNot<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for GivenOrNot<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| {
            let kind = match error.status() {
                StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::TooLarge,
                _ => ErrorKind::Malformed,
            };
            refuse(kind, format!("body: {}", error.body_text()))
        })?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        let body = serde_json::from_slice(&bytes);
        body.map(Self).map_err(|error| refuse(ErrorKind::Malformed, format!("body: {error}")))
    }
}

fn body_refused(error: &JsonRejection) -> Failure {
    let kind = match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::TooLarge,
        _ => ErrorKind::Malformed,
    };
    refuse(kind, format!("body: {}", error.body_text()))
}
