use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::InvocationId;

/// What went wrong, in the platform's own words; each kind has one HTTP status (API.md, "Status of failures").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is malformed.
    Malformed,
    /// No token, or one that is not accepted. The body never says why.
    Unauthenticated,
    /// Budget or subscription.
    PaymentRequired,
    /// The token lacks the scope.
    Forbidden,
    /// Unknown, or another tenant's: the two are indistinguishable.
    NotFound,
    /// The caller was too slow.
    SlowRequest,
    /// The state does not allow it, or an idempotency key is taken.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The header fields are too many or too large.
    HeadersTooLarge,
    /// The component, model or manifest is not acceptable.
    Invalid,
    /// Over the quota.
    Quota,
    /// Our fault.
    Internal,
    /// The guest trapped or answered nothing.
    GuestFailed,
    /// The device died under the call.
    DeviceLost,
    /// Overloaded or draining.
    Overloaded,
    /// An engine or billing is missing.
    Unavailable,
    /// The usage of new work could not be kept: billing has been away for long, or the disk takes nothing.
    Metering,
    /// The wall-clock limit ended it.
    Deadline,
    /// The method is not allowed here.
    Method,
    /// A function that calls itself too deep.
    TooDeep,
}

/// Who is at fault; the value of `x-wasmeter-error-source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// wasmeter, or the request before any guest ran.
    Platform,
    /// The tenant's function.
    Function,
}

impl ErrorKind {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::PaymentRequired => 402,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Method => 405,
            Self::SlowRequest => 408,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Invalid => 422,
            Self::Quota => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::GuestFailed | Self::DeviceLost => 502,
            Self::Overloaded | Self::Unavailable | Self::Metering => 503,
            Self::Deadline => 504,
            Self::TooDeep => 508,
        }
    }

    /// Stable word for programs; the `code` of an error body.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::PaymentRequired => "payment_required",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Method => "method_not_allowed",
            Self::SlowRequest => "slow_request",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::Invalid => "invalid",
            Self::Quota => "quota",
            Self::Internal => "internal",
            Self::GuestFailed => "guest_failed",
            Self::DeviceLost => "device_lost",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Metering => "metering",
            Self::Deadline => "deadline",
            Self::TooDeep => "too_deep",
        }
    }

    /// `Function` where the tenant's code is at fault.
    #[must_use]
    pub fn source(self) -> Source {
        match self {
            Self::GuestFailed | Self::Deadline | Self::TooDeep => Source::Function,
            _ => Source::Platform,
        }
    }

    /// Whether an invocation that ends so is the tenant's to pay: its own code ran and failed.
    #[must_use]
    pub fn is_charged(self) -> bool {
        self.source() == Source::Function
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Quota | Self::DeviceLost | Self::Overloaded | Self::Unavailable | Self::Metering)
    }
}

impl Source {
    /// The header's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Function => "function",
        }
    }
}

/// An error that a client may see. Debug text of lower layers never goes into it.
#[derive(Clone, Debug)]
pub struct Error {
    /// Decides status, code and source.
    pub kind: ErrorKind,
    /// What, which, and what to do; lower case.
    pub message: String,
    /// For `Retry-After`.
    pub retry_after: Option<Duration>,
    /// A narrower word than the kind's, where programs need to tell the two apart.
    code: Option<&'static str>,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retry_after = kind.is_retryable().then_some(Duration::from_secs(1));
        Self { kind, message: message.into(), retry_after, code: None }
    }

    /// The same with a stable word of its own, such as `subscription`.
    #[must_use]
    pub fn coded(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// Stable word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code.unwrap_or(self.kind.code())
    }

    /// 401 with the constant body: it must not tell an unknown function from a private one.
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self::new(ErrorKind::Unauthenticated, "a valid bearer token is needed; `wasmeter token` makes one")
    }

    /// 404 with the constant body: it must not tell another tenant's thing from an unknown one.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(
            ErrorKind::NotFound,
            "not found, or not yours; `wasmeter functions list` shows what is there",
        )
    }

    /// 500; the cause is logged where it is handled, never shown.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            ErrorKind::Internal,
            "the platform failed; nothing was charged, and the operator has the details",
        )
    }

    /// The body that a client gets.
    #[must_use]
    pub fn to_client(&self, invocation: Option<InvocationId>) -> ClientError {
        ClientError {
            code: self.code().to_owned(),
            message: self.message.clone(),
            invocation_id: invocation,
            retry: self.kind.is_retryable(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The JSON body of every error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientError {
    /// Stable word.
    pub code: String,
    /// For people.
    pub message: String,
    /// The invocation, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<InvocationId>,
    /// Whether the same request may succeed later.
    pub retry: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_its_own() {
        let error = Error::new(ErrorKind::PaymentRequired, "pay").coded("subscription");
        assert_eq!((error.to_client(None).code.as_str(), error.kind.status()), ("subscription", 402));
    }

    #[test]
    fn golden_body() {
        let body = serde_json::to_string(&Error::unauthenticated().to_client(None)).unwrap();
        assert_eq!(
            body,
            r#"{"code":"unauthenticated","message":"a valid bearer token is needed; `wasmeter token` makes one","retry":false}"#
        );
    }
}
