//! `wasmeter:function/secrets`: the tenant's secrets that the manifest lists.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::guest::Guest;

/// `wit/secrets.wit`.
const INTERFACE: &str = "wasmeter:function/secrets@0.1.0";

#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
enum Refused {
    #[component(name = "denied")]
    Denied,
    #[component(name = "missing")]
    Missing,
    #[component(name = "unavailable")]
    Unavailable,
}

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.instance(INTERFACE)?.func_wrap("get", |call: StoreContextMut<'_, Guest>, (name,): (String,)| {
        Ok((get(call.data(), &name),))
    })
}

fn get(guest: &Guest, name: &str) -> Result<Vec<u8>, Refused> {
    let caller = guest.caller();
    caller.beyond("wasmeter:function/secrets");
    if !caller.revision.manifest.secrets.allows(name) {
        let name: String = name.chars().take(40).collect();
        caller.remark(&format!("secret {name:?} was refused: add it to [secrets] allow"));
        return Err(Refused::Denied);
    }
    match guest.capabilities.secrets.get(&caller.tenant, name) {
        Ok(Some(value)) => Ok(value.into_bytes()),
        Ok(None) => {
            caller.remark(&format!("secret {name} is not set: `wasmeter secrets set {name}` does it"));
            Err(Refused::Missing)
        }
        Err(error) => {
            tracing::error!(%error, "a secret cannot be read");
            Err(Refused::Unavailable)
        }
    }
}
