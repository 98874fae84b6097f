//! `wasmeter:function/invocation`: what a guest can know of its own invocation.

use tokio::time::Instant;
use wasmeter_usage::{DeviceClass, Quantities};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::guest::Guest;

/// `wit/invocation.wit`.
const INTERFACE: &str = "wasmeter:function/invocation@0.1.0";

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Spent {
    fuel: u64,
    #[component(name = "device-ns")]
    device_ns: u64,
    #[component(name = "sent-bytes")]
    sent_bytes: u64,
    cost: Option<Price>,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Price {
    pico: u64,
    currency: String,
}

type Call<'a> = StoreContextMut<'a, Guest>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    interface.func_wrap("id", |call: Call<'_>, (): ()| Ok((call.data().caller().id.to_string(),)))?;
    interface.func_wrap("time-left", |call: Call<'_>, (): ()| {
        let caller = call.data().caller();
        let left = caller.deadline.saturating_duration_since(Instant::now());
        let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        Ok((caller.tape.as_ref().map_or(left, |tape| tape.time_left(left)),))
    })?;
    interface.func_wrap("fuel-left", |call: Call<'_>, (): ()| {
        call.data().caller();
        Ok((fuel_left(&call)?,))
    })?;
    interface.func_wrap("spent", |call: Call<'_>, (): ()| Ok((spent(&call)?,)))
}

fn fuel_left(call: &Call<'_>) -> wasmtime::Result<u64> {
    Ok(call.get_fuel()?.saturating_sub(call.data().owed()))
}

fn spent(call: &Call<'_>) -> wasmtime::Result<Spent> {
    let guest = call.data();
    let caller = guest.caller();
    let fuel = caller.fuel.saturating_sub(fuel_left(call)?);
    let sent_bytes = caller.outbound.sent();
    let mut so_far = Quantities { fuel, requests: 1, egress_bytes: sent_bytes, ..Quantities::default() };
    for model in guest.nn.uses() {
        let time = match model.class {
            DeviceClass::Gpu => &mut so_far.gpu_ns,
            DeviceClass::Cpu => &mut so_far.cpu_ns,
        };
        *time = time.saturating_add(model.device_ns);
    }
    let cost = caller.prices.as_ref().and_then(|sheet| {
        let pico = u64::try_from(sheet.rates.cost(&so_far)?.0).ok()?;
        Some(Price { pico, currency: sheet.currency.clone() })
    });
    Ok(Spent { fuel, device_ns: so_far.cpu_ns.saturating_add(so_far.gpu_ns), sent_bytes, cost })
}
