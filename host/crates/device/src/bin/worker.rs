//! The device worker as a program of its own.

fn main() -> std::process::ExitCode {
    wasmeter_device::worker_main(std::env::args_os().skip(1))
}
