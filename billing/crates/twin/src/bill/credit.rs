use serde_json::{Value, json};

use crate::context::Context;
use crate::kind::Kind;
use crate::state::State;

/// What credit grants take off an invoice's metered lines: (grant, amount), in the order in which Stripe uses them up:
/// priority, then the earliest expiry, then age (documentation, "Billing credits").
fn shares(state: &State, invoice: &Value, now: i64) -> Vec<(String, i64)> {
    let lines = invoice["lines"]["data"].as_array().into_iter().flatten();
    let metered = lines.filter(|line| line["parent"]["type"] == "subscription_item_details");
    let mut open: i64 = metered.filter_map(|line| line["amount"].as_i64()).fold(0, i64::saturating_add);
    let mut grants: Vec<&Value> = state
        .all(Kind::CreditGrant)
        .filter(|grant| {
            let begun = grant["effective_at"].as_i64().is_none_or(|at| at <= now);
            let over =
                grant["expires_at"].as_i64().is_some_and(|at| at <= now) || grant["voided_at"].is_i64();
            grant["customer"] == invoice["customer"]
                && grant["amount"]["monetary"]["currency"] == invoice["currency"]
                && begun
                && !over
        })
        .collect();
    grants.sort_by_key(|grant| {
        (grant["priority"].as_i64().unwrap_or(50), grant["expires_at"].as_i64().unwrap_or(i64::MAX))
    });
    let mut shares = Vec::new();
    for grant in grants {
        let share = grant["_left"].as_i64().unwrap_or(0).min(open).max(0);
        if share > 0 {
            open -= share;
            shares.push((grant["id"].as_str().unwrap_or_default().to_owned(), share));
        }
    }
    shares
}

fn lay(invoice: &mut Value, shares: &[(String, i64)]) {
    let amounts: Vec<Value> = shares
        .iter()
        .map(|(grant, amount)| {
            json!({ "amount": amount, "type": "credit_balance_transaction", "credit_balance_transaction": grant, "discount": null })
        })
        .collect();
    invoice["total_pretax_credit_amounts"] = Value::Array(amounts);
    super::invoice::sum(invoice);
}

/// Shows what credits would take off, and leaves them.
pub(crate) fn preview(state: &State, invoice: &mut Value, now: i64) {
    let shares = shares(state, invoice, now);
    lay(invoice, &shares);
}

/// Takes credits off, for good.
pub(crate) fn apply(cx: &mut Context<'_>, invoice: &mut Value, now: i64) {
    let shares = shares(cx.state, invoice, now);
    lay(invoice, &shares);
    for (grant, amount) in shares {
        cx.state.change(Kind::CreditGrant, &grant, |grant| {
            grant["_left"] = json!(grant["_left"].as_i64().unwrap_or(0) - amount);
        });
    }
}
