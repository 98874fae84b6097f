//! Calls that no well-meant guest makes. The answer is the number that the host gave; some end the guest instead.

use serde_json::Value;

#[cfg(target_arch = "wasm32")]
pub(crate) fn run(case: &str) -> Option<Result<Value, String>> {
    #[allow(unsafe_code, reason = "imports of the host")]
    #[link(wasm_import_module = "wasi_ephemeral_nn")]
    unsafe extern "C" {
        fn load(builder: i32, parts: i32, encoding: i32, target: i32, graph: i32) -> i32;
        fn load_by_name(name: i32, length: i32, graph: i32) -> i32;
        fn init_execution_context(graph: i32, context: i32) -> i32;
        fn set_input(context: i32, index: i32, tensor: i32) -> i32;
        fn compute(context: i32) -> i32;
        fn get_output(context: i32, index: i32, buffer: i32, size: i32, written: i32) -> i32;
    }
    let mut handle = 0i32;
    let out = (&raw mut handle) as i32;
    let name = "mlp";
    let zeros = [0f32; 784];
    let dims = [1i32, 784];
    // As the ABI lays a tensor out: where and how many dimensions, the type, where and how many bytes.
    let mut tensor = [dims.as_ptr() as i32, 2, 1, zeros.as_ptr() as i32, 784 * 4];
    #[allow(
        unsafe_code,
        reason = "every pointer is the host's to check, and those that it may write to are ours"
    )]
    // SAFETY: the host writes only through `out` and to buffers of the lengths given.
    let code = unsafe {
        let ready = || {
            let mut graph = 0i32;
            let mut context = 0i32;
            load_by_name(name.as_ptr() as i32, 3, (&raw mut graph) as i32);
            init_execution_context(graph, (&raw mut context) as i32);
            context
        };
        match case {
            "raw-handle" => init_execution_context(7, out),
            "raw-negative-handle" => init_execution_context(-1, out),
            "raw-context" => compute(7),
            "raw-encoding" => load(0, 0, 99, 0, out),
            "raw-target" => load(0, 0, 1, 99, out),
            "raw-no-parts" => load(0, 0, 1, 0, out),
            "raw-many-parts" => load(0, i32::MAX, 1, 0, out),
            "raw-parts-outside" => load(-8, 2, 1, 0, out),
            "raw-name-outside" => load_by_name(-16, 64, out),
            "raw-name-huge" => load_by_name(16, i32::MAX, out),
            "raw-name-no-text" => {
                let bytes = [0xff_u8, 0xfe];
                load_by_name(bytes.as_ptr() as i32, 2, out)
            }
            "raw-type" => {
                tensor[2] = 99;
                set_input(ready(), 0, (&raw const tensor) as i32)
            }
            "raw-dims-outside" => {
                tensor[0] = -16;
                set_input(ready(), 0, (&raw const tensor) as i32)
            }
            "raw-dims-unaligned" => {
                tensor[0] += 1;
                set_input(ready(), 0, (&raw const tensor) as i32)
            }
            "raw-dims-many" => {
                tensor[1] = i32::MAX;
                set_input(ready(), 0, (&raw const tensor) as i32)
            }
            "raw-data-outside" => {
                tensor[3] = -16;
                set_input(ready(), 0, (&raw const tensor) as i32)
            }
            "raw-data-huge" => {
                tensor[4] = -1;
                set_input(ready(), 0, (&raw const tensor) as i32)
            }
            "raw-data-short" => {
                tensor[4] = 3;
                set_input(ready(), 0, (&raw const tensor) as i32)
            }
            "raw-output-outside" => {
                let context = ready();
                set_input(context, 0, (&raw const tensor) as i32);
                compute(context);
                get_output(context, 0, -16, 4096, out)
            }
            // The next two end the guest: the host cannot write its answer, or read the record, anywhere.
            "raw-result-outside" => load_by_name(name.as_ptr() as i32, 3, -2),
            "raw-tensor-outside" => set_input(ready(), 0, -8),
            _ => return None,
        }
    };
    Some(Ok(code.into()))
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn run(_: &str) -> Option<Result<Value, String>> {
    None
}
