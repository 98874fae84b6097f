//! Tensors and ports as every engine treats them: inputs are looked at where they lie in the shared region, outputs
//! are laid one behind the other, and what no host could take is refused in the same words.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
};

use wasmeter_inference::{DType, Dim, MAX_NAME, MAX_PORTS, MAX_RANK, Port};
use wasmeter_usage::DeviceClass;

use super::busy::Busy;
use crate::{
    region::{ALIGN, Region, align_up},
    wire::{Failure, Placed, ToHost},
};

/// A failed run, before it is a message.
pub(super) struct Fault(pub(super) Failure, pub(super) String);

impl Fault {
    pub(super) fn engine(message: impl Into<String>) -> Self {
        Self(Failure::Engine, message.into())
    }
}

/// Runs a model and says how long that kept the device busy.
pub(super) fn timed<M>(
    run: u64,
    class: DeviceClass,
    model: Option<&mut M>,
    compute: impl FnOnce(&mut M) -> Result<Vec<Placed>, Fault>,
) -> ToHost {
    let busy = Busy::start(class);
    let result = match model {
        Some(model) => catch_unwind(AssertUnwindSafe(|| compute(model)))
            .unwrap_or_else(|_| Err(Fault::engine("the engine panicked"))),
        None => Err(Fault::engine("the model is not loaded")),
    };
    let busy_ns = busy.ns();
    match result {
        Ok(outputs) => ToHost::Ran { run, busy_ns, outputs },
        Err(Fault(kind, message)) => ToHost::Failed { run, busy_ns, kind, message },
    }
}

/// An input where it lies: no copy. The mapping is read-only; an engine that wrote to it would die.
pub(super) struct Input {
    /// The first of `len` readable bytes, aligned for every element type.
    pub(super) data: NonNull<u8>,
    pub(super) len: usize,
    pub(super) dims: Vec<i64>,
}

impl Input {
    /// Finds the inputs of a run, `expected` many.
    pub(super) fn all(
        placed: &[Placed],
        expected: usize,
        region: &Region,
    ) -> Result<impl Iterator<Item = Result<Self, Fault>>, Fault> {
        if placed.len() != expected {
            return Err(Fault::engine("the host sent another number of inputs"));
        }
        Ok(placed.iter().map(|placed| {
            Self::find(placed, region)
                .ok_or_else(|| Fault::engine("the host placed an input outside the region"))
        }))
    }

    fn find(placed: &Placed, region: &Region) -> Option<Self> {
        let len = placed.dtype.bytes(&placed.dims)?;
        let data = region.at(placed.offset, len).filter(|_| placed.offset.is_multiple_of(ALIGN))?;
        let dims = placed.dims.iter().map(|dim| i64::from(*dim)).collect();
        Some(Self { data, len, dims })
    }
}

/// The outputs of a run on their way into the region.
pub(super) struct Outputs<'a> {
    region: &'a Region,
    end: u64,
    pub(super) placed: Vec<Placed>,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(region: &'a Region, count: usize) -> Self {
        Self { region, end: 0, placed: Vec::with_capacity(count) }
    }

    /// Copies one output behind the ones before it. `data` gives its bytes and is told how many they are; it is not
    /// asked for an empty tensor.
    pub(super) fn put<'t>(
        &mut self,
        port: &Port,
        dtype: DType,
        shape: &[i64],
        data: impl FnOnce(usize) -> Result<&'t [u8], Fault>,
    ) -> Result<(), Fault> {
        let too_large = || {
            let message = format!(
                "output {:?} of {dtype} {shape:?} does not fit into the {} bytes for outputs",
                port.name,
                self.region.size()
            );
            Fault(Failure::TooLarge, message)
        };
        let dims = shape.iter().map(|dim| u32::try_from(*dim)).collect::<Result<Vec<_>, _>>();
        let dims = dims.map_err(|_| too_large())?;
        if dims.len() > MAX_RANK {
            return Err(Fault::engine(format!("output {:?} has more than {MAX_RANK} dimensions", port.name)));
        }
        let len = dtype.bytes(&dims).ok_or_else(too_large)?;
        let offset = align_up(self.end).ok_or_else(too_large)?;
        if len > 0 && !self.region.write(offset, data(len)?) {
            return Err(too_large());
        }
        self.end = offset + len as u64;
        self.placed.push(Placed { dtype, dims, offset });
        Ok(())
    }
}

/// Refuses more ports of a kind (`input`, `output`) than a host takes.
pub(super) fn check_count(kind: &str, count: usize) -> Result<(), String> {
    if count > MAX_PORTS {
        return Err(format!("the model has {count} {kind}s, at most {MAX_PORTS} are supported"));
    }
    Ok(())
}

/// A port of a model, if a host can take it. `dims` has for each dimension its size, if that is fixed, and its name,
/// if it has one.
pub(super) fn port<'a>(
    kind: &str,
    name: String,
    dtype: DType,
    dims: Option<impl ExactSizeIterator<Item = (Option<u32>, Option<&'a str>)>>,
) -> Result<Port, String> {
    let len = name.len();
    if len > MAX_NAME {
        return Err(format!("an {kind} has a name of {len} bytes, at most {MAX_NAME} are supported"));
    }
    let rank = dims.as_ref().map_or(0, ExactSizeIterator::len);
    if rank > MAX_RANK {
        return Err(format!("{kind} {name:?} has {rank} dimensions, at most {MAX_RANK} are supported"));
    }
    let dim = |(size, symbol): (Option<u32>, Option<&str>)| match (size, symbol) {
        (Some(size), _) => Dim::Fixed(size),
        (None, Some(symbol)) if !symbol.is_empty() && symbol.len() <= MAX_NAME => {
            Dim::Named(symbol.to_owned())
        }
        (None, _) => Dim::Any,
    };
    Ok(Port { name, dtype, dims: dims.map(|dims| dims.map(dim).collect()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(dims: &[(Option<u32>, Option<&'static str>)]) -> Result<Port, String> {
        port("input", "x".to_owned(), DType::F32, Some(dims.iter().copied()))
    }

    #[test]
    fn dimensions_are_fixed_named_or_free() {
        let dims = named(&[(None, Some("batch")), (Some(3), Some("three")), (None, Some("")), (None, None)]);
        let expected = [Dim::Named("batch".into()), Dim::Fixed(3), Dim::Any, Dim::Any];
        assert_eq!(dims.unwrap().dims.unwrap(), expected);
        assert!(named(&[(None, None); MAX_RANK + 1]).unwrap_err().contains("17 dimensions"));
        assert!(check_count("input", MAX_PORTS).is_ok());
        assert!(check_count("output", MAX_PORTS + 1).unwrap_err().contains("257 outputs"));
    }

    #[test]
    fn outputs_lie_behind_one_another_or_are_too_large() {
        let region = Region::create("outputs", 4096).unwrap();
        let port = named(&[]).unwrap();
        let mut outputs = Outputs::new(&region, 2);
        let four = |_| Ok(&[1, 2, 3, 4][..]);
        assert!(outputs.put(&port, DType::U8, &[4], four).is_ok());
        assert!(outputs.put(&port, DType::U8, &[0], |_| Err(Fault::engine("asked"))).is_ok());
        assert!(outputs.put(&port, DType::U8, &[2, 2], four).is_ok());
        let offsets: Vec<_> = outputs.placed.iter().map(|placed| placed.offset).collect();
        assert_eq!(offsets, [0, 64, 64]);
        assert_eq!(region.read(64, 4).unwrap(), [1, 2, 3, 4]);
        for shape in [&[1 << 33][..], &[-1], &[1 << 31, 1 << 31], &[4096]] {
            let bytes = vec![0; 4096];
            let failed = outputs.put(&port, DType::F64, shape, |_| Ok(&bytes)).err();
            assert!(matches!(failed, Some(Fault(Failure::TooLarge, _))), "{shape:?}");
        }
        let rank = outputs.put(&port, DType::U8, &[1; MAX_RANK + 1], four).err();
        assert!(matches!(rank, Some(Fault(Failure::Engine, _))));
    }

    #[test]
    fn inputs_outside_the_region_are_refused() {
        let region = Region::create("inputs", 4096).unwrap();
        let placed = |offset, dims: &[u32]| Placed { dtype: DType::F32, dims: dims.to_vec(), offset };
        let find = |placed: Placed, expected| {
            Input::all(&[placed], expected, &region).and_then(|mut inputs| inputs.next().transpose())
        };
        assert!(find(placed(64, &[2, 3]), 1).is_ok_and(|input| input.is_some_and(|i| i.len == 24)));
        assert!(find(placed(64, &[2, 3]), 2).is_err());
        for wrong in [placed(4, &[1]), placed(4096, &[1]), placed(0, &[1025]), placed(0, &[u32::MAX; 3])] {
            assert!(find(wrong, 1).is_err());
        }
    }
}
