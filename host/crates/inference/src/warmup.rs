use std::time::Duration;

use tokio::time::Instant;

use crate::{
    BackendError, Batch, BatchEntry, Dim, Pad, Port, Signature, Tensor, lane::Lane, registry::Model,
};

/// The longest run; the device is ended then, as by a caller's deadline.
const LONGEST: Duration = Duration::from_secs(2);
/// After this long no further run begins: the device has other models to serve.
const ENOUGH: Duration = Duration::from_millis(500);
/// Runs of each shape. The first one still allocates and pays for cold caches: it teaches nothing.
const RUNS: u32 = 4;
/// The most bytes of one input; a model that takes no less is not warmed up.
const MAX_BYTES: usize = 64 << 20;

/// Zeros of the smallest shapes that a model takes, for each size of the padded dimension; none where they cannot be
/// told.
fn shapes(signature: &Signature, pad: Option<&Pad>) -> Vec<Vec<Tensor>> {
    let sizes = pad.map_or(&[1][..], |pad| &pad.to);
    let dimension = pad.map(|pad| pad.dimension.as_str());
    let zeros = |size: &u32| signature.inputs.iter().map(|port| zero(port, dimension, *size)).collect();
    sizes.iter().filter_map(zeros).collect()
}

fn zero(port: &Port, padded: Option<&str>, to: u32) -> Option<Tensor> {
    let size = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => *size,
        // What is padded is never the rows.
        Dim::Named(name) if axis > 0 && padded == Some(name) => to,
        Dim::Named(_) | Dim::Any => 1,
    };
    let dims: Vec<u32> = port.dims.as_ref()?.iter().enumerate().map(size).collect();
    let bytes = port.dtype.bytes(&dims).filter(|bytes| *bytes <= MAX_BYTES)?;
    Tensor::new(port.dtype, dims, vec![0; bytes]).ok()
}

impl Lane {
    /// Runs a model a few times that was just loaded, and keeps what its shapes cost. What comes of it does not matter: a
    /// model may refuse zeros.
    pub(crate) fn warm_up(&mut self, model: &Model, signature: &Signature) {
        let began = Instant::now();
        for inputs in shapes(signature, model.spec.batching.pad.as_ref()) {
            let plan = model.grouping.plan(&inputs);
            for nth in 0..RUNS {
                let start = Instant::now();
                let Some(busy_ns) = self.run_once(model, &inputs) else { return };
                if nth > 0 {
                    model.grouping.calibration.alone(&plan.shape, busy_ns);
                    if let Some(group) = &plan.group {
                        model.grouping.calibration.ran(group, plan.rows, start.elapsed());
                    }
                }
                if began.elapsed() > ENOUGH {
                    return;
                }
            }
        }
    }

    /// The busy time of one run, which is the platform's; none where it failed.
    fn run_once(&mut self, model: &Model, inputs: &[Tensor]) -> Option<u64> {
        let key = &model.spec.key;
        let run = self.device.number();
        self.device.watch_run(run, Instant::now() + LONGEST);
        let entries = [BatchEntry { tenant: String::new(), inputs: inputs.to_vec() }];
        let result = self.backend.run(Batch { run, model: key, entries: &entries });
        let busy_ns = result.as_ref().map_or_else(BackendError::busy_ns, |output| output.busy_ns);
        self.device.ledger.settle(busy_ns, 0);
        let Err(error) = result else { return Some(busy_ns) };
        tracing::debug!(model = %key, %error, "warm-up failed");
        if let BackendError::Lost { message, .. } = &error {
            // It gets another chance with a real input, where a death counts.
            self.lost(model, message, false);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn zeros_of_the_smallest_shapes() {
        let port = |dims: Option<Vec<Dim>>| Port { name: "x".into(), dtype: DType::F32, dims };
        let signature = |dims| Signature { inputs: vec![port(dims)], outputs: vec![] };
        let named = |name: &str| Dim::Named(name.into());
        let image = vec![named("batch"), Dim::Fixed(3), Dim::Any];
        let found = shapes(&signature(Some(image)), None);
        assert_eq!((found.len(), found[0][0].dims()), (1, &[1, 3, 1][..]));
        let pad = Pad { dimension: "sequence".into(), to: vec![16, 32] };
        let text = signature(Some(vec![named("sequence"), named("sequence")]));
        let found: Vec<_> =
            shapes(&text, Some(&pad)).iter().map(|inputs| inputs[0].dims().to_vec()).collect();
        assert_eq!(found, [[1, 16], [1, 32]], "rows are not padded");
        assert!(shapes(&signature(None), None).is_empty());
        assert!(shapes(&signature(Some(vec![Dim::Fixed(1 << 30)])), None).is_empty());
        assert_eq!(shapes(&signature(Some(vec![])), None)[0][0].data().len(), 4);
    }
}
