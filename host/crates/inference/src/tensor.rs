use std::fmt;

use bytes::Bytes;

/// The highest number of dimensions that a tensor may have.
pub const MAX_RANK: usize = 16;

/// Element type of a tensor. Elements are little-endian and packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 binary16.
    F16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// The upper half of a binary32.
    Bf16,
    /// Unsigned 8 bit.
    U8,
    /// Signed 32 bit.
    I32,
    /// Signed 64 bit.
    I64,
    /// One byte, 0 or 1. WASI-NN has no such type: its guests send and receive `u8`.
    Bool,
}

impl DType {
    /// All element types.
    pub const ALL: [DType; 8] =
        [DType::F16, DType::F32, DType::F64, DType::Bf16, DType::U8, DType::I32, DType::I64, DType::Bool];

    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            DType::U8 | DType::Bool => 1,
            DType::F16 | DType::Bf16 => 2,
            DType::F32 | DType::I32 => 4,
            DType::F64 | DType::I64 => 8,
        }
    }

    /// The lower-case name: `f32`, `bf16`, `bool`...
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            DType::F16 => "f16",
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::Bf16 => "bf16",
            DType::U8 => "u8",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::Bool => "bool",
        }
    }

    /// Bytes of a tensor of these dimensions; `None` where the product does not fit.
    #[must_use]
    pub fn bytes(self, dims: &[u32]) -> Option<usize> {
        dims.iter().try_fold(self.size(), |size, dim| size.checked_mul(usize::try_from(*dim).ok()?))
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A dense tensor in row-major order. Its length always equals the product of its dimensions and element size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    dims: Vec<u32>,
    data: Bytes,
}

/// Why bytes are not a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The data does not fill the dimensions, or overfills them.
    #[error("tensor of {dtype} {dims:?} needs {expected} bytes, got {got}")]
    Length {
        /// Element type.
        dtype: DType,
        /// Dimensions.
        dims: Vec<u32>,
        /// Bytes that these need.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The product of the dimensions does not fit into memory.
    #[error("dimensions {dims:?} of a {dtype} tensor are too large")]
    Overflow {
        /// Element type.
        dtype: DType,
        /// Dimensions.
        dims: Vec<u32>,
    },
    /// More than [`MAX_RANK`] dimensions.
    #[error("tensor has {rank} dimensions, at most {MAX_RANK} are allowed")]
    Rank {
        /// Dimensions given.
        rank: usize,
    },
}

impl Tensor {
    /// A tensor, if the data has exactly the length that dimensions and type ask for.
    ///
    /// # Errors
    /// [`TensorError`] where it has not.
    pub fn new(dtype: DType, dims: Vec<u32>, data: impl Into<Bytes>) -> Result<Self, TensorError> {
        let data = data.into();
        if dims.len() > MAX_RANK {
            return Err(TensorError::Rank { rank: dims.len() });
        }
        match dtype.bytes(&dims) {
            None => Err(TensorError::Overflow { dtype, dims }),
            Some(expected) if expected != data.len() => {
                Err(TensorError::Length { dtype, dims, expected, got: data.len() })
            }
            Some(_) => Ok(Self { dtype, dims, data }),
        }
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions; none for a scalar.
    #[must_use]
    pub fn dims(&self) -> &[u32] {
        &self.dims
    }

    /// The elements' bytes.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Takes the tensor apart.
    #[must_use]
    pub fn into_parts(self) -> (DType, Vec<u32>, Bytes) {
        (self.dtype, self.dims, self.data)
    }

    /// The same bytes seen as a `bool` tensor: WASI-NN guests can only send `u8`.
    pub(crate) fn into_bool(mut self) -> Option<Self> {
        let fits = self.dtype == DType::U8 && self.data.iter().all(|byte| *byte <= 1);
        self.dtype = DType::Bool;
        fits.then_some(self)
    }

    /// The same tensor with another size of one dimension: cut off, or filled up with zeros, at its end.
    pub(crate) fn resized(&self, axis: usize, size: u32) -> Self {
        let bytes = |dims: &[u32]| dims.iter().map(|dim| *dim as usize).product::<usize>();
        let inner = bytes(&self.dims[axis + 1..]) * self.dtype.size();
        let (old, new) = (inner * self.dims[axis] as usize, inner * size as usize);
        let outer = bytes(&self.dims[..axis]);
        let mut data = Vec::with_capacity(outer * new);
        for block in self.data.chunks_exact(old.max(1)) {
            data.extend_from_slice(&block[..old.min(new)]);
            data.resize(data.len() + new.saturating_sub(old), 0);
        }
        let mut dims = self.dims.clone();
        dims[axis] = size;
        Self { dtype: self.dtype, dims, data: data.into() }
    }

    /// `[1]` seen as a scalar: WASI-NN has no tensors without dimensions.
    pub(crate) fn into_scalar(mut self) -> Self {
        self.dims.clear();
        self
    }
}

/// A tensor with the name of the port that it goes into or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTensor {
    /// Port name, or the port's index in decimal for inputs.
    pub name: String,
    /// The tensor.
    pub tensor: Tensor,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizing_fills_up_and_cuts_back() {
        let tensor = Tensor::new(DType::U8, vec![2, 2, 2], vec![1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        let filled = tensor.resized(1, 3);
        assert_eq!(filled.dims(), [2, 3, 2]);
        assert_eq!(&filled.data()[..], [1, 2, 3, 4, 0, 0, 5, 6, 7, 8, 0, 0]);
        assert_eq!(filled.resized(1, 2), tensor);
        assert_eq!(&tensor.resized(2, 1).data()[..], [1, 3, 5, 7]);
    }

    #[test]
    fn length_is_checked() {
        assert!(Tensor::new(DType::F32, vec![2, 2], vec![0; 16]).is_ok());
        assert!(Tensor::new(DType::I64, vec![], vec![0; 8]).is_ok());
        assert_eq!(
            Tensor::new(DType::F32, vec![1], vec![0; 3]).unwrap_err().to_string(),
            "tensor of f32 [1] needs 4 bytes, got 3"
        );
        let huge = vec![u32::MAX; 4];
        assert!(matches!(Tensor::new(DType::F64, huge, vec![]), Err(TensorError::Overflow { .. })));
        assert!(matches!(Tensor::new(DType::U8, vec![1; 17], vec![0]), Err(TensorError::Rank { rank: 17 })));
    }
}
