//! What a guest can do to a host that it means ill: a path a case, a theme a file. `../README.md` says what the caller
//! sees of each and what is billed.

mod answers;
mod calls;
mod case;
mod handles;
mod memory;
mod models;
mod network;
mod time;

use wasmeter_guest::raw;
use wasmeter_guest::raw::exports::wasi::http::incoming_handler::{Guest, IncomingRequest, ResponseOutparam};

use case::Case;

struct Hostile;

impl Guest for Hostile {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let case = Case::new(request, out);
        match case.path() {
            "/loop" => time::spin(),
            "/loop-in-host" => time::call_for_ever(),
            "/loop-in-poll" => time::poll_for_ever(),
            "/sleep" => time::sleep(),
            "/sleep-many" => time::sleep_on_many(),
            "/wait-for-body" => time::wait_for_body(case),

            "/grow" => memory::grow(case),
            "/grow-and-touch" => memory::grow_and_touch(case),
            "/allocate" => memory::allocate(case),
            "/leak" => memory::leak(),
            "/fill" => memory::fill_for_ever(),
            "/stack" => memory::stack(case),

            "/silent" => drop(case),
            "/silent-leak" => answers::keep_outparam(case),
            "/twice" => answers::twice(case),
            "/error" => answers::error(case),
            "/status" => answers::status(case),
            "/headers" => answers::many_headers(case),
            "/header" => answers::big_header(case),
            "/header-split" => answers::split_header(case),
            "/header-ours" => answers::our_headers(case),
            "/trailers" => answers::big_trailers(case),
            "/length" => answers::wrong_length(case),
            "/body" => answers::body(case),
            "/body-trickle" => answers::trickle(case),
            "/body-unfinished" => answers::unfinished(case),
            "/body-trap" => answers::trap_in_body(case),
            "/body-kept" => answers::keep_body(case),
            "/panic" => answers::panics(),
            "/unreachable" => answers::unreachable(),
            "/exit" => answers::exit(),

            "/calls" => calls::cheap(case),
            "/random" => calls::random_for_ever(),
            "/random-at-once" => calls::random_at_once(case),
            "/environment" => calls::environment_for_ever(),
            "/big-argument" => calls::big_argument(case),
            "/stdout" => calls::print_for_ever(),
            "/stdout-line" => calls::print_one_line(case),

            "/leak-fields" => handles::leak_fields(),
            "/leak-pollables" => handles::leak_pollables(),
            "/leak-errors" => handles::leak_errors(),
            "/forged" => handles::forged(),
            "/dropped-twice" => handles::dropped_twice(),
            "/parent-first" => handles::parent_first(case),
            "/body-twice" => handles::body_twice(case),

            "/graphs" => models::graphs(case),
            "/contexts" => models::contexts(case),
            "/tensors" => models::tensors(),
            "/tensor-lies" => models::tensor_lies(case),
            "/computes" => models::compute_for_ever(),
            "/in-flight" => models::in_flight(case),

            "/self" => network::call_self(case),
            "/scan" => network::scan(case),
            _ => case.say("no such case\n"),
        }
    }
}

raw::export!(Hostile with_types_in raw);
