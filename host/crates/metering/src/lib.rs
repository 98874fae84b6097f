//! Usage on its way from an invocation to the ledger.
//!
//! A [`Spool`] keeps each [`wasmeter_usage::UsageRecord`] on disk before the last response byte is released; a
//! [`Shipper`] takes the records over a [`BillingClient`] to billing, in order and until they are booked; billing
//! drops what it has already by node, epoch and sequence, so that each record is booked exactly once.
//!
//! On disk: `node` (name of this spool), `epoch` (the last one used), `lock`, and segments
//! `<epoch>-<first sequence>.seg`: a header of 128 bytes, then frames `{length u32, crc32 u32, JSON}`. The segment that is
//! being written is reserved as a whole and ends in zeros.

mod atomic;
mod client;
mod disk;
mod error;
mod flush;
mod frame;
mod identity;
mod mapping;
mod options;
mod prices;
mod read;
mod recover;
mod segment;
mod shared;
mod ship;
mod spool;

pub use client::{BillingClient, BillingError, BillingOptions};
pub use disk::{Disk, RealDisk};
pub use error::SpoolError;
pub use options::{Durability, SpoolOptions};
pub use ship::{Shipper, ShipperHandle, Unshipped};
pub use spool::Spool;
