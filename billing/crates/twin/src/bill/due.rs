use serde_json::{Value, json};

use super::{invoice, pay};
use crate::context::Context;
use crate::error::ApiError;
use crate::kind::Kind;
use crate::object::{meter_event, subscription};
use crate::params::Params;
use crate::state::State;

/// How long an invoice stays a draft because nobody has taken its webhook (Stripe documentation, "Invoice
/// finalization").
const HELD: i64 = 72 * 3600;
/// How often a draft that waits for its webhook is looked at.
const LOOK: i64 = 600;

/// Does what time has brought, in its order, each step in the journal before the next; how many there were.
pub(crate) fn run(state: &mut State, base: &str, most: usize) -> std::io::Result<usize> {
    let mut done = 0;
    while done < most {
        let Some((at, kind, id)) = state.next_due() else { break };
        state.pretend(Some(at));
        let stepped = step(state, base, at, kind, &id);
        if let Err(error) = stepped {
            // Nothing that time does can be refused; if it is, it must not come up again and again.
            tracing::error!(?kind, id, message = error.message, "a step of time failed");
            state.undo();
            state.change(kind, &id, |object| object["_due"] = Value::Null);
        }
        state.pretend(None);
        state.commit()?;
        done += 1;
    }
    Ok(done)
}

fn step(state: &mut State, base: &str, at: i64, kind: Kind, id: &str) -> Result<(), ApiError> {
    let params = Params::default();
    let mut cx = Context { state, now: at, params: &params, path: &[id], base, request: ("", None) };
    match kind {
        Kind::Subscription => subscription::roll(&mut cx, id)?,
        Kind::Invoice => on_invoice(&mut cx, id)?,
        Kind::MeterError => meter_event::report(cx.state),
        Kind::Checkout => {
            cx.state.change(Kind::Checkout, id, |session| {
                session["_due"] = Value::Null;
                session["status"] = json!("expired");
                session["url"] = Value::Null;
            });
            if let Some(session) = cx.state.get(Kind::Checkout, id).cloned() {
                cx.emit("checkout.session.expired", &session);
            }
        }
        // Kept answers, events and what is left of deliveries have had their time.
        other => cx.state.remove(other, id),
    }
    Ok(())
}

fn on_invoice(cx: &mut Context<'_>, id: &str) -> Result<(), ApiError> {
    let bill = cx.state.find(Kind::Invoice, id)?.clone();
    match bill["status"].as_str() {
        Some("draft") => {
            let held_until = bill["created"].as_i64().unwrap_or(cx.now).saturating_add(HELD);
            if cx.now < held_until && is_untold(cx.state, id) {
                let again = (cx.now + LOOK).min(held_until);
                cx.state.change(Kind::Invoice, id, |bill| bill["_due"] = json!(again));
                return Ok(());
            }
            let mut bill = bill;
            invoice::refresh(cx.state, &mut bill, cx.now);
            pay::finalise(cx, &bill, true)?;
        }
        Some("open") if bill["collection_method"] == "send_invoice" => {
            cx.state.change(Kind::Invoice, id, |bill| bill["_due"] = Value::Null);
            cx.emit("invoice.overdue", &bill);
            if let Some(subscription) = pay::subscription_of(&bill) {
                subscription::set_status(cx, &subscription, "past_due");
            }
        }
        Some("open") => {
            pay::attempt(cx, id);
        }
        _ => cx.state.change(Kind::Invoice, id, |bill| bill["_due"] = Value::Null),
    }
    Ok(())
}

/// Whether a receiver has yet to take `invoice.created` of this invoice.
fn is_untold(state: &State, invoice: &str) -> bool {
    state.all(Kind::Delivery).filter(|delivery| delivery["type"] == "invoice.created").any(|delivery| {
        let event = delivery["event"].as_str().and_then(|id| state.get(Kind::Event, id));
        event.is_some_and(|event| event["data"]["object"]["id"] == invoice)
    })
}
