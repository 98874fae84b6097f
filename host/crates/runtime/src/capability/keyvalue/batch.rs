use wasmeter_catalog::Change;
use wasmtime::component::{Linker, Resource};

use super::{BATCH_BYTES, BATCH_KEYS, Bucket, Call, Error, Reach, check_key};
use crate::guest::Guest;

/// `wit/deps/keyvalue/batch.wit`. A batch is one change here: it happens wholly or not at all.
const INTERFACE: &str = "wasi:keyvalue/batch@0.2.0-draft";

type Pair = (String, Vec<u8>);
type Done<T> = wasmtime::Result<(Result<T, Error>,)>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    interface.func_wrap_async("get-many", |call, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
        Box::new(get_many(call, bucket, keys))
    })?;
    interface.func_wrap_async("set-many", |call, (bucket, pairs): (Resource<Bucket>, Vec<Pair>)| {
        Box::new(set_many(call, bucket, pairs))
    })?;
    interface.func_wrap_async("delete-many", |call, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
        Box::new(delete_many(call, bucket, keys))
    })
}

fn check<'a>(keys: impl ExactSizeIterator<Item = &'a String>) -> Result<(), Error> {
    if keys.len() > BATCH_KEYS {
        let got = keys.len();
        return Err(Error::Other(format!("the batch has {got} keys; it may have {BATCH_KEYS}")));
    }
    keys.map(String::as_str).try_for_each(check_key)
}

async fn get_many(
    mut call: Call<'_>,
    bucket: Resource<Bucket>,
    keys: Vec<String>,
) -> Done<Vec<Option<Pair>>> {
    let reach = match Reach::new(&mut call, &bucket, keys.len())? {
        Ok(reach) => reach,
        Err(error) => return Ok((Err(error),)),
    };
    if let Err(error) = check(keys.iter()) {
        return Ok((Err(error),));
    }
    let values = reach.store.get(&reach.space, keys.clone(), BATCH_BYTES as u64).await;
    let pairs = |values: Vec<Option<Vec<u8>>>| {
        keys.into_iter().zip(values).map(|(key, value)| Some((key, value?))).collect()
    };
    Ok((values.map(pairs).map_err(Error::from),))
}

async fn set_many(mut call: Call<'_>, bucket: Resource<Bucket>, pairs: Vec<Pair>) -> Done<()> {
    let reach = match Reach::new(&mut call, &bucket, pairs.len())? {
        Ok(reach) => reach,
        Err(error) => return Ok((Err(error),)),
    };
    let keys = pairs.iter().map(|(key, _)| key);
    let checked = check(keys).and_then(|()| pairs.iter().try_for_each(|(_, value)| reach.check_value(value)));
    if let Err(error) = checked {
        return Ok((Err(error),));
    }
    if pairs.iter().map(|(_, value)| value.len()).sum::<usize>() > BATCH_BYTES {
        return Ok((Err(Error::Other(format!("the values of a batch may have {BATCH_BYTES} bytes"))),));
    }
    Ok((reach.change(Change::Set(pairs)).await.map(drop),))
}

async fn delete_many(mut call: Call<'_>, bucket: Resource<Bucket>, keys: Vec<String>) -> Done<()> {
    let reach = match Reach::new(&mut call, &bucket, keys.len())? {
        Ok(reach) => reach,
        Err(error) => return Ok((Err(error),)),
    };
    if let Err(error) = check(keys.iter()) {
        return Ok((Err(error),));
    }
    Ok((reach.change(Change::Delete(keys)).await.map(drop),))
}
