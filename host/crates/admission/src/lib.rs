//! Who may do what ([`Principal`], [`TokenKeys`]), and how much at one time ([`Gate`], [`Permit`]),
//! what only once ([`OnceStore`]), and for how much money ([`Budgets`], [`Purse`]).

mod budget;
mod hops;
mod once;
mod permit;
mod principal;
mod token;

pub use budget::{Budgets, Known, LeaseError, LeaseSource, Opening, Purse};
pub use hops::{Depth, HOPS, HopKey};
pub use once::{Claimed, IDEMPOTENCY_KEY, KeptAnswer, OnceError, OnceKey, OnceStore, idempotency_key};
pub use permit::{Concurrency, Gate, GateOptions, Permit};
pub use principal::{Principal, Scope, Scopes, ScopesError};
pub use token::{Grant, KeyError, TokenKeys};
