use std::collections::HashMap;
use std::time::Duration;

use hyper::StatusCode;
use stripe_billing::billing_meter_event::CreateBillingMeterEvent;
use stripe_client_core::StripeRequest;
use wasmeter_usage::Meter;

use crate::setup::{CUSTOMER_KEY, VALUE_KEY};
use crate::sku::event_name;
use crate::transport::{Answer, TransportError};
use crate::{Client, StripeError};

/// One bucket of usage, fixed for ever: sent again it is the same to the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterEvent {
    /// What it counts.
    pub meter: Meter,
    /// Stripe's customer.
    pub customer: String,
    /// In Stripe's unit of the meter.
    pub value: u64,
    /// Unique for as long as Stripe remembers identifiers, which is at least 24 hours.
    pub identifier: String,
    /// Seconds since the Unix epoch.
    pub timestamp: i64,
}

/// What became of one attempt.
#[derive(Debug)]
pub enum Delivery {
    /// Stripe has it, from this attempt or an earlier one.
    Delivered,
    /// Stripe does not have it from this attempt and may take it later.
    Later {
        /// How long Stripe asks to wait.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// Stripe may have it or not.
    Unknown(String),
    /// Stripe does not want it: a person must look.
    Refused(String),
}

impl Client {
    /// Sends a bucket once.
    pub async fn send_event(&self, event: &MeterEvent) -> Delivery {
        let payload = HashMap::from([
            (CUSTOMER_KEY.to_owned(), event.customer.clone()),
            (VALUE_KEY.to_owned(), event.value.to_string()),
        ]);
        let request = CreateBillingMeterEvent::new(event_name(event.meter), payload)
            .identifier(event.identifier.clone())
            .timestamp(event.timestamp)
            .build();
        // A key of HTTP of its own for each attempt, since a kept 500 would be repeated for a day; what is sent twice
        // is recognised by the identifier in the body.
        judge(self.once(&request).await)
    }
}

fn judge(outcome: Result<Answer, TransportError>) -> Delivery {
    let Answer { status, body, retry_after } = match outcome {
        Ok(answer) => answer,
        Err(error @ TransportError::NotSent { .. }) => {
            return Delivery::Later { after: None, reason: error.to_string() };
        }
        Err(error @ TransportError::Unknown { .. }) => return Delivery::Unknown(error.to_string()),
    };
    if status.is_success() {
        return Delivery::Delivered;
    }
    let error = StripeError::refused(status, "meter event", &body);
    match (&error, status) {
        // "An event already exists with identifier …": an earlier attempt arrived.
        (StripeError::Refused { message, .. }, StatusCode::BAD_REQUEST)
            if message.contains("already exists with identifier") =>
        {
            Delivery::Delivered
        }
        (_, StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT | StatusCode::UNAUTHORIZED) => {
            Delivery::Later { after: retry_after, reason: error.to_string() }
        }
        _ if status.is_server_error() => Delivery::Unknown(error.to_string()),
        _ => Delivery::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;

    use super::*;

    fn answer(status: u16, body: &str) -> Delivery {
        judge(Ok(Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            retry_after: None,
        }))
    }

    #[test]
    fn a_duplicate_is_delivered_and_silence_is_unknown() {
        let duplicate = r#"{"error":{"type":"invalid_request_error","message":"An event already exists with identifier wm-1."}}"#;
        assert!(matches!(answer(200, "{}"), Delivery::Delivered));
        assert!(matches!(answer(400, duplicate), Delivery::Delivered));
        assert!(matches!(answer(400, r#"{"error":{"message":"no such meter"}}"#), Delivery::Refused(_)));
        assert!(matches!(answer(429, ""), Delivery::Later { .. }));
        assert!(matches!(answer(500, "<html>"), Delivery::Unknown(_)));
        assert!(matches!(answer(503, ""), Delivery::Unknown(_)));
        let lost = TransportError::Unknown { address: "a".into(), reason: "r".into() };
        assert!(matches!(judge(Err(lost)), Delivery::Unknown(_)));
        let never = TransportError::NotSent { address: "a".into(), reason: "r".into() };
        assert!(matches!(judge(Err(never)), Delivery::Later { .. }));
    }
}
