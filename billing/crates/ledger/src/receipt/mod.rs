//! Receipts: the chain of each tenant, the signed commits, and how they are shown.

pub(crate) mod adjusted;
pub(crate) mod adopt;
pub(crate) mod chain;
pub(crate) mod check;
pub(crate) mod check_adjusted;
pub(crate) mod export;
mod key_file;
mod keys;
mod one;
pub(crate) mod page;
pub(crate) mod seal;
mod signer;

pub(crate) use chain::Links;
pub(crate) use signer::Signer;
