//! Whether `?n=` is prime, by a sieve that is either made in the call or was made when the function was pre-initialised.

use std::sync::OnceLock;

use serde_json::json;
use wasmeter_guest::{Error, Request, Response, Result};

const MOST: usize = 1 << 20;
static PRIME: OnceLock<Vec<bool>> = OnceLock::new();

#[wasmeter_guest::initialize]
fn make() {
    table();
}

fn table() -> &'static [bool] {
    PRIME.get_or_init(|| {
        let mut prime = vec![true; MOST];
        prime[..2].fill(false);
        for n in (2..).take_while(|n| n * n < MOST) {
            if prime[n] {
                (n * n..MOST).step_by(n).for_each(|multiple| prime[multiple] = false);
            }
        }
        prime
    })
}

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    let n: usize = req
        .query_param("n")
        .and_then(|n| n.parse().ok())
        .filter(|n| *n < MOST)
        .ok_or_else(|| Error::bad_request(format!("n is a number below {MOST}")))?;
    let ready = PRIME.get().is_some();
    Response::json(&json!({ "prime": table()[n], "ready": ready }))
}
