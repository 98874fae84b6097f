//! Write wasmeter functions in Rust.
//!
//! ```no_run
//! use wasmeter_guest::{Request, Response, Result};
//!
//! #[wasmeter_guest::handler]
//! fn handle(req: Request) -> Result<Response> {
//!     let name = req.query_param("name").unwrap_or_else(|| "world".into());
//!     Ok(Response::text(format!("hello {name}\n")))
//! }
//! ```
//!
//! Build with `--target wasm32-wasip2` as a `cdylib`. Models are in [`nn`]; everything that the
//! platform offers, without comfort, is in [`raw`].

pub mod config;
mod error;
mod export;
pub mod http;
#[doc(hidden)]
pub mod initialize;
pub mod invocation;
pub mod json;
pub mod keyvalue;
pub mod log;
pub mod nn;
pub mod raw;
mod request;
mod response;
pub mod secrets;
mod url;
mod websocket;
mod writer;

pub use error::{Error, Result};
pub use request::{DEFAULT_BODY_LIMIT, Request};
pub use response::{IntoResponse, Response};
pub use wasmeter_guest_macros::{handler, initialize};
pub use websocket::{Message, WEBSOCKET, WebSocket};
pub use writer::BodyWriter;

/// The README's code must compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[doc(hidden)]
pub mod __private {
    pub use crate::export::serve;
    pub use crate::raw::export;
    pub use crate::raw::exports::wasi::http::incoming_handler::{Guest, IncomingRequest, ResponseOutparam};
}
