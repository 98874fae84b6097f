use hyper::StatusCode;
use serde::Deserialize;

use crate::transport::TransportError;

/// Why a request to Stripe had no result.
#[derive(Debug, thiserror::Error)]
pub enum StripeError {
    /// No answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Stripe answered with an error.
    #[error("stripe answered {status} to {what}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Method and path.
        what: String,
        /// Stripe's `type`, such as `invalid_request_error`.
        kind: String,
        /// Stripe's `code`, such as `resource_missing`; empty where it gives none.
        code: String,
        /// Stripe's words.
        message: String,
    },
    /// An answer without what it must have.
    #[error("stripe's answer to {what} does not parse: {reason}")]
    Shape {
        /// Method and path.
        what: String,
        /// What is missing or wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Body {
    error: Fault,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fault {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    message: Option<String>,
}

impl StripeError {
    pub(crate) fn refused(status: StatusCode, what: &str, body: &[u8]) -> Self {
        let Fault { kind, code, message } =
            serde_json::from_slice::<Body>(body).map(|body| body.error).unwrap_or_default();
        // Their text goes to a log: bounded.
        let message = message.unwrap_or_else(|| "no reason given".to_owned()).chars().take(500).collect();
        Self::Refused {
            status: status.as_u16(),
            what: what.to_owned(),
            kind: kind.unwrap_or_default(),
            code: code.unwrap_or_default(),
            message,
        }
    }

    /// The object is not there, or deleted.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
            || matches!(self, Self::Refused { code, .. } if code == "resource_missing")
    }

    /// The same request may succeed later: no answer, too many requests, a fault of theirs.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Refused { status, .. } => matches!(status, 409 | 424 | 429 | 500..=599),
            Self::Shape { .. } => false,
        }
    }

    /// Nothing was applied for sure: refused, or never sent.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        match self {
            Self::Transport(TransportError::NotSent { .. }) => true,
            Self::Transport(TransportError::Unknown { .. }) | Self::Shape { .. } => false,
            Self::Refused { status, .. } => *status < 500,
        }
    }
}
