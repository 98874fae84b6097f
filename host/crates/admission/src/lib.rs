//! Who may do what ([`Principal`], [`TokenKeys`]), and how much at one time ([`Gate`], [`Permit`]).

mod hops;
mod permit;
mod principal;
mod token;

pub use hops::{Depth, HOPS, HopKey};
pub use permit::{Gate, GateOptions, Permit};
pub use principal::{Principal, Scope, Scopes, ScopesError};
pub use token::{Grant, KeyError, TokenKeys};
