//! `wasi:config/store`: the manifest's `[config]`.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::guest::Guest;

/// `wit/deps/config`.
const INTERFACE: &str = "wasi:config/store@0.2.0-rc.1";

/// The manifest is in memory: neither happens.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
#[allow(dead_code, reason = "the interface has these cases")]
enum Error {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

type Pairs = Vec<(String, String)>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    interface.func_wrap("get", |call: StoreContextMut<'_, Guest>, (key,): (String,)| {
        let value = call.data().caller().revision.manifest.config.get(&key).cloned();
        Ok((Ok::<Option<String>, Error>(value),))
    })?;
    interface.func_wrap("get-all", |call: StoreContextMut<'_, Guest>, (): ()| {
        let config = &call.data().caller().revision.manifest.config;
        let pairs: Pairs = config.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok((Ok::<Pairs, Error>(pairs),))
    })
}
