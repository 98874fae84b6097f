//! What the crash and isolation tests share: a load that knows which answers it got to the last byte, the books that
//! must agree with it, and a view of processes through /proc.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "helpers of tests; each program uses a part"
)]

pub mod books;
pub mod load;
pub mod proc;

use wasmeter_testkit::{Builder, Host, manifest};

pub use proc::Process;

/// A host that is about to be treated badly.
pub fn builder() -> Builder {
    Host::builder(env!("CARGO_BIN_EXE_wasmeter"))
}

/// A host with everything that the mix of calls needs.
pub async fn loaded(builder: Builder) -> Host {
    let host = builder.start().await;
    for model in ["mlp", "slow"] {
        host.push_tiny(model).await;
    }
    for (function, models) in load::FUNCTIONS {
        host.deploy(function, &manifest(function).models(models)).await;
    }
    host
}

/// The process of a running host.
pub fn process(host: &Host) -> Process {
    Process::of(host.pid()).expect("the host runs")
}

/// A component with other bytes and the same meaning: one more custom section, which carries the number.
pub fn altered(mut component: Vec<u8>, number: u64) -> Vec<u8> {
    // Section id 0, its size, the length of its name, the name, the content (WebAssembly core, "Custom section").
    component.extend_from_slice(&[0, 13, 4]);
    component.extend_from_slice(b"test");
    component.extend_from_slice(&number.to_le_bytes());
    component
}
