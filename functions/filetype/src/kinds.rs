//! The content types that magika knows, made by `build.rs` from the files that the model came with.

/// A content type.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    /// magika's short name, e.g. `jpeg`.
    pub(crate) label: &'static str,
    pub(crate) description: &'static str,
    pub(crate) mime: &'static str,
    pub(crate) is_text: bool,
}

/// One output of the model.
pub(crate) struct Class {
    /// What is answered for it: an index into `KINDS`.
    pub(crate) output: usize,
    /// From this score on it is believed.
    pub(crate) threshold: f64,
}

include!(concat!(env!("OUT_DIR"), "/kinds.rs"));
