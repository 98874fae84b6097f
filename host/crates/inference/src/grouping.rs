use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use parking_lot::RwLock;

use crate::{
    Batching, BatchingOptions, Dim, Port, Signature, Tensor,
    calibration::{Calibration, Shape},
};

/// How the entries of one model version are batched, and what is known of their costs.
pub(crate) struct Grouping {
    options: BatchingOptions,
    /// What the gate found at the last load.
    found: RwLock<Option<Arc<Found>>>,
    /// The most rows of a batch: lowered where the device has no room for more.
    limit: AtomicU32,
    pub(crate) calibration: Calibration,
}

struct Found {
    /// Why entries are never batched, for those who ask.
    off: Option<String>,
    /// Why they could not be, whatever the card says.
    coupled: Option<String>,
    pad: Option<PadAxes>,
}

/// Where the padded dimension is.
struct PadAxes {
    inputs: Vec<Vec<usize>>,
    outputs: Vec<Vec<usize>>,
}

/// What an entry's inputs mean for batching.
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) rows: u32,
    /// What must be equal in a batch: all dimensions but the rows, after padding. `None` runs alone.
    pub(crate) group: Option<Box<[u32]>>,
    pub(crate) pad: Option<Padding>,
}

/// An entry's padding from one size to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Padding {
    from: u32,
    to: u32,
}

impl Grouping {
    pub(crate) fn new(options: BatchingOptions) -> Self {
        let limit = AtomicU32::new(options.max_batch.max(1));
        Self { options, found: RwLock::default(), limit, calibration: Calibration::default() }
    }

    /// The model was loaded.
    pub(crate) fn loaded(&self, signature: &Signature, batching: &Batching) {
        let off = match batching {
            Batching::Rows if self.options.max_batch > 1 => None,
            Batching::Rows => Some("the model's card says max-batch 1".to_owned()),
            Batching::Off(why) => Some(why.clone()),
        };
        let coupled = match batching {
            Batching::Rows => None,
            Batching::Off(why) => Some(why.clone()),
        };
        let pad = if off.is_none() { self.pad_axes(signature) } else { None };
        *self.found.write() = Some(Arc::new(Found { off, coupled, pad }));
    }

    /// Why entries are not batched; `None` where they are, or where the model was never loaded.
    pub(crate) fn off(&self) -> Option<String> {
        let found = self.found.read();
        let found = found.as_ref()?;
        found.off.clone().or_else(|| {
            (self.max_batch() < 2).then(|| "batches of this model failed on the device".to_owned())
        })
    }

    /// Why rows of several entries cannot share a run; `None` where they can, or where the model was never loaded.
    pub(crate) fn coupled(&self) -> Option<String> {
        self.found.read().as_ref()?.coupled.clone()
    }

    pub(crate) fn options(&self) -> &BatchingOptions {
        &self.options
    }

    pub(crate) fn max_batch(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Batches of so many rows do not work: smaller ones from now on.
    pub(crate) fn lower(&self, rows: u32) {
        self.limit.fetch_min((rows / 2).max(1), Ordering::Relaxed);
    }

    /// The model gets another chance, and its batches too.
    pub(crate) fn forgive(&self) {
        self.limit.store(self.options.max_batch.max(1), Ordering::Relaxed);
    }

    /// Inputs must fit the signature, in its order.
    pub(crate) fn plan(&self, inputs: &[Tensor]) -> Plan {
        let mut dims = Vec::with_capacity(inputs.len() * 5);
        for input in inputs {
            dims.push(u32::try_from(input.dims().len()).unwrap_or(u32::MAX));
            dims.extend_from_slice(input.dims());
        }
        let shape = Shape(dims.into());
        let found = self.found.read().clone();
        let rows = inputs.first().and_then(|input| input.dims().first()).copied();
        let same = |rows: u32| inputs.iter().all(|input| input.dims().first() == Some(&rows));
        let (Some(found), Some(rows)) =
            (found.filter(|found| found.off.is_none()), rows.filter(|r| same(*r)))
        else {
            return Plan { shape, rows: 1, group: None, pad: None };
        };
        let pad = found.pad.as_ref().and_then(|axes| self.padding(axes, inputs));
        let mut group = Vec::with_capacity(shape.0.len());
        for (index, input) in inputs.iter().enumerate() {
            group.push(u32::try_from(input.dims().len()).unwrap_or(u32::MAX));
            for (axis, size) in input.dims().iter().enumerate().skip(1) {
                let padded = found.pad.as_ref().is_some_and(|axes| axes.inputs[index].contains(&axis));
                group.push(pad.filter(|_| padded).map_or(*size, |pad| pad.to));
            }
        }
        Plan { shape, rows, group: Some(group.into()), pad }
    }

    /// The size that this entry is filled up to. Sizes that differ between inputs are the engine's to refuse.
    fn padding(&self, axes: &PadAxes, inputs: &[Tensor]) -> Option<Padding> {
        let sizes = inputs.iter().zip(&axes.inputs);
        let mut sizes = sizes.flat_map(|(input, axes)| axes.iter().map(|axis| input.dims()[*axis]));
        let from = sizes.next()?;
        if sizes.any(|size| size != from) {
            return None;
        }
        let to = self.options.pad.as_ref()?.to.iter().copied().find(|to| *to >= from)?;
        Some(Padding { from, to })
    }

    /// Only where every other dimension of every output is known: else what to cut off is not.
    fn pad_axes(&self, signature: &Signature) -> Option<PadAxes> {
        let name = &self.options.pad.as_ref()?.dimension;
        let axes = |port: &Port| -> Option<Vec<usize>> {
            let dims = port.dims.as_ref()?.iter().enumerate().skip(1);
            Some(
                dims.filter(|(_, dim)| matches!(dim, Dim::Named(n) if n == name))
                    .map(|(axis, _)| axis)
                    .collect(),
            )
        };
        let known = |port: &Port| {
            port.dims.as_ref().is_some_and(|dims| dims.iter().skip(1).all(|dim| !matches!(dim, Dim::Any)))
        };
        if !signature.outputs.iter().all(known) {
            return None;
        }
        let inputs = signature.inputs.iter().map(axes).collect::<Option<Vec<_>>>()?;
        let outputs = signature.outputs.iter().map(axes).collect::<Option<Vec<_>>>()?;
        inputs.iter().any(|axes| !axes.is_empty()).then_some(PadAxes { inputs, outputs })
    }

    /// The inputs filled up.
    pub(crate) fn pad(&self, padding: Padding, inputs: &[Tensor]) -> Vec<Tensor> {
        self.resize(|axes| &axes.inputs, padding.to, padding.from, inputs)
    }

    /// The outputs cut back.
    pub(crate) fn cut(&self, padding: Padding, outputs: &[Tensor]) -> Vec<Tensor> {
        self.resize(|axes| &axes.outputs, padding.from, padding.to, outputs)
    }

    fn resize(
        &self,
        axes: impl Fn(&PadAxes) -> &Vec<Vec<usize>>,
        to: u32,
        from: u32,
        tensors: &[Tensor],
    ) -> Vec<Tensor> {
        let found = self.found.read().clone();
        let Some(pad) = found.as_ref().and_then(|found| found.pad.as_ref()) else { return tensors.to_vec() };
        let each = tensors.iter().zip(axes(pad));
        let resized = each.map(|(tensor, axes)| {
            axes.iter().fold(tensor.clone(), |tensor, axis| {
                let due = tensor.dims().get(*axis) == Some(&from);
                if due { tensor.resized(*axis, to) } else { tensor }
            })
        });
        resized.collect()
    }
}
