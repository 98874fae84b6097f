//! Failures of model calls.

use std::fmt;

use crate::raw::wasi::nn::errors;

pub use crate::raw::wasi::nn::errors::ErrorCode;

/// A model call that failed: the code that wasi-nn gives, and what the host says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: ErrorCode,
    message: String,
}

impl Error {
    /// An error with this code and message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    /// What kind of failure it is.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The code as wasi-nn spells it, e.g. `invalid-argument`.
    pub fn code_name(&self) -> &'static str {
        match self.code {
            ErrorCode::InvalidArgument => "invalid-argument",
            ErrorCode::InvalidEncoding => "invalid-encoding",
            ErrorCode::Timeout => "timeout",
            ErrorCode::RuntimeError => "runtime-error",
            ErrorCode::UnsupportedOperation => "unsupported-operation",
            ErrorCode::TooLarge => "too-large",
            ErrorCode::NotFound => "not-found",
            ErrorCode::Security => "security",
            ErrorCode::Unknown => "unknown",
        }
    }

    /// What the host says.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<errors::Error> for Error {
    fn from(error: errors::Error) -> Self {
        Self { code: error.code(), message: error.data() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model call failed ({}): {}", self.code_name(), self.message)
    }
}

impl std::error::Error for Error {}
