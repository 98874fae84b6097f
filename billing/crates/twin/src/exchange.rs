use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::ApiError;
use crate::faults::Fate;
use crate::kind::Kind;
use crate::params::Params;
use crate::state::shown;
use crate::twin::{Inner, Twin};
use crate::{expand, form, router};

/// How long an answer is kept by its key (Stripe documentation, "Idempotent requests").
const KEPT: i64 = 24 * 3600;
/// Steps of time that one request does on its way.
const STEPS: usize = 1000;

/// A request of the interface, read in full.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What goes back; nothing where the connection is to end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    pub(crate) request_id: String,
    pub(crate) key: Option<String>,
    pub(crate) replayed: bool,
}

/// What a request holds while it is worked on.
struct Held {
    twin: Arc<Twin>,
    lanes: Vec<String>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.twin.inner.lock();
        for lane in &self.lanes {
            inner.lanes.leave(lane);
        }
    }
}

/// Answers one request, with all that goes wrong on purpose; `None` cuts the connection.
pub(crate) async fn answer(twin: &Arc<Twin>, request: Request) -> Option<Answer> {
    let mut held = Held { twin: Arc::clone(twin), lanes: Vec::new() };
    let (fate, delay, request_id, key);
    let read = {
        let mut inner = twin.inner.lock();
        if inner.state.now("") < inner.faults.number("down_until") {
            inner.count("down");
            return None;
        }
        request_id = format!("req_{}", inner.state.token(14));
        key = header(&request.headers, "idempotency-key").filter(|_| request.method == Method::POST);
        let read = read(&inner, &request).and_then(|params| {
            admit(&mut inner, &mut held.lanes, &request, &params, key.as_deref())?;
            Ok(params)
        });
        (fate, delay) = if read.is_ok() { draw(&mut inner, &request.path) } else { (Fate::None, 0) };
        read
    };
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let made = {
        let mut inner = twin.inner.lock();
        if fate == Fate::DropBefore {
            return None;
        }
        let (params, made) = match read {
            Ok(params) => {
                let made = work(&mut inner, &request, &params, key.as_deref(), &request_id, fate);
                (Value::Object(params.0), made)
            }
            Err(error) => (Value::Null, Err(error)),
        };
        let (status, body, replayed) = match made {
            Ok(made) => made,
            Err(error) => (error.status, error.body(), false),
        };
        inner.log(json!({
            "method": request.method.as_str(), "path": request.path, "params": params, "idempotency_key": key,
            "status": status, "fate": fate.as_str(), "replayed": replayed, "id": request_id,
            "version": header(&request.headers, "stripe-version"),
        }));
        inner.count(&format!("answered_{status}"));
        Answer {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body,
            request_id,
            key,
            replayed,
        }
    };
    twin.news.notify_one();
    drop(held);
    (fate != Fate::DropAfter).then_some(made)
}

fn draw(inner: &mut Inner, path: &str) -> (Fate, u64) {
    let before = inner.faults.to_json();
    let Inner { faults, dice, .. } = inner;
    let (fate, delay) = faults.draw(path, dice);
    if inner.faults.to_json() != before {
        keep_faults(inner);
    }
    if fate != Fate::None {
        inner.count(fate.as_str());
    }
    (fate, delay)
}

/// Stores the faults as they are now.
pub(crate) fn keep_faults(inner: &mut Inner) {
    let mut value = inner.faults.to_json();
    value["id"] = json!("faults");
    inner.state.put(Kind::Setting, value);
    if let Err(error) = inner.state.commit() {
        tracing::error!(%error, "the journal cannot be written");
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Who asks, and with which parameters.
fn read(inner: &Inner, request: &Request) -> Result<Params, ApiError> {
    authorized(&request.headers, &inner.key)?;
    if header(&request.headers, "stripe-version").is_some_and(|version| !is_version(&version)) {
        return Err(ApiError::invalid("Invalid Stripe API version."));
    }
    let unknown = || {
        ApiError::new(
            404,
            "invalid_request_error",
            format!("Unrecognized request URL ({}: {}).", request.method, form::clip(&request.path)),
        )
    };
    let (route, _) = router::find(&request.method, &request.path).ok_or_else(unknown)?;
    let kind = header(&request.headers, "content-type").unwrap_or_default();
    if !request.body.is_empty() && !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(ApiError::invalid(format!(
            "Invalid request content type: {}; it must be application/x-www-form-urlencoded.",
            form::clip(&kind)
        )));
    }
    let body = std::str::from_utf8(&request.body)
        .map_err(|_| ApiError::invalid("The request's parameters are not valid form encoding."))?;
    let joined = [request.query.as_str(), body].join("&");
    let params = Params(form::parse(&joined)?);
    params.check(route.known)?;
    Ok(params)
}

/// Bearer or basic with the key as user, and this key only.
fn authorized(headers: &HeaderMap, key: &str) -> Result<(), ApiError> {
    let refused = |message: String| ApiError::new(401, "invalid_request_error", message);
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(|| {
        refused("You did not provide an API key: use the Authorization header with the key as bearer or basic user.".to_owned())
    })?;
    let given = if let Some(bearer) = given.strip_prefix("Bearer ") {
        bearer.trim().to_owned()
    } else {
        let basic = given.strip_prefix("Basic ").and_then(|text| STANDARD.decode(text.trim()).ok());
        let text = basic.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        text.split(':').next().unwrap_or_default().to_owned()
    };
    let sum = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    if sum(&given).as_ref() == sum(key).as_ref() {
        return Ok(());
    }
    let end: String = given.chars().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect();
    Err(refused(format!("Invalid API Key provided: ****{end}")))
}

/// A date, and since 2024 a name.
fn is_version(text: &str) -> bool {
    let (date, name) = text.split_once('.').unwrap_or((text, ""));
    let shape = date.len() == 10
        && date
            .bytes()
            .enumerate()
            .all(|(at, b)| if at == 4 || at == 7 { b == b'-' } else { b.is_ascii_digit() });
    shape && name.bytes().all(|b| b.is_ascii_lowercase())
}

/// Limits of rate, one request for each key, one meter event for each customer and meter.
fn admit(
    inner: &mut Inner,
    held: &mut Vec<String>,
    request: &Request,
    params: &Params,
    key: Option<&str>,
) -> Result<(), ApiError> {
    let is_event = request.path == "/v1/billing/meter_events" && request.method == Method::POST;
    let now = Instant::now();
    let let_through = if is_event {
        let most = inner.faults.number("meter_rate_per_second");
        inner.meter_rate.take(most, now)
    } else {
        let most = inner.faults.number("rate_per_second");
        inner.rate.take(most, now)
    };
    if !let_through {
        inner.count("rate_limited");
        return Err(
            ApiError::new(429, "invalid_request_error", "Request rate limit exceeded.").code("rate_limit")
        );
    }
    let mut enter = |lane: String, busy: ApiError| {
        if !inner.lanes.enter(&lane) {
            inner.count("lane_busy");
            return Err(busy);
        }
        held.push(lane);
        Ok(())
    };
    if let Some(key) = key {
        if key.is_empty() || key.len() > 255 {
            return Err(ApiError::invalid("Idempotency keys have at most 255 characters."));
        }
        let busy = ApiError::new(409, "idempotency_error", format!(
            "There is currently another in-progress request using this Idempotent Key: {}. Please try again later.", form::clip(key)
        ))
        .code("idempotency_key_in_use");
        enter(format!("key {key}"), busy)?;
    }
    if is_event {
        let payload = params.map("payload").unwrap_or_default();
        let customer = payload.get("stripe_customer_id").and_then(Value::as_str).unwrap_or_default();
        let name = params.text("event_name").ok().flatten().unwrap_or_default();
        let busy = ApiError::new(429, "invalid_request_error",
            "This object cannot be accessed right now because another API request or Stripe process is currently accessing it.")
        .code("lock_timeout");
        enter(format!("meter {customer} {name}"), busy)?;
    }
    Ok(())
}

type Made = (u16, Value, bool);

/// The work itself: a kept answer, or the handler, its changes in the journal before anything is said.
fn work(
    inner: &mut Inner,
    request: &Request,
    params: &Params,
    key: Option<&str>,
    request_id: &str,
    fate: Fate,
) -> Result<Made, ApiError> {
    let lost = |error: std::io::Error| {
        tracing::error!(%error, "the journal cannot be written");
        ApiError::fault("The twin cannot write its journal.")
    };
    inner.catch_up(STEPS).map_err(lost)?;
    let now = inner.state.now("");
    let text = format!("{} {} {}", request.method, request.path, Value::Object(params.0.clone()));
    let sum = hex::encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    if let Some(kept) = key.and_then(|key| inner.state.get(Kind::Answer, key)) {
        if kept["sum"] != sum {
            return Err(ApiError::new(
                400,
                "idempotency_error",
                "Keys for idempotent requests can only be used with the same parameters they were first used with.",
            ));
        }
        let status = kept["status"].as_u64().and_then(|s| u16::try_from(s).ok()).unwrap_or(500);
        return Ok((status, kept["body"].clone(), true));
    }
    if fate == Fate::Error429 {
        return Err(
            ApiError::new(429, "invalid_request_error", "Request rate limit exceeded.").code("rate_limit")
        );
    }
    let fault = || ApiError::fault("An unknown error occurred.").executed();
    let done = if fate == Fate::Error500 {
        Err(fault())
    } else {
        handle(inner, request, params, key, request_id, now)
    };
    // What was refused changed nothing, but for a payment that was tried.
    if done.as_ref().is_err_and(|error| error.kind != "card_error") {
        inner.state.undo();
    }
    let done = if fate == Fate::Error500After { Err(fault()) } else { done };
    let keep = match &done {
        Ok(_) => true,
        Err(error) => error.executed,
    };
    let (status, body) = match &done {
        Ok(body) => (200, body.clone()),
        Err(error) => (error.status, error.body()),
    };
    if let Some(key) = key.filter(|_| keep) {
        let kept = json!({ "id": key, "sum": sum, "status": status, "body": body, "_due": now + KEPT });
        if inner.state.room(Kind::Answer).is_err() {
            let oldest =
                inner.state.all(Kind::Answer).next().and_then(|kept| kept["id"].as_str()).map(str::to_owned);
            inner.state.remove(Kind::Answer, &oldest.unwrap_or_default());
        }
        inner.state.put(Kind::Answer, kept);
    }
    inner.state.commit().map_err(lost)?;
    // A test clock may have moved.
    inner.catch_up(STEPS).map_err(lost)?;
    Ok((status, body, false))
}

fn handle(
    inner: &mut Inner,
    request: &Request,
    params: &Params,
    key: Option<&str>,
    request_id: &str,
    now: i64,
) -> Result<Value, ApiError> {
    let Some((route, path)) = router::find(&request.method, &request.path) else {
        return Err(ApiError::missing("URL", &request.path));
    };
    let base = inner.base.clone();
    let mut cx = Context {
        state: &mut inner.state,
        now,
        params,
        path: &path,
        base: &base,
        request: (request_id, key),
    };
    let mut answer = shown(&(route.handler)(&mut cx)?);
    expand::expand(cx.state, &mut answer, &params.texts("expand"))?;
    Ok(answer)
}
