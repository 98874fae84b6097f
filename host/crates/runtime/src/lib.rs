//! The wasmtime engine, the confined compiler, the artifact cache, and the life of one invocation.
//!
//! [`Compiler`] runs Cranelift in a child process; [`Loader`] keeps compiled components; [`Invoker`] runs one
//! invocation in a store of its own and releases the last byte of its answer only after its usage is recorded.
//!
//! Unsafe code: one call that maps an artifact which this host compiled and authenticated (`artifact.rs`), one
//! with which the compile child closes descriptors that it was not meant to have (`compile/sandbox.rs`), and the
//! declaration of a function of the allocator (`heap.rs`).

mod artifact;
mod artifact_room;
mod capability;
mod compile;
mod engine;
mod guest;
mod guest_core;
mod guests;
mod heap;
mod invoke;
mod kind;
mod loader;
mod logs;
mod outline;
mod pre_init;
mod random;
mod replay;
mod shelf;
mod stdio;
mod tape;
mod toll;
mod underway;

pub use artifact::{ArtifactCache, ArtifactError};
pub use capability::{Capabilities, Network, Outbound, OutboundError, OutboundOptions, ParseNetworkError};
pub use compile::{CompileError, CompileOptions, CompileStage, Compiler, compile_main};
pub use engine::{EngineError, Engines, FUEL_SCHEDULE, PoolOptions, Wasi};
pub use guests::GuestOptions;
pub use invoke::{
    BodyError, Figures, Invocation, Invoker, InvokerOptions, RecordError, Recorder, Reply, ReplyBody,
    WEBSOCKET,
};
pub use kind::Compiled;
pub use loader::{Inspected, LoadError, Loaded, Loader, LoaderOptions};
pub use logs::{LogHub, LogLevel, LogLine, LogStream};
pub use pre_init::{INITIALIZE, PreInitError, PreInitialized, pre_initialize};
pub use replay::{Replay, ReplayError, Replayed};
pub use tape::{BadRecording, RecordedCall, Recording, Tape};
