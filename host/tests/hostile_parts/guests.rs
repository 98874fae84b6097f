//! Guests that no compiler would make, in the text of WebAssembly.

/// A component that handles HTTP with this core module: `fields`, then the body of its handler.
fn component(fields: &str, handler: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $out))
  (core module $m
    {fields}
    (func (export "handle") (param i32 i32) {handler}))
  (core instance $i (instantiate $m))
  (func $handle (param "request" (own $request)) (param "response-out" (own $out))
    (canon lift (core func $i "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    );
    wasm(&text)
}

/// A command: its standard output is the answer.
fn command(fields: &str, start: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "enough")
  {fields}
  (func (export "_start") {start}))"#
    );
    wasm(&text)
}

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Writes the six letters above.
const ENOUGH: &str = "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))";
/// Grows a table until it is refused.
const GROW: &str =
    "(loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))";

/// The guest of this name.
pub fn guest(name: &str) -> Vec<u8> {
    match name {
        "start-trap" => component("(func $f unreachable) (start $f)", ""),
        "start-loop" => component("(func $f (loop (br 0))) (start $f)", ""),
        "start-memory" => component("(memory 1024)", ""),
        "table-grow" => component("(table $t 1 funcref)", GROW),
        "table-grow-command" => command("(table $t 1 funcref)", &format!("{GROW} {ENOUGH}")),
        "loop-command" => command("", "(loop (br 0))"),
        "flood-command" => command("", &format!("(loop {ENOUGH} (br 0))")),
        "pointer-command" => {
            let far = "(call $write (i32.const 1) (i32.const -16) (i32.const 100) (i32.const 8))";
            command("", &format!("(if {far} (then {ENOUGH}))"))
        }
        "recursion-command" => command("(func $down (call $down) (call $down))", "(call $down)"),
        _ => panic!("no guest {name}"),
    }
}
