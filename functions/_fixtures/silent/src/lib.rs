//! Returns without an answer. On `/leak` it keeps the answer's handle instead of dropping it.

use wasmeter_guest::raw;
use wasmeter_guest::raw::exports::wasi::http::incoming_handler::{Guest, IncomingRequest, ResponseOutparam};

struct Silent;

impl Guest for Silent {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        if request.path_with_query().is_some_and(|path| path.starts_with("/leak")) {
            std::mem::forget(out);
        }
    }
}

raw::export!(Silent with_types_in raw);
