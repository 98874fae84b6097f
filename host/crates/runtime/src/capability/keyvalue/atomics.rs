use wasmeter_catalog::Change;
use wasmtime::component::{Linker, Resource};

use super::{Bucket, Call, Error, Reach, check_key};
use crate::guest::Guest;

/// `wit/deps/keyvalue/atomic.wit`.
const INTERFACE: &str = "wasi:keyvalue/atomics@0.2.0-draft";

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.instance(INTERFACE)?.func_wrap_async(
        "increment",
        |call, (bucket, key, delta): (Resource<Bucket>, String, u64)| {
            Box::new(increment(call, bucket, key, delta))
        },
    )
}

async fn increment(
    mut call: Call<'_>,
    bucket: Resource<Bucket>,
    key: String,
    delta: u64,
) -> wasmtime::Result<(Result<u64, Error>,)> {
    let reach = match Reach::new(&mut call, &bucket, 1)? {
        Ok(reach) => reach,
        Err(error) => return Ok((Err(error),)),
    };
    if let Err(error) = check_key(&key) {
        return Ok((Err(error),));
    }
    let number = reach.change(Change::Increment(key, delta)).await;
    Ok((number.map(Option::unwrap_or_default),))
}
