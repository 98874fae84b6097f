//! An input of one row, made up.

use std::collections::BTreeSet;

use crate::{BatchingOptions, ComputeError, DType, Dim, Port, Signature, Tensor, bench::BenchOptions};

/// The most bytes of one input.
const MAX_BYTES: usize = 64 << 20;

/// Inputs of one row, in the model's order. `batched` says that dimension 0 is what a batch grows by.
pub(super) fn one_row(
    signature: &Signature,
    asked: &BenchOptions,
    card: &BatchingOptions,
    batched: bool,
) -> Result<Vec<Tensor>, ComputeError> {
    let mut free = BTreeSet::new();
    let mut missing = BTreeSet::new();
    let mut tensors = Vec::with_capacity(signature.inputs.len());
    for port in &signature.inputs {
        let Some(dims) = &port.dims else {
            return Err(invalid(format!(
                "input {:?} has an unknown number of dimensions: it cannot be made up",
                port.name
            )));
        };
        let mut sizes = Vec::with_capacity(dims.len());
        for (axis, dim) in dims.iter().enumerate() {
            let name = match dim {
                Dim::Fixed(size) => {
                    sizes.push(*size);
                    continue;
                }
                _ if axis == 0 && batched => {
                    sizes.push(1);
                    continue;
                }
                Dim::Named(name) => name.clone(),
                Dim::Any => format!("{}.{axis}", port.name),
            };
            let padded = card.pad.as_ref().filter(|pad| pad.dimension == name).and_then(|pad| pad.to.last());
            // A first dimension that does not batch is still most often the batch.
            let guess = padded.copied().or((axis == 0).then_some(1));
            match asked.dimensions.get(&name).copied().or(guess) {
                Some(size) => sizes.push(size),
                None => drop(missing.insert(name.clone())),
            }
            free.insert(name);
        }
        if missing.is_empty() {
            tensors.push(filled(port, sizes, asked.values.get(&port.name).copied())?);
        }
    }
    if !missing.is_empty() {
        let names = list(&missing);
        return Err(invalid(format!("the model leaves the size of {names} open: say it for each")));
    }
    if let Some(unknown) = asked.dimensions.keys().find(|name| !free.contains(*name)) {
        let known = if free.is_empty() { "none".to_owned() } else { list(&free) };
        return Err(invalid(format!(
            "the model has no free dimension {unknown:?} beside the batch; it has {known}"
        )));
    }
    if let Some(unknown) = asked.values.keys().find(|name| signature.inputs.iter().all(|p| p.name != **name))
    {
        return Err(invalid(format!("the model has no input {unknown:?} to give a value")));
    }
    Ok(tensors)
}

fn filled(port: &Port, dims: Vec<u32>, value: Option<f64>) -> Result<Tensor, ComputeError> {
    let name = &port.name;
    let size = port.dtype.bytes(&dims).filter(|bytes| (1..=MAX_BYTES).contains(bytes)).ok_or_else(|| {
        invalid(format!("input {name:?} of {} {dims:?} has no bytes, or more than {MAX_BYTES}", port.dtype))
    })?;
    let element = element(port.dtype, value)
        .ok_or_else(|| invalid(format!("input {name:?} is {}, which has no such value", port.dtype)))?;
    let data = element.repeat(size / element.len());
    Tensor::new(port.dtype, dims, data).map_err(|error| invalid(error.to_string()))
}

/// One element of this value. Without one 0.5, which is no special case of arithmetic, and 1, which most integer
/// inputs (ids, masks) take.
#[allow(clippy::cast_possible_truncation, reason = "what does not come back the same is refused")]
fn element(dtype: DType, value: Option<f64>) -> Option<Vec<u8>> {
    let float = value.unwrap_or(0.5);
    let whole = value.unwrap_or(1.);
    let integer = || Some(whole as i64).filter(|n| *n as f64 == whole);
    Some(match dtype {
        DType::F64 => float.to_le_bytes().to_vec(),
        DType::F32 => (float as f32).to_le_bytes().to_vec(),
        DType::Bf16 => (float as f32).to_le_bytes()[2..].to_vec(),
        // Powers of two are enough for a measurement.
        DType::F16 if float == 0.5 => 0x3800_u16.to_le_bytes().to_vec(),
        DType::F16 if float == 1. => 0x3c00_u16.to_le_bytes().to_vec(),
        DType::F16 if float == 0. => vec![0, 0],
        DType::F16 => return None,
        DType::U8 => vec![u8::try_from(integer()?).ok()?],
        DType::I32 => i32::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        DType::I64 => integer()?.to_le_bytes().to_vec(),
        DType::Bool => vec![u8::try_from(integer()?).ok().filter(|byte| *byte <= 1)?],
    })
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

fn invalid(message: String) -> ComputeError {
    ComputeError::InvalidArgument(message)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::{ModelKey, Pad};

    fn signature() -> Signature {
        let port = |name: &str, dtype, dims| Port { name: name.into(), dtype, dims: Some(dims) };
        let batch = || Dim::Named("batch".into());
        Signature {
            inputs: vec![
                port("ids", DType::I64, vec![batch(), Dim::Named("sequence".into())]),
                port("image", DType::F32, vec![batch(), Dim::Fixed(3), Dim::Any]),
            ],
            outputs: vec![],
        }
    }

    fn row(dimensions: &[(&str, u32)], values: &[(&str, f64)], pad: bool) -> Result<Vec<Tensor>, String> {
        let named = |(name, size): &(&str, u32)| ((*name).to_owned(), *size);
        let options = BenchOptions {
            model: ModelKey::operator("m", 1),
            max_batch: 8,
            dimensions: dimensions.iter().map(named).collect(),
            values: values
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect::<BTreeMap<_, _>>(),
            within: Duration::ZERO,
        };
        let pad = pad.then(|| Pad { dimension: "sequence".into(), to: vec![16, 64] });
        let card = BatchingOptions { pad, ..BatchingOptions::default() };
        one_row(&signature(), &options, &card, true).map_err(|error| error.to_string())
    }

    #[test]
    fn free_dimensions_are_asked_for() {
        let tensors = row(&[("sequence", 5), ("image.2", 7)], &[("ids", 101.)], false).unwrap();
        assert_eq!((tensors[0].dims(), tensors[1].dims()), (&[1, 5][..], &[1, 3, 7][..]));
        assert_eq!(tensors[0].data()[..8], 101i64.to_le_bytes());
        assert_eq!(tensors[1].data()[..4], 0.5f32.to_le_bytes());
        assert_eq!(row(&[("image.2", 7)], &[], true).unwrap()[0].dims(), [1, 64]);
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let error = row(&[], &[], false).unwrap_err();
        assert!(error.contains("\"image.2\", \"sequence\""), "{error}");
        let all = [("sequence", 5), ("image.2", 7)];
        let error = row(&[&all[..], &[("batch", 2)]].concat(), &[], false).unwrap_err();
        assert!(error.contains("\"batch\""), "{error}");
        assert!(row(&all, &[("other", 1.)], false).unwrap_err().contains("\"other\""));
        assert!(row(&all, &[("ids", 1.5)], false).unwrap_err().contains("i64"));
        assert!(row(&[("sequence", 0), ("image.2", 7)], &[], false).unwrap_err().contains("no bytes"));
        assert!(
            row(&[("sequence", u32::MAX), ("image.2", 7)], &[], false).unwrap_err().contains("more than")
        );
    }
}
