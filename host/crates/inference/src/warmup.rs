use std::time::Duration;

use tokio::time::Instant;

use crate::{BackendError, Batch, BatchEntry, Dim, Port, Signature, Tensor, lane::Lane, registry::Model};

/// The longest warm-up; the device is ended then, as by a caller's deadline.
const LONGEST: Duration = Duration::from_secs(2);
/// The most bytes of one input; a model that takes no less is not warmed up.
const MAX_BYTES: usize = 64 << 20;

/// Zeros of the smallest shapes that a model takes; none where that cannot be told.
pub(crate) fn zeros(signature: &Signature, rows: u32) -> Option<Vec<Tensor>> {
    signature.inputs.iter().map(|port| zero(port, rows)).collect()
}

fn zero(port: &Port, rows: u32) -> Option<Tensor> {
    let size = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => *size,
        Dim::Named(_) | Dim::Any if axis == 0 => rows,
        Dim::Named(_) | Dim::Any => 1,
    };
    let dims: Vec<u32> = port.dims.as_ref()?.iter().enumerate().map(size).collect();
    let bytes = port.dtype.bytes(&dims).filter(|bytes| *bytes <= MAX_BYTES)?;
    Tensor::new(port.dtype, dims, vec![0; bytes]).ok()
}

impl Lane {
    /// Runs a model once that was just loaded. What comes of it does not matter: a model may refuse zeros.
    pub(crate) fn run_once(&mut self, model: &Model, signature: &Signature) {
        let Some(inputs) = zeros(signature, 1) else { return };
        let key = &model.spec.key;
        let run = self.device.number();
        self.device.watch_run(run, Instant::now() + LONGEST);
        let entries = [BatchEntry { tenant: String::new(), inputs }];
        match self.backend.run(Batch { run, model: key, entries: &entries }) {
            Ok(output) => self.device.ledger.settle(output.busy_ns, 0),
            Err(error) => {
                self.device.ledger.settle(error.busy_ns(), 0);
                tracing::debug!(model = %key, %error, "warm-up failed");
                if let BackendError::Lost { message, .. } = &error {
                    // It gets another chance with a real input, where a death counts.
                    self.lost(model, message, false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn zeros_of_the_smallest_shape() {
        let port = |dims: Option<Vec<Dim>>| Port { name: "x".into(), dtype: DType::F32, dims };
        let signature = |dims| Signature { inputs: vec![port(dims)], outputs: vec![] };
        let image = vec![Dim::Named("batch".into()), Dim::Fixed(3), Dim::Any];
        let tensors = zeros(&signature(Some(image)), 4).unwrap();
        assert_eq!(tensors[0].dims(), [4, 3, 1]);
        assert!(zeros(&signature(None), 1).is_none());
        assert!(zeros(&signature(Some(vec![Dim::Fixed(1 << 30)])), 1).is_none());
        assert_eq!(zeros(&signature(Some(vec![])), 1).unwrap()[0].data().len(), 4);
    }
}
