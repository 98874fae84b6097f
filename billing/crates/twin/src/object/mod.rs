//! One file for each kind of object: what may be asked of it, and what it becomes.

pub(crate) mod checkout;
pub(crate) mod credit_grant;
pub(crate) mod credit_note;
pub(crate) mod customer;
pub(crate) mod event;
pub(crate) mod invoice;
pub(crate) mod invoice_item;
pub(crate) mod meter;
pub(crate) mod meter_event;
pub(crate) mod payment_method;
pub(crate) mod portal;
pub(crate) mod price;
pub(crate) mod product;
pub(crate) mod subscription;
pub(crate) mod summary;
pub(crate) mod test_clock;
pub(crate) mod webhook_endpoint;

use serde_json::Value;

use crate::params::Params;

/// Lays the texts that a request names over an object; an empty one takes the value away.
fn lay_texts(params: &Params, object: &mut Value, names: &[&str]) -> crate::error::Result<()> {
    for name in names {
        if let Some(text) = params.raw(name)? {
            object[*name] = if text.is_empty() { Value::Null } else { text.into() };
        }
    }
    Ok(())
}
