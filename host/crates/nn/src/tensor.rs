use bytes::Bytes;
use wasmeter_inference::{DType, Tensor};
use wasmtime::component::Resource;

use crate::bindings::errors::ErrorCode;
use crate::bindings::tensor::{Host, HostTensor, TensorType};
use crate::ctx::NnCtxView;
use crate::errors::NnError;

/// A tensor resource of the guest, as the guest made it: the constructor cannot refuse, so `compute` checks.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated module re-exports it")]
pub struct GuestTensor {
    dims: Vec<u32>,
    ty: TensorType,
    data: Bytes,
}

impl GuestTensor {
    pub(crate) fn new(dims: Vec<u32>, ty: TensorType, data: Vec<u8>) -> Self {
        Self { dims, ty, data: data.into() }
    }

    pub(crate) fn dims(&self) -> &[u32] {
        &self.dims
    }

    pub(crate) fn kind(&self) -> TensorType {
        self.ty
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(crate) fn checked(&self) -> Result<Tensor, NnError> {
        let dtype = match self.ty {
            TensorType::Fp16 => DType::F16,
            TensorType::Fp32 => DType::F32,
            TensorType::Fp64 => DType::F64,
            TensorType::Bf16 => DType::Bf16,
            TensorType::U8 => DType::U8,
            TensorType::I32 => DType::I32,
            TensorType::I64 => DType::I64,
        };
        Tensor::new(dtype, self.dims.clone(), self.data.clone())
            .map_err(|e| NnError::new(ErrorCode::InvalidArgument, e.to_string()))
    }

    /// wasi:nn has no bool: a bool tensor is given as u8 of 0 and 1.
    pub(crate) fn from_tensor(tensor: Tensor) -> Self {
        let (dtype, dims, data) = tensor.into_parts();
        let ty = match dtype {
            DType::F16 => TensorType::Fp16,
            DType::F32 => TensorType::Fp32,
            DType::F64 => TensorType::Fp64,
            DType::Bf16 => TensorType::Bf16,
            DType::U8 | DType::Bool => TensorType::U8,
            DType::I32 => TensorType::I32,
            DType::I64 => TensorType::I64,
        };
        Self { dims, ty, data }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.len() + size_of_val(self.dims.as_slice())
    }
}

impl NnCtxView<'_> {
    /// Counts the tensor against the invocation's limit; over it, the guest traps.
    pub(crate) fn push_tensor(&mut self, tensor: GuestTensor) -> wasmtime::Result<Resource<GuestTensor>> {
        self.ctx.hold(tensor.bytes()).map_err(|error| wasmtime::format_err!("{}", error.data))?;
        Ok(self.table.push(tensor)?)
    }
}

impl Host for NnCtxView<'_> {}

impl HostTensor for NnCtxView<'_> {
    async fn new(
        &mut self,
        dims: Vec<u32>,
        ty: TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<GuestTensor>> {
        self.push_tensor(GuestTensor::new(dims, ty, data))
    }

    async fn dimensions(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.table.get(&tensor)?.dims.clone())
    }

    async fn ty(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<TensorType> {
        Ok(self.table.get(&tensor)?.ty)
    }

    async fn data(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&tensor)?.data.to_vec())
    }

    async fn drop(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<()> {
        let tensor = self.table.delete(tensor)?;
        self.ctx.release(tensor.bytes());
        Ok(())
    }
}
