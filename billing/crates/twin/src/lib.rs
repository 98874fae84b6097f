//! The billing twin: a strict, stateful stand-in for the part of Stripe that wasmeter uses, with a clock of its own and
//! faults on request. It speaks Stripe's `/v1/…` and `/v2/core/events/…` as documented (form-encoded in, JSON out), has
//! pages in the place of checkout and portal, and a control plane under `/_twin/…`. Play money only: loopback, keys of
//! test mode.
//!
//! Objects are JSON in tables ([`state`]); every change is one line of a [`journal`] that is written before the answer,
//! so the twin may be killed at any instant. What time does ([`bill`]) is a queue of due objects.

// Objects are written down as `json!`, and Stripe's invoices are long.
#![recursion_limit = "256"]

mod bill;
mod clock;
mod context;
mod control;
mod error;
mod event;
mod exchange;
mod expand;
mod faults;
mod files;
mod form;
mod journal;
mod kind;
mod limits;
mod list;
mod object;
mod page;
mod params;
mod router;
mod serve;
mod state;
mod table;
mod twin;
mod webhook;

pub use serve::Running;
pub use twin::{Options, TwinError};
