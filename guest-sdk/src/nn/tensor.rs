//! Tensors as plain values of the guest.

use crate::nn::Error;

pub use crate::raw::wasi::nn::tensor::TensorType;

/// A Rust type that a tensor can hold. `f16` and `bf16` have no Rust type: see [`Tensor::raw`].
pub trait Element: Copy + private::Sealed {
    /// wasi-nn's name of this type.
    const TYPE: TensorType;
}

mod private {
    pub trait Sealed: Sized {
        const SIZE: usize;
        /// Into exactly `SIZE` bytes.
        fn put(self, out: &mut [u8]);
        /// From exactly `SIZE` bytes.
        fn get(bytes: &[u8]) -> Self;
    }
}

macro_rules! element {
    ($($rust:ty => $wit:ident),*) => {$(
        impl Element for $rust {
            const TYPE: TensorType = TensorType::$wit;
        }
        impl private::Sealed for $rust {
            const SIZE: usize = size_of::<$rust>();
            fn put(self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_le_bytes());
            }
            fn get(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<$rust>()];
                own.copy_from_slice(bytes);
                Self::from_le_bytes(own)
            }
        }
    )*};
}
element!(f32 => Fp32, f64 => Fp64, u8 => U8, i32 => I32, i64 => I64);

/// Shapes: `[1, 3, 224, 224]`, slices and vectors of `usize`, and what [`Tensor::dimensions`] gives.
pub trait Dimensions {
    /// The sizes, outermost first; `None` if one does not fit in 32 bits.
    fn sizes(self) -> Option<Vec<u32>>;
}

// Arrays of one type only: so a literal needs no suffix.
impl<const N: usize> Dimensions for [usize; N] {
    fn sizes(self) -> Option<Vec<u32>> {
        self.as_slice().sizes()
    }
}

impl Dimensions for &[usize] {
    fn sizes(self) -> Option<Vec<u32>> {
        self.iter().map(|&size| u32::try_from(size).ok()).collect()
    }
}

impl Dimensions for Vec<usize> {
    fn sizes(self) -> Option<Vec<u32>> {
        self.as_slice().sizes()
    }
}

impl Dimensions for &[u32] {
    fn sizes(self) -> Option<Vec<u32>> {
        Some(self.to_vec())
    }
}

impl Dimensions for Vec<u32> {
    fn sizes(self) -> Option<Vec<u32>> {
        Some(self)
    }
}

/// Bytes of one element.
fn size_of_type(ty: TensorType) -> usize {
    match ty {
        TensorType::U8 => 1,
        TensorType::Fp16 | TensorType::Bf16 => 2,
        TensorType::Fp32 | TensorType::I32 => 4,
        TensorType::Fp64 | TensorType::I64 => 8,
    }
}

/// wasi-nn's spelling of a type.
fn name_of_type(ty: TensorType) -> &'static str {
    match ty {
        TensorType::Fp16 => "FP16",
        TensorType::Fp32 => "FP32",
        TensorType::Fp64 => "FP64",
        TensorType::Bf16 => "BF16",
        TensorType::U8 => "U8",
        TensorType::I32 => "I32",
        TensorType::I64 => "I64",
    }
}

/// A tensor: shape, element type, and the elements in row-major order, little-endian.
///
/// Shape and data are compared when the tensor goes into a model call, so that building one needs no `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    dimensions: Option<Vec<u32>>,
    ty: TensorType,
    data: Vec<u8>,
}

impl Tensor {
    /// A tensor from bytes, for types without a Rust type: two bytes an element for `Fp16` and `Bf16`.
    pub fn raw(dimensions: impl Dimensions, ty: TensorType, data: Vec<u8>) -> Self {
        Self { dimensions: dimensions.sizes(), ty, data }
    }

    /// A tensor from values.
    pub fn new<T: Element>(dimensions: impl Dimensions, values: &[T]) -> Self {
        let mut data = vec![0; values.len() * T::SIZE];
        for (&value, bytes) in values.iter().zip(data.chunks_exact_mut(T::SIZE)) {
            value.put(bytes);
        }
        Self::raw(dimensions, T::TYPE, data)
    }

    /// A tensor of `FP32`.
    pub fn f32(dimensions: impl Dimensions, values: &[f32]) -> Self {
        Self::new(dimensions, values)
    }

    /// A tensor of `FP64`.
    pub fn f64(dimensions: impl Dimensions, values: &[f64]) -> Self {
        Self::new(dimensions, values)
    }

    /// A tensor of `U8`.
    pub fn u8(dimensions: impl Dimensions, values: &[u8]) -> Self {
        Self::raw(dimensions, TensorType::U8, values.to_vec())
    }

    /// A tensor of `I32`.
    pub fn i32(dimensions: impl Dimensions, values: &[i32]) -> Self {
        Self::new(dimensions, values)
    }

    /// A tensor of `I64`.
    pub fn i64(dimensions: impl Dimensions, values: &[i64]) -> Self {
        Self::new(dimensions, values)
    }

    /// The shape, outermost first; empty for one with a size beyond 32 bits, which no model call takes.
    pub fn dimensions(&self) -> &[u32] {
        self.dimensions.as_deref().unwrap_or_default()
    }

    /// The element type.
    pub fn ty(&self) -> TensorType {
        self.ty
    }

    /// The element type as wasi-nn spells it, e.g. `FP32`.
    pub fn type_name(&self) -> &'static str {
        name_of_type(self.ty)
    }

    /// The elements as bytes.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The elements as values.
    ///
    /// # Errors
    /// `invalid-argument` if the tensor holds another type.
    pub fn values<T: Element>(&self) -> Result<Vec<T>, Error> {
        values(self.ty, &self.data)
    }

    /// Shape, type and data for a call, if they fit together.
    pub(crate) fn into_parts(self, name: &str) -> Result<(Vec<u32>, TensorType, Vec<u8>), Error> {
        let Self { dimensions, ty, data } = self;
        let Some(dimensions) = dimensions else {
            return Err(Error::invalid(format!("input {name:?} has a size beyond 32 bits")));
        };
        let elements = dimensions.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
        let needed = elements.and_then(|n| n.checked_mul(size_of_type(ty)));
        if needed != Some(data.len()) {
            let (ty, given) = (name_of_type(ty), data.len());
            return Err(Error::invalid(format!(
                "input {name:?} has {given} bytes, which is not the size of {dimensions:?} in {ty}"
            )));
        }
        Ok((dimensions, ty, data))
    }
}

/// A tensor's elements as values, if they are of this type.
pub(crate) fn values<T: Element>(ty: TensorType, data: &[u8]) -> Result<Vec<T>, Error> {
    if ty != T::TYPE {
        let (held, asked) = (name_of_type(ty), name_of_type(T::TYPE));
        return Err(Error::invalid(format!("the tensor holds {held}, not {asked}")));
    }
    // An iterator of known length: a vector that grows would be copied again and again in fresh memory.
    Ok(data.chunks_exact(T::SIZE).map(T::get).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ErrorCode;

    #[test]
    fn values_come_back() {
        let tensor = Tensor::i64([2, 2], &[1, -1, i64::MAX, 0]);
        assert_eq!(tensor.dimensions(), [2, 2]);
        assert_eq!(tensor.data().len(), 32);
        assert_eq!(tensor.values::<i64>(), Ok(vec![1, -1, i64::MAX, 0]));
        let error = tensor.values::<f32>().expect_err("another type");
        assert_eq!(error.message(), "the tensor holds I64, not FP32");
    }

    #[test]
    fn shape_and_data_must_agree() {
        let error = Tensor::f32([2, 2], &[0.0; 3]).into_parts("x").expect_err("short");
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert_eq!(error.message(), "input \"x\" has 12 bytes, which is not the size of [2, 2] in FP32");
        let huge = Tensor::u8(vec![u32::MAX; 3], &[]);
        assert!(huge.into_parts("x").is_err());
        let beyond = Tensor::u8([1usize << 40], &[]);
        assert!(beyond.into_parts("x").is_err());
        assert!(Tensor::u8([0, 4], &[]).into_parts("x").is_ok());
    }
}
