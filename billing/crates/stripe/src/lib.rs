//! The only HTTP client to Stripe, or to the twin of it. Requests are made of `async-stripe`'s parameter types, so that
//! a parameter that Stripe does not know does not compile; they travel over a pooled transport of our own
//! ([`Client`]), because that crate's client opens a connection for each call, never times out and repeats calls
//! without a stable key. Answers are read by the few names that are used, so that what Stripe adds breaks nothing.
//!
//! [`Endpoint`] makes sure that play money and money never meet; [`Client::set_up`] makes product, meters and prices, and
//! [`Client::move_to`] brings subscriptions to them;
//! [`Client::send_event`] delivers one bucket of usage once and says what is known of it; [`verify`] and
//! [`Event::parse`] read webhooks.

mod client;
mod customer;
mod endpoint;
mod error;
mod event;
mod invoice;
mod invoice_item;
mod key;
mod meter_event;
mod moves;
mod object;
mod setup;
mod signature;
mod sku;
mod summary;
mod transport;

pub use client::{Client, ClientError, Patience};
pub use endpoint::{Endpoint, EndpointError, Money, STRIPE};
pub use error::StripeError;
pub use event::{About, Event, EventError, MAX_WEBHOOK};
pub use invoice_item::{Item, NewItem};
pub use key::{Secret, SecretError};
pub use meter_event::{Delivery, MeterEvent};
pub use moves::{Change, Move};
pub use object::{Invoice, Subscription};
pub use setup::{Catalogue, SetupError};
pub use signature::{SignatureError, TOLERANCE, verify};
pub use sku::{FineRate, LARGEST_VALUE, divisor, event_name, unit};
pub use transport::TransportError;
