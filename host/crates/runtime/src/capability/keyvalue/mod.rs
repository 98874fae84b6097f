//! `wasi:keyvalue`: buckets of the function that its manifest lists, shared by its revisions and by nobody else.

mod atomics;
mod batch;
mod store;
mod used;

use std::sync::Arc;

use wasmeter_catalog::{Author, Change, KeyValueError, KeyValueStore, Space};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource};

use super::Caller;
use crate::guest::Guest;

pub(crate) use used::Used;

/// Bytes of one key.
const KEY: usize = 512;
/// Keys of one batch.
const BATCH_KEYS: usize = 256;
/// Bytes of one batch, in or out.
const BATCH_BYTES: usize = 4 << 20;

/// An open bucket.
struct Bucket {
    space: Space,
}

/// `store.error`.
#[derive(Clone, Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "no-such-store")]
    #[allow(dead_code, reason = "what is not listed may be there or not: access-denied")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<KeyValueError> for Error {
    fn from(error: KeyValueError) -> Self {
        Self::Other(error.to_string())
    }
}

type Call<'a> = StoreContextMut<'a, Guest>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    store::link(linker)?;
    atomics::link(linker)?;
    batch::link(linker)
}

/// What a call works with, apart from the store, which the guest needs while it waits.
struct Reach {
    store: Arc<dyn KeyValueStore>,
    caller: Arc<Caller>,
    space: Space,
}

impl Reach {
    /// For a call that counts as so many. Traps for a bucket that is none of the guest's.
    fn new(
        call: &mut Call<'_>,
        bucket: &Resource<Bucket>,
        keys: usize,
    ) -> wasmtime::Result<Result<Self, Error>> {
        let guest = call.data_mut();
        let space = guest.table.get(bucket)?.space.clone();
        let caller = guest.caller().clone();
        caller.beyond("wasi:keyvalue");
        let limits = caller.revision.manifest.keyvalue.limits();
        if !caller.keyvalue.take(keys.max(1) as u64, limits.calls) {
            return Ok(Err(Error::Other(format!(
                "an invocation may make {} key-value calls ([keyvalue] calls)",
                limits.calls
            ))));
        }
        Ok(Ok(Self { store: guest.capabilities.keyvalue.clone(), caller, space }))
    }

    async fn change(&self, change: Change) -> Result<Option<u64>, Error> {
        let revision = &self.caller.revision;
        let author = Author { limits: revision.manifest.keyvalue.limits(), revision_ns: revision.created_ns };
        Ok(self.store.change(&self.space, author, change).await?)
    }

    fn check_value(&self, value: &[u8]) -> Result<(), Error> {
        let most = self.caller.revision.manifest.keyvalue.limits().value;
        if value.len() as u64 > most {
            let got = value.len();
            return Err(Error::Other(format!(
                "the value has {got} bytes; it may have {most} ([keyvalue] value)"
            )));
        }
        Ok(())
    }
}

fn check_key(key: &str) -> Result<(), Error> {
    if key.is_empty() || key.len() > KEY {
        let got = key.len();
        return Err(Error::Other(format!("the key has {got} bytes; it must have 1 to {KEY}")));
    }
    Ok(())
}
