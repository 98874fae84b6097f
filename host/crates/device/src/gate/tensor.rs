//! Tensors in a file: how much they say they hold, and how much is there.

use super::{
    MAX_DIMS, MAX_TENSOR_BYTES,
    onnx::Reader,
    protobuf::{Fields, Value, broken, packed_varints, varint},
    refused::{Kind, Refused, shown},
};

/// Integers of a tensor are kept up to this many: shapes and axes are never longer.
const KEPT: usize = 64;

/// A tensor without its data, except for few integers.
#[derive(Clone, Debug, Default)]
pub(super) struct Tensor<'a> {
    pub(super) name: &'a str,
    pub(super) dims: Vec<i64>,
    pub(super) dtype: i32,
    /// All elements as integers, where these are few and of an integer type.
    pub(super) ints: Option<Vec<i64>>,
}

pub(super) const INT32: i32 = 6;
pub(super) const INT64: i32 = 7;
const STRING: i32 = 8;
pub(super) const BOOL: i32 = 9;

/// Bits of one element by ONNX's number of the type; strings count as a byte.
pub(super) fn bits(dtype: i32) -> Option<u64> {
    Some(match dtype {
        2 | 3 | 9 | 17..=20 | 24 | STRING => 8,
        4 | 5 | 10 | 16 => 16,
        1 | 6 | 12 => 32,
        7 | 11 | 13 | 14 => 64,
        15 => 128,
        21..=23 => 4,
        25 | 26 => 2,
        _ => return None,
    })
}

/// What the data fields of a tensor hold.
#[derive(Default)]
struct Data<'a> {
    raw: Option<&'a [u8]>,
    /// Numbers in typed fields.
    numbers: u64,
    ints: Vec<i64>,
}

impl<'a> Reader {
    pub(super) fn tensor(&mut self, message: &'a [u8]) -> Result<Tensor<'a>, Refused> {
        let mut tensor = Tensor::default();
        let mut data = Data::default();
        let mut external = false;
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, value) => self.integers(value, &mut tensor.dims, MAX_DIMS)?,
                (2, Value::Varint(dtype)) => tensor.dtype = i32::try_from(dtype).unwrap_or(-1),
                (4, Value::Fixed32) | (10, Value::Fixed64) | (6, Value::Bytes(_)) => data.numbers += 1,
                (4, Value::Bytes(packed)) => data.numbers += packed.len() as u64 / 4,
                (10, Value::Bytes(packed)) => data.numbers += packed.len() as u64 / 8,
                (5 | 7 | 11, Value::Varint(number)) => {
                    data.numbers += 1;
                    data.keep(number);
                }
                (5 | 7 | 11, Value::Bytes(mut packed)) => {
                    data.numbers += packed_varints(packed);
                    while !packed.is_empty() && data.ints.len() <= KEPT {
                        let number = varint(&mut packed)?;
                        data.keep(number);
                    }
                }
                (8, Value::Bytes(name)) => tensor.name = self.name(name)?,
                (9, Value::Bytes(raw)) => data.raw = Some(raw),
                // A location is 0 (in the file) or 1 (outside); whatever is not plainly 0 is outside.
                (14, Value::Varint(0)) => {}
                (13 | 14, _) => external = true,
                _ => {}
            }
        }
        if external {
            let what = format!("tensor {} keeps its data in external files", shown(tensor.name));
            return Err(Refused::new(Kind::External, what, "store the model as one file"));
        }
        let elements = tensor.check_size(&data)?;
        tensor.ints = data.integers(tensor.dtype, elements);
        Ok(tensor)
    }

    /// A sparse tensor; gives its name. Engines make it dense, so what it stands for counts.
    pub(super) fn sparse(&mut self, message: &'a [u8]) -> Result<&'a str, Refused> {
        let (mut values, mut indices, mut dims) = (None, None, Vec::new());
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Bytes(inner)) if values.is_none() => values = Some(self.tensor(inner)?),
                (2, Value::Bytes(inner)) if indices.is_none() => indices = Some(self.tensor(inner)?),
                (1 | 2, Value::Bytes(_)) => return Err(broken()),
                (3, value) => self.integers(value, &mut dims, MAX_DIMS)?,
                _ => {}
            }
        }
        let values = values.unwrap_or_default();
        let dense = claimed(&dims, bits(values.dtype).unwrap_or(8), values.name)?.1;
        // Memory for many times the file must not come out of a few bytes.
        let most = (64 << 20).max(64 * self.file_bytes());
        if dense > most {
            let what = format!("sparse tensor {} stands for {dense} bytes", shown(values.name));
            return Err(Refused::new(Kind::Size, what, "store it as a dense tensor"));
        }
        Ok(values.name)
    }
}

impl Tensor<'_> {
    /// Number of elements, if the data is there for them.
    fn check_size(&self, data: &Data<'_>) -> Result<u64, Refused> {
        let Some(bits) = bits(self.dtype) else {
            let what = format!("tensor {} has the unknown element type {}", shown(self.name), self.dtype);
            return Err(Refused::new(Kind::Broken, what, "export the model again"));
        };
        let (elements, bytes) = claimed(&self.dims, bits, self.name)?;
        let held = match data.raw {
            Some(raw) => (raw.len() as u64).saturating_mul(8) / bits,
            None => match bits {
                2 | 4 => data.numbers.saturating_mul(8 / bits),
                _ if matches!(self.dtype, 14 | 15) => data.numbers / 2,
                _ => data.numbers,
            },
        };
        if elements > held {
            let what = format!(
                "tensor {} of {:?} claims {elements} elements ({bytes} bytes), but the file holds {held}",
                shown(self.name),
                self.dims
            );
            return Err(Refused::new(Kind::Size, what, "the file is cut off or forged: export it again"));
        }
        Ok(elements)
    }
}

/// Elements and bytes that dimensions stand for.
pub(super) fn claimed(dims: &[i64], bits: u64, name: &str) -> Result<(u64, u64), Refused> {
    // Signs and overflow first: a zero elsewhere must not hide an absurd factor.
    let implausible = || {
        let what = format!("{} of {dims:?} is larger than {MAX_TENSOR_BYTES} bytes", shown(name));
        Refused::new(Kind::Size, what, "use dimensions that a device can hold")
    };
    let mut elements = 1u64;
    for dim in dims {
        let dim = u64::try_from(*dim).map_err(|_| {
            let what = format!("{} has the negative dimension {dim}", shown(name));
            Refused::new(Kind::Size, what, "export the model again")
        })?;
        elements = elements.checked_mul(dim.max(1)).ok_or_else(implausible)?;
    }
    let bytes = elements.checked_mul(bits).ok_or_else(implausible)?.div_ceil(8);
    if bytes > MAX_TENSOR_BYTES {
        return Err(implausible());
    }
    Ok(if dims.contains(&0) { (0, 0) } else { (elements, bytes) })
}

impl Data<'_> {
    fn keep(&mut self, number: u64) {
        if self.ints.len() <= KEPT {
            self.ints.push(number.cast_signed());
        }
    }

    fn integers(self, dtype: i32, elements: u64) -> Option<Vec<i64>> {
        let elements = usize::try_from(elements).ok().filter(|count| *count <= KEPT)?;
        if !matches!(dtype, INT32 | INT64 | BOOL) {
            return None;
        }
        let ints: Vec<i64> = match self.raw {
            None => self.ints,
            Some(raw) if dtype == INT64 => raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            Some(raw) if dtype == INT32 => {
                raw.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect()
            }
            Some(raw) => raw.iter().map(|byte| (*byte).into()).collect(),
        };
        (ints.len() == elements).then_some(ints)
    }
}
