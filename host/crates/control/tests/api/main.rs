//! The control API against the real catalog and tokens; what the rest of the host does is small and in memory.
#![allow(
    clippy::unwrap_used,
    reason = "test helpers are test code, which clippy cannot see in an integration test"
)]
mod billing;
mod functions;
mod host;
mod models;
mod openapi;
mod recordings;
mod secrets;
mod tokens;
mod walls;
