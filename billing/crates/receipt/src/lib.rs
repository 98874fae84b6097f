//! Receipts that whoever holds them can check, offline, against one public key.
//!
//! - The entries of a tenant are a chain: each [`Link`] hashes the one before, the record's text, its cost and its price
//!   sheet, so that none can be changed, taken out or put in.
//! - What one transaction books is a [`Commit`]: the root of a Merkle tree (RFC 6962, section 2.1) over the links, the hash
//!   of the commit before, and an Ed25519 signature (RFC 8032). A tenant is shown its own links and, of the rest of the
//!   tree, hashes: the first link of each chain hangs on 256 random bits, so that none of them can be guessed.
//! - Refunds and other corrections are a chain of their own, each an [`Adjusted`] with a signature, anchored in the chain of
//!   entries.
//! - An export begins with a signed [`Statement`] of what it holds, so that nothing can be cut off it.
//!
//! [`Verifier`] checks an export or single receipts line by line, in memory that does not grow with them. What is hashed
//! and signed is described at each type, so that others can write a verifier of their own; SHA-256 throughout.

mod adjusted;
mod commit;
mod fault;
mod hash;
mod key;
mod line;
mod link;
mod statement;
mod tree;
mod verify;

pub use adjusted::{Adjusted, Adjustments};
pub use commit::{Commit, MAX_COMMIT, Made, UNSTAMPED};
pub use fault::{Fault, Wrong};
pub use hash::Hash;
pub use key::{PublicKey, Signature};
pub use line::{
    AdjustedLine, Chain, CommitLine, KeyLine, MAX_LINE, Proved, ReceiptLine, SheetLine, Skipped, SkippedLine,
    StatementLine,
};
pub use link::{Link, record_hash};
pub use statement::Statement;
pub use tree::{prove, rebuild, root};
pub use verify::{Report, Verifier};
