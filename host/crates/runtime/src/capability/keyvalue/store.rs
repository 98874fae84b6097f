use wasmeter_catalog::{Change, Space};
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};

use super::{Bucket, Call, Error, KEY, Reach, check_key};
use crate::guest::Guest;

/// `wit/deps/keyvalue/store.wit`.
const INTERFACE: &str = "wasi:keyvalue/store@0.2.0-draft";

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct KeyResponse {
    keys: Vec<String>,
    cursor: Option<u64>,
}

type Done<T> = wasmtime::Result<(Result<T, Error>,)>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    interface.resource("bucket", ResourceType::host::<Bucket>(), |mut call, rep| {
        call.data_mut().table.delete(Resource::<Bucket>::new_own(rep)).map(drop).map_err(Into::into)
    })?;
    interface
        .func_wrap("open", |mut call: Call<'_>, (name,): (String,)| Ok((open(call.data_mut(), &name)?,)))?;
    interface.func_wrap_async("[method]bucket.get", |call, (bucket, key): (Resource<Bucket>, String)| {
        Box::new(get(call, bucket, key))
    })?;
    interface.func_wrap_async(
        "[method]bucket.set",
        |call, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            Box::new(set(call, bucket, key, value))
        },
    )?;
    interface
        .func_wrap_async("[method]bucket.delete", |call, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(delete(call, bucket, key))
        })?;
    interface
        .func_wrap_async("[method]bucket.exists", |call, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(exists(call, bucket, key))
        })?;
    interface.func_wrap_async(
        "[method]bucket.list-keys",
        |call, (bucket, cursor): (Resource<Bucket>, Option<u64>)| Box::new(list_keys(call, bucket, cursor)),
    )
}

fn open(guest: &mut Guest, name: &str) -> wasmtime::Result<Result<Resource<Bucket>, Error>> {
    let caller = guest.caller().clone();
    let manifest = &caller.revision.manifest;
    // The empty name is what some bindings open by default.
    let asked = if name.is_empty() { "default" } else { name };
    let Some(bucket) = manifest.keyvalue.bucket(asked) else {
        let asked: String = asked.chars().take(40).collect();
        caller.remark(&format!("bucket {asked:?} was refused: add it to [keyvalue] allow"));
        return Ok(Err(Error::AccessDenied));
    };
    let space = Space {
        tenant: caller.tenant.clone(),
        function: manifest.function.name.clone(),
        bucket: bucket.clone(),
    };
    Ok(Ok(guest.table.push(Bucket { space })?))
}

async fn get(mut call: Call<'_>, bucket: Resource<Bucket>, key: String) -> Done<Option<Vec<u8>>> {
    let reach = match Reach::new(&mut call, &bucket, 1)? {
        Ok(reach) => reach,
        Err(error) => return Ok((Err(error),)),
    };
    // What cannot be a key is not there; what was kept under a larger limit still is.
    if key.is_empty() || key.len() > KEY {
        return Ok((Ok(None),));
    }
    let found = reach.store.get(&reach.space, vec![key], super::BATCH_BYTES as u64).await;
    Ok((found.map(|mut values| values.pop().flatten()).map_err(Error::from),))
}

async fn set(mut call: Call<'_>, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Done<()> {
    let reach = match Reach::new(&mut call, &bucket, 1)? {
        Ok(reach) => reach,
        Err(error) => return Ok((Err(error),)),
    };
    if let Err(error) = check_key(&key).and_then(|()| reach.check_value(&value)) {
        return Ok((Err(error),));
    }
    Ok((reach.change(Change::Set(vec![(key, value)])).await.map(drop),))
}

async fn delete(mut call: Call<'_>, bucket: Resource<Bucket>, key: String) -> Done<()> {
    let reach = match Reach::new(&mut call, &bucket, 1)? {
        Ok(reach) => reach,
        Err(error) => return Ok((Err(error),)),
    };
    if let Err(error) = check_key(&key) {
        return Ok((Err(error),));
    }
    Ok((reach.change(Change::Delete(vec![key])).await.map(drop),))
}

async fn exists(mut call: Call<'_>, bucket: Resource<Bucket>, key: String) -> Done<bool> {
    let reach = match Reach::new(&mut call, &bucket, 1)? {
        Ok(reach) => reach,
        Err(error) => return Ok((Err(error),)),
    };
    if key.is_empty() || key.len() > KEY {
        return Ok((Ok(false),));
    }
    Ok((reach.store.exists(&reach.space, key).await.map_err(Error::from),))
}

async fn list_keys(mut call: Call<'_>, bucket: Resource<Bucket>, cursor: Option<u64>) -> Done<KeyResponse> {
    let reach = match Reach::new(&mut call, &bucket, 1)? {
        Ok(reach) => reach,
        Err(error) => return Ok((Err(error),)),
    };
    let page = reach.store.keys(&reach.space, cursor.unwrap_or(0)).await;
    Ok((page.map(|page| KeyResponse { keys: page.keys, cursor: page.next }).map_err(Error::from),))
}
