use std::io;
use std::path::{Path, PathBuf};

/// The spool cannot take a record, or cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The bound on the spool's size is reached: billing has been away for long.
    #[error("the usage spool is full ({max} bytes): bring billing back, or raise its limit")]
    Full {
        /// The bound.
        max: u64,
    },
    /// The record is larger than any frame may be.
    #[error("a usage record of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// Its size as JSON.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The record has no JSON form.
    #[error("usage record: {0}")]
    Encode(#[from] serde_json::Error),
    /// A file operation failed; nothing of the record is kept.
    #[error("usage spool: cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A flush failed earlier. What the disk holds since then is unknown, so nothing more is taken.
    #[error("the usage spool stopped after a failed flush ({0}): check the disk, then restart")]
    Failed(String),
    /// Another process has the spool open.
    #[error("the usage spool {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// A file of the spool cannot be understood.
    #[error("usage spool: {} {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl SpoolError {
    pub(crate) fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}
