//! What a handler returns when it cannot answer.

use std::any::Any;
use std::fmt;

use crate::nn;

/// The result of a handler and of most calls of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure with the HTTP status that it answers.
///
/// Every `std::error::Error` turns into one by `?`: with status 500, or 504 if a model timed out.
/// The message is sent to the caller as `{"error": message}`. Like `anyhow::Error` it does not
/// implement `std::error::Error` itself.
pub struct Error {
    status: u16,
    message: String,
}

impl Error {
    /// A failure that answers `status` (400 to 599; anything else becomes 500).
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        let status = if (400..=599).contains(&status) { status } else { 500 };
        Self { status, message: message.into() }
    }

    /// 400: the request is not what the function takes.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// 404: there is nothing at this path.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, message)
    }

    /// 413: the request's body is too large.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, message)
    }

    /// 500: the function failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    /// The HTTP status that this error answers.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The text that the caller gets.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with a text before its message: `{text}: {message}`.
    #[must_use]
    pub fn context(mut self, text: impl fmt::Display) -> Self {
        self.message = format!("{text}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (status {})", self.message, self.status)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let any: &dyn Any = &error;
        let status = match any.downcast_ref::<nn::Error>() {
            Some(error) if error.code() == nn::ErrorCode::Timeout => 504,
            _ => 500,
        };
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self { status, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<u32> {
        Ok(text.parse::<u32>()?)
    }

    #[test]
    fn std_errors_become_500() {
        let error = parse("x").expect_err("not a number");
        assert_eq!(error.status(), 500);
        assert_eq!(error.message(), "invalid digit found in string");
    }

    #[test]
    fn model_timeout_becomes_504() {
        let error = Error::from(nn::Error::new(nn::ErrorCode::Timeout, "late"));
        assert_eq!((error.status(), error.message()), (504, "model call failed (timeout): late"));
    }

    #[test]
    fn a_status_that_is_no_error_becomes_500() {
        assert_eq!(Error::new(200, "x").status(), 500);
        assert_eq!(Error::bad_request("x").context("field a").message(), "field a: x");
    }
}
