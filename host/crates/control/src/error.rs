use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use wasmeter_catalog::{BlobError, CatalogError};
use wasmeter_types::{Error, ErrorKind};

/// The one place where an error of the control API becomes HTTP.
pub(crate) struct Failure(pub(crate) Error);

/// What a handler gives.
pub(crate) type Answer<T> = Result<T, Failure>;

/// The body of every error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorBody {
    /// Stable word, such as `not_found`.
    code: String,
    /// For people.
    message: String,
    /// The invocation, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    invocation_id: Option<String>,
    /// Whether the same request may succeed later.
    retry: bool,
}

impl ErrorBody {
    /// What a client may see of the error.
    pub(crate) fn of(error: &Error) -> Self {
        let client = error.to_client(None);
        Self {
            code: client.code,
            message: client.message,
            invocation_id: client.invocation_id.map(|id| id.to_string()),
            retry: client.retry,
        }
    }
}

/// A refusal of this kind.
pub(crate) fn refuse(kind: ErrorKind, message: impl Into<String>) -> Failure {
    Failure(Error::new(kind, message))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NotFound(_) => Self(Error::not_found()),
            CatalogError::Conflict(message) => refuse(ErrorKind::Conflict, message),
            CatalogError::Invalid(message) => refuse(ErrorKind::Invalid, message),
            CatalogError::Log(error) => {
                tracing::error!(%error, "the catalog could not be changed");
                Self(Error::internal())
            }
        }
    }
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        tracing::error!(%error, "a blob could not be had or stored");
        Self(Error::internal())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = ErrorBody::of(&self.0);
        let kind = self.0.kind;
        let status = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        let source = HeaderValue::from_static(kind.source().as_str());
        headers.insert("x-wasmeter-error-source", source);
        if let Some(after) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, after.as_secs().max(1).into());
        }
        if kind == ErrorKind::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_body_is_the_platforms_body() {
        let error = Error::not_found();
        let (body, client) = (ErrorBody::of(&error), error.to_client(None));
        assert_eq!(serde_json::to_string(&body).unwrap(), serde_json::to_string(&client).unwrap());
    }
}
