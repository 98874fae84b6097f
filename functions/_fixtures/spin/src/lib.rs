//! Never ends: a loop without a host call, which only fuel or a deadline stops.

use wasmeter_guest::{Request, Response};

#[wasmeter_guest::handler]
fn handle(_: Request) -> Response {
    loop {
        std::hint::spin_loop();
    }
}
