use wasmeter_types::Bounds;
use wasmtime::component::ResourceTableError;
use wasmtime_wasi_http::FieldMapError;

/// Which of its bounds a guest met, if that was it. Where wasmtime has no type for it, its words are what tells
/// (`host_limits.rs` has a guest for each).
pub(super) fn bound_met(error: &wasmtime::Error, bounds: &Bounds) -> Option<String> {
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        return Some(handles(bounds));
    }
    if let Some(FieldMapError::TotalSizeTooBig | FieldMapError::TooManyFields) = error.downcast_ref() {
        return Some(format!(
            "its header fields are larger than its limits.header-bytes of {}",
            bounds.header_bytes
        ));
    }
    let cause = error.root_cause().to_string();
    if cause.contains("store handle limit exceeded") {
        Some(handles(bounds))
    } else if cause.contains("fuel allocated for hostcalls") {
        Some(format!("it handed over more than its limits.host-call-bytes of {}", bounds.host_call_bytes))
    } else if cause.contains("instance count too high") {
        Some(format!("it has more core instances than its limits.instances of {}", bounds.instances))
    } else if cause.contains("table count too high") {
        Some(format!("it has more tables than its limits.tables of {}", bounds.tables))
    } else {
        None
    }
}

fn handles(bounds: &Bounds) -> String {
    format!("it holds more handles than its limits.handles of {}", bounds.handles)
}
