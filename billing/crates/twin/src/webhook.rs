use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::clock::{wall, wall_ms};
use crate::kind::Kind;
use crate::state::shown;
use crate::twin::Twin;

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Deliveries under way.
const AT_ONCE: usize = 4;
/// Waits double from the first to the last, by the machine's clock; they go on for as long as the event is kept.
const FIRST_WAIT_MS: i64 = 500;
const LAST_WAIT_MS: i64 = 3_600_000;
/// How long a webhook waits that is to be overtaken.
const OVERTAKEN_MS: i64 = 700;

/// `t=…,v1=…` for a body (Stripe documentation, "Verify webhook signatures manually").
pub(crate) fn signature(secret: &str, time: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let message = [format!("{time}.").as_bytes(), body].concat();
    format!("t={time},v1={}", hex::encode(hmac::sign(&key, &message)))
}

/// One webhook on its way.
struct Sending {
    delivery: String,
    url: String,
    secret: String,
    body: Vec<u8>,
    skew: i64,
    twice: bool,
    lost: bool,
}

/// Sends what is to be sent, for ever.
pub(crate) async fn deliver(twin: Arc<Twin>) {
    let mut under_way: tokio::task::JoinSet<(String, bool)> = tokio::task::JoinSet::new();
    let mut busy: HashSet<String> = HashSet::new();
    loop {
        while under_way.len() < AT_ONCE {
            let Some(sending) = next(&twin, &busy) else { break };
            busy.insert(sending.delivery.clone());
            under_way.spawn(async move {
                let mut taken = send(&sending).await;
                if sending.twice {
                    taken &= send(&sending).await;
                }
                (sending.delivery, taken && !sending.lost)
            });
        }
        tokio::select! {
            Some(ended) = under_way.join_next() => {
                if let Ok((delivery, taken)) = ended {
                    busy.remove(&delivery);
                    settle(&twin, &delivery, taken);
                }
            }
            () = twin.news.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

/// The next webhook whose time has come; chance may put it off or send it twice.
fn next(twin: &Twin, busy: &HashSet<String>) -> Option<Sending> {
    let mut inner = twin.inner.lock();
    let now = wall_ms();
    loop {
        let waiting = |d: &&Value| {
            d["next_ms"].as_i64().is_none_or(|at| at <= now)
                && d["id"].as_str().is_some_and(|id| !busy.contains(id))
        };
        let delivery = inner.state.all(Kind::Delivery).find(waiting)?.clone();
        let id = delivery["id"].as_str()?.to_owned();
        let endpoint =
            delivery["endpoint"].as_str().and_then(|id| inner.state.get(Kind::WebhookEndpoint, id));
        let event = delivery["event"]
            .as_str()
            .and_then(|id| inner.state.get(Kind::Event, id).or_else(|| inner.state.get(Kind::ThinEvent, id)));
        let (Some(endpoint), Some(event)) = (endpoint, event) else {
            // Its endpoint or its event is gone.
            inner.state.remove(Kind::Delivery, &id);
            inner.state.commit().ok()?;
            continue;
        };
        let mut event = shown(event);
        if event["object"] == "v2.core.event"
            && let Some(fields) = event.as_object_mut()
        {
            fields.remove("data");
        }
        let url = endpoint["url"].as_str()?.to_owned();
        let secret = endpoint["_secret"].as_str()?.to_owned();
        let share = |name: &str| inner.faults.share(name);
        let (reorder, twice, lost) =
            (share("webhook_reorder"), share("webhook_duplicate"), share("webhook_lost"));
        if delivery["put_off"] != true && inner.dice.hits(reorder) {
            inner.count("webhook_put_off");
            inner.state.change(Kind::Delivery, &id, |d| {
                d["put_off"] = json!(true);
                d["next_ms"] = json!(now + OVERTAKEN_MS);
            });
            inner.state.commit().ok()?;
            continue;
        }
        let (twice, lost) = (inner.dice.hits(twice), inner.dice.hits(lost));
        let skew = inner.faults.number("signature_skew_s");
        let body = serde_json::to_vec_pretty(&event).ok()?;
        return Some(Sending { delivery: id, url, secret, body, skew, twice, lost });
    }
}

/// Sends once; whether it was taken.
async fn send(sending: &Sending) -> bool {
    tokio::time::timeout(TIMEOUT, post(sending)).await.ok().flatten().is_some()
}

async fn post(sending: &Sending) -> Option<()> {
    let uri: Uri = sending.url.parse().ok()?;
    let authority = uri.authority()?.as_str();
    let stream = TcpStream::connect(authority).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = hyper::Request::post(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json; charset=utf-8")
        .header(USER_AGENT, "Stripe/1.0 (wasmeter twin)")
        .header("stripe-signature", signature(&sending.secret, wall() + sending.skew, &sending.body))
        .body(Full::new(Bytes::from(sending.body.clone())))
        .ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let taken = answer.status().is_success();
    // Read to its end, so that the receiver is not cut off; it is of no interest.
    let _ = Limited::new(answer.into_body(), 64 << 10).collect().await;
    taken.then_some(())
}

fn settle(twin: &Twin, delivery: &str, taken: bool) {
    let mut inner = twin.inner.lock();
    inner.count(if taken { "webhooks_taken" } else { "webhooks_refused" });
    let Some(waiting) = inner.state.get(Kind::Delivery, delivery).cloned() else { return };
    if taken {
        inner.state.remove(Kind::Delivery, delivery);
        let event = waiting["event"].as_str().unwrap_or_default();
        inner.state.change(Kind::Event, event, |event| {
            event["pending_webhooks"] = json!(event["pending_webhooks"].as_i64().unwrap_or(1) - 1);
        });
    } else {
        let attempts = waiting["attempts"].as_i64().unwrap_or(0);
        let wait = FIRST_WAIT_MS.saturating_mul(1 << attempts.clamp(0, 20)).min(LAST_WAIT_MS);
        inner.state.change(Kind::Delivery, delivery, |d| {
            d["attempts"] = json!(attempts + 1);
            d["next_ms"] = json!(wall_ms() + wait);
        });
    }
    if let Err(error) = inner.state.commit() {
        tracing::error!(%error, "the journal cannot be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_an_hmac_over_time_and_body() {
        // Computed with Python's hmac.
        assert_eq!(
            signature("whsec_test", 1_700_000_000, b"{\"id\":\"evt_1\"}"),
            "t=1700000000,v1=c89214b5b5da833daed6f0b8c5bb6bd58cea9022bd80ccc78230f3942d632925"
        );
    }
}
