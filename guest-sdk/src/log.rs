//! Lines of the function's log with a level (`wasi:logging`); `wasmeter logs` shows them. Standard output and error are lines
//! of the same log, out of the same budget.

pub use crate::raw::wasi::logging::logging::Level;

/// Writes a message. `context` groups messages; it may be empty.
pub fn log(level: Level, context: &str, message: &str) {
    crate::raw::wasi::logging::logging::log(level, context, message);
}

/// What happened, and was expected.
pub fn info(message: &str) {
    log(Level::Info, "", message);
}

/// What went on in spite of something.
pub fn warn(message: &str) {
    log(Level::Warn, "", message);
}

/// What failed.
pub fn error(message: &str) {
    log(Level::Error, "", message);
}
