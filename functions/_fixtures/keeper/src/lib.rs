//! Keeps pairs and asks for secrets. The query names `bucket` (`default` if absent), `key` and what else a path needs:
//! `/get` `/set?size=` or the body, `/delete` `/exists` `/keys` `/increment?by=` `/many?count=&size=` `/flood?count=&size=`
//! `/loop?count=` `/secret?name=`. An error of the platform is answered as `{"error": …}` with 200.

use serde_json::{Value, json};
use wasmeter_guest::keyvalue::{Bucket, Error};
use wasmeter_guest::{Request, Response, Result, secrets};

fn number(req: &Request, name: &str) -> usize {
    req.query_param(name).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn text(bytes: Option<Vec<u8>>) -> Value {
    bytes.map_or(Value::Null, |b| String::from_utf8_lossy(&b).into())
}

fn secret(req: &Request) -> Value {
    match secrets::get(&req.query_param("name").unwrap_or_default()) {
        Ok(value) => json!({ "secret": value }),
        Err(error) => json!({ "error": format!("{error:?}") }),
    }
}

fn keep(req: &Request) -> std::result::Result<Value, Error> {
    let bucket = Bucket::open(&req.query_param("bucket").unwrap_or_else(|| "default".into()))?;
    let key = req.query_param("key").unwrap_or_default();
    let (count, size) = (number(req, "count"), number(req, "size"));
    let named = |n: usize| format!("{key}{n}");
    Ok(match req.path() {
        "/get" => json!({ "value": text(bucket.get(&key)?) }),
        "/set" => {
            let value = if size > 0 { vec![b'x'; size] } else { req.body().unwrap_or_default().to_vec() };
            bucket.set(&key, value)?;
            json!({})
        }
        "/delete" => {
            bucket.delete(&key)?;
            json!({})
        }
        "/exists" => json!({ "exists": bucket.exists(&key)? }),
        "/keys" => {
            let mut keys = bucket.keys()?;
            keys.sort();
            json!({ "keys": keys })
        }
        "/increment" => json!({ "number": bucket.increment(&key, number(req, "by") as u64)? }),
        "/many" => {
            let pairs: Vec<_> = (0..count).map(|n| (named(n), vec![b'0' + (n % 10) as u8; size])).collect();
            bucket.set_many(&pairs)?;
            let keys: Vec<_> = (0..=count).map(named).collect();
            let seen = bucket.get_many(&keys)?.into_iter().flatten().count();
            bucket.delete_many(&keys[..count / 2])?;
            json!({ "seen": seen, "left": bucket.keys()?.len() })
        }
        // Until the platform says no.
        "/flood" => {
            let (mut kept, mut error) = (0, None);
            for n in 0..count {
                match bucket.set(&named(n), vec![b'x'; size]) {
                    Ok(()) => kept += 1,
                    Err(refused) => error = Some(refused.to_string()),
                }
            }
            json!({ "kept": kept, "error": error })
        }
        "/loop" => {
            for _ in 0..count {
                bucket.increment(&key, 1)?;
            }
            json!({ "number": bucket.increment(&key, 0)? })
        }
        other => json!({ "error": format!("no such path: {other}") }),
    })
}

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    let answer = match req.path() {
        "/secret" => secret(&req),
        _ => keep(&req).unwrap_or_else(|error| json!({ "error": error.to_string() })),
    };
    Response::json(&answer)
}
