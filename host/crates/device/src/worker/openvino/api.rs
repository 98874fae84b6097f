//! OpenVINO's C interface, as far as the worker needs it. The crate `openvino` wraps the same functions, but it
//! has no tensors over memory of ours, frees a tensor twice after `set_shape`, and leaks the names that it asks for.

use std::{
    ffi::{CStr, CString, c_char},
    ptr::{self, NonNull},
};

use openvino_sys as sys;
use openvino_sys::ov_status_e as Status;

/// An object of the C interface, freed when dropped.
struct Owned<T> {
    ptr: NonNull<T>,
    free: unsafe fn(*mut T),
}

impl<T> Owned<T> {
    fn make(free: unsafe fn(*mut T), create: impl FnOnce(*mut *mut T) -> Status) -> Result<Self, String> {
        let mut made = ptr::null_mut();
        check(create(&raw mut made))?;
        let ptr = NonNull::new(made).ok_or("OpenVINO made nothing")?;
        Ok(Self { ptr, free })
    }

    fn get(&self) -> *mut T {
        self.ptr.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    #[allow(unsafe_code, reason = "freeing an object of the C interface")]
    fn drop(&mut self) {
        // SAFETY: `make` got the object from the interface, with the function that frees it; nobody else does.
        unsafe { (self.free)(self.ptr.as_ptr()) }
    }
}

/// The text of the last error, without the places in OpenVINO's source.
#[allow(unsafe_code, reason = "reading a text of the C interface")]
fn check(status: Status) -> Result<(), String> {
    if status == Status::OK {
        return Ok(());
    }
    // SAFETY: the library is loaded, or there would be no status; the text is valid until the next call on this
    // thread, and is copied before.
    let text = unsafe {
        let text = sys::ov_get_last_err_msg();
        if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    let lines = text.lines().map(str::trim).filter(|line| {
        !line.is_empty() && !line.starts_with("Exception from ") && !line.starts_with("FrontEnd API failed")
    });
    let text = lines.collect::<Vec<_>>().join("; ");
    Err(if text.is_empty() { format!("{status:?}") } else { text })
}

fn c_text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| "a text with a zero byte".to_owned())
}

/// The library and its plugins.
pub(super) struct Core(Owned<sys::ov_core_t>);

impl Core {
    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn new() -> Result<Self, String> {
        // SAFETY: the place for the result is valid; the same below.
        Owned::make(sys::ov_core_free, |core| unsafe { sys::ov_core_create(core) }).map(Self)
    }

    /// Devices for which a plugin loads and finds hardware. Asking loads these plugins.
    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn devices(&self) -> Result<Vec<String>, String> {
        let mut list = sys::ov_available_devices_t { devices: ptr::null_mut(), size: 0 };
        // SAFETY: on success the list holds `size` texts until it is freed, which happens once.
        unsafe {
            check(sys::ov_core_get_available_devices(self.0.get(), &raw mut list))?;
            let names = (0..list.size).map(|index| {
                let name: *const c_char = *list.devices.add(index);
                CStr::from_ptr(name).to_string_lossy().into_owned()
            });
            let names = names.collect();
            sys::ov_available_devices_free(&raw mut list);
            Ok(names)
        }
    }

    /// Loads the plugin of a device.
    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn load_plugin(&self, device: &str) -> Result<(), String> {
        let device = c_text(device)?;
        let mut list = sys::ov_core_version_list_t { versions: ptr::null_mut(), size: 0 };
        // SAFETY: the arguments outlive the call; what it made is freed once.
        unsafe {
            check(sys::ov_core_get_versions_by_device_name(self.0.get(), device.as_ptr(), &raw mut list))?;
            sys::ov_core_versions_free(&raw mut list);
        }
        Ok(())
    }

    /// Sets a property of a device, for models that are compiled afterwards.
    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn set(&self, device: &str, key: &str, value: &str) -> Result<(), String> {
        let (device, name, value) = (c_text(device)?, c_text(key)?, c_text(value)?);
        let property = sys::ov_property_t { key: name.as_ptr(), value: value.as_ptr().cast() };
        // SAFETY: the arguments outlive the call, which copies them.
        let status =
            unsafe { sys::ov_core_set_properties(self.0.get(), device.as_ptr(), 1, &raw const property) };
        check(status).map_err(|error| format!("{key}: {error}"))
    }

    /// Reads ONNX, or an IR with its weights. Constants of the model may stay in the weights' memory, so `weights`
    /// has to outlive the model and what is compiled from it.
    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn read(&self, model: &[u8], weights: Option<&Tensor>) -> Result<Model, String> {
        let weights = weights.map_or(ptr::null(), |tensor| tensor.0.get().cast_const());
        // SAFETY: the arguments outlive the call, which copies the text of the model.
        Owned::make(sys::ov_model_free, |made| unsafe {
            sys::ov_core_read_model_from_memory_buffer(
                self.0.get(),
                model.as_ptr().cast(),
                model.len(),
                weights,
                made,
            )
        })
        .map(Model)
    }

    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn compile(&self, model: &Model, device: &str) -> Result<Compiled, String> {
        let device = c_text(device)?;
        // SAFETY: the arguments outlive the call; there are no properties behind the declared ones.
        Owned::make(sys::ov_compiled_model_free, |made| unsafe {
            sys::ov_core_compile_model(self.0.get(), model.0.get(), device.as_ptr(), 0, made)
        })
        .map(Compiled)
    }
}

/// A model that was read.
pub(super) struct Model(Owned<sys::ov_model_t>);

/// What a model says of an input or output.
pub(super) struct RawPort {
    /// One of its names; a port may have none.
    pub(super) name: Option<String>,
    /// OpenVINO's number of the element type.
    pub(super) element: u32,
    /// Smallest and largest size of each dimension, -1 being no limit; `None` where their number is open.
    pub(super) dims: Option<Vec<(i64, i64)>>,
}

impl Model {
    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn inputs(&self) -> Result<Vec<RawPort>, String> {
        let mut count = 0;
        // SAFETY: the model is alive and the place for the result is valid; the same below.
        check(unsafe { sys::ov_model_inputs_size(self.0.get(), &raw mut count) })?;
        (0..count)
            .map(|index| {
                port(|made| unsafe { sys::ov_model_const_input_by_index(self.0.get(), index, made) })
            })
            .collect()
    }

    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn outputs(&self) -> Result<Vec<RawPort>, String> {
        let mut count = 0;
        // SAFETY: the model is alive and the place for the result is valid; the same below.
        check(unsafe { sys::ov_model_outputs_size(self.0.get(), &raw mut count) })?;
        (0..count)
            .map(|index| {
                port(|made| unsafe { sys::ov_model_const_output_by_index(self.0.get(), index, made) })
            })
            .collect()
    }
}

#[allow(unsafe_code, reason = "C interface")]
fn port(find: impl FnOnce(*mut *mut sys::ov_output_const_port_t) -> Status) -> Result<RawPort, String> {
    let port = Owned::make(sys::ov_output_const_port_free, find)?;
    let mut name: *mut c_char = ptr::null_mut();
    // SAFETY: the port is alive; on success `name` is a text of ours to free.
    let name = unsafe {
        match sys::ov_port_get_any_name(port.get(), &raw mut name) {
            Status::OK if !name.is_null() => {
                let text = CStr::from_ptr(name).to_string_lossy().into_owned();
                sys::ov_free(name);
                Some(text)
            }
            _ => None,
        }
    };
    // Not the enum of the bindings: a number that it does not know would be no valid value of it.
    let mut element = 0u32;
    let mut shape =
        sys::ov_partial_shape_t { rank: sys::ov_rank_t { min: 0, max: 0 }, dims: ptr::null_mut() };
    // SAFETY: the port is alive; the enum is a u32 in C too; the shape holds `rank` dimensions until it is freed.
    let dims = unsafe {
        check(sys::ov_port_get_element_type(port.get(), (&raw mut element).cast()))?;
        check(sys::ov_port_get_partial_shape(port.get(), &raw mut shape))?;
        let rank = (shape.rank.min == shape.rank.max).then(|| usize::try_from(shape.rank.max).ok()).flatten();
        let dims = rank.map(|rank| {
            let dims = (0..rank).filter(|_| !shape.dims.is_null()).map(|index| *shape.dims.add(index));
            dims.map(|dim| (dim.min, dim.max)).collect()
        });
        sys::ov_partial_shape_free(&raw mut shape);
        dims
    };
    Ok(RawPort { name, element, dims })
}

/// A model made ready for a device.
pub(super) struct Compiled(Owned<sys::ov_compiled_model_t>);

impl Compiled {
    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn request(&self) -> Result<Request, String> {
        // SAFETY: the model is alive and the place for the result is valid.
        Owned::make(sys::ov_infer_request_free, |made| unsafe {
            sys::ov_compiled_model_create_infer_request(self.0.get(), made)
        })
        .map(Request)
    }
}

/// What holds the tensors of one run.
pub(super) struct Request(Owned<sys::ov_infer_request_t>);

impl Request {
    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn set_input(&mut self, index: usize, tensor: &Tensor) -> Result<(), String> {
        // SAFETY: both are alive; the request keeps the tensor's object alive by itself, though not its memory.
        check(unsafe { sys::ov_infer_request_set_input_tensor_by_index(self.0.get(), index, tensor.0.get()) })
    }

    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn infer(&mut self) -> Result<(), String> {
        // SAFETY: the request is alive, and the caller keeps the memory of its inputs.
        check(unsafe { sys::ov_infer_request_infer(self.0.get()) })
    }

    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn output(&self, index: usize) -> Result<Tensor, String> {
        // SAFETY: the request is alive and the place for the result is valid.
        Owned::make(sys::ov_tensor_free, |made| unsafe {
            sys::ov_infer_request_get_output_tensor_by_index(self.0.get(), index, made)
        })
        .map(Tensor)
    }
}

/// A dense tensor.
pub(super) struct Tensor(Owned<sys::ov_tensor_t>);

impl Tensor {
    /// A tensor over memory of ours, which has to outlive its use by the engine.
    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn over(
        element: sys::ov_element_type_e,
        dims: &[i64],
        data: NonNull<u8>,
    ) -> Result<Self, String> {
        // Not made by `ov_shape_create`, which refuses scalars. The interface reads the dimensions and copies them.
        let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
        let shape = sys::ov_shape_t { rank, dims: dims.as_ptr().cast_mut() };
        // SAFETY: `dims` has `rank` numbers and outlives the call, as the place for the result does.
        Owned::make(sys::ov_tensor_free, |made| unsafe {
            sys::ov_tensor_create_from_host_ptr(element, shape, data.as_ptr().cast(), made)
        })
        .map(Self)
    }

    /// OpenVINO's number of the element type.
    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn element(&self) -> Result<u32, String> {
        let mut element = 0u32;
        // SAFETY: the tensor is alive; the enum is a u32 in C too.
        check(unsafe { sys::ov_tensor_get_element_type(self.0.get(), (&raw mut element).cast()) })?;
        Ok(element)
    }

    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn dims(&self) -> Result<Vec<i64>, String> {
        let mut shape = sys::ov_shape_t { rank: 0, dims: ptr::null_mut() };
        // SAFETY: the tensor is alive; on success the shape holds `rank` numbers until it is freed.
        unsafe {
            check(sys::ov_tensor_get_shape(self.0.get(), &raw mut shape))?;
            let rank = usize::try_from(shape.rank).unwrap_or(0);
            let dims = (0..rank).filter(|_| !shape.dims.is_null()).map(|index| *shape.dims.add(index));
            let dims = dims.collect();
            sys::ov_shape_free(&raw mut shape);
            Ok(dims)
        }
    }

    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn byte_size(&self) -> Result<usize, String> {
        let mut size = 0;
        // SAFETY: the tensor is alive and the place for the result is valid.
        check(unsafe { sys::ov_tensor_get_byte_size(self.0.get(), &raw mut size) })?;
        Ok(size)
    }

    #[allow(unsafe_code, reason = "C interface")]
    pub(super) fn data(&self) -> Result<*const u8, String> {
        let mut data = ptr::null_mut();
        // SAFETY: the tensor is alive and the place for the result is valid.
        check(unsafe { sys::ov_tensor_data(self.0.get(), &raw mut data) })?;
        Ok(data.cast_const().cast())
    }
}
