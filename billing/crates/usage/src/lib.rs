//! The contract between the host and billing, and the only crate that both share.
//!
//! A [`UsageRecord`] is what one invocation used; [`PriceSheet`] turns it into its list price with one
//! rounding; [`wire`] is how records and questions travel over `billing.sock`.

mod budget;
mod id;
mod money;
mod payer;
mod price;
mod record;
mod standing;
pub mod wire;

pub use budget::{
    AlertChannel, AlertDelivery, AlertOf, AlertState, AlertTerms, BudgetState, BudgetTerms, Budgeted, Draw,
    FiredAlert, Lease, LeaseAsk, MAX_KEYS, MAX_THRESHOLDS,
};
pub use id::{InvocationId, ParseInvocationIdError};
pub use money::{ParsePicoError, Pico};
pub use payer::{Payer, Work, payer};
pub use price::{Band, MeterTerms, PriceSheet, Rates, Terms, TierMode};
pub use record::{DeviceClass, Meter, ModelUse, Outcome, Quantities, RECORD_VERSION, UsageRecord};
pub use standing::{Standing, StandingState, Unpaid};
