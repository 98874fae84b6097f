//! The heap of the process after much of it was freed.

// What the program allocates with (`main.rs`); in tests of this crate it is there and empty.
use libmimalloc_sys as _;

#[allow(unsafe_code, reason = "mimalloc has no safe way to it")]
mod ffi {
    unsafe extern "C" {
        pub(super) safe fn mi_collect(force: bool);
    }
}

/// Gives free pages back to the system: those that the calling thread owns, those of threads that ended, and those that are
/// kept to be used again. A component is many small pieces, made on one thread and dropped on another, and what it leaves
/// would otherwise wait for the next one. Takes about a millisecond.
pub(crate) fn give_back() {
    ffi::mi_collect(true);
}
