//! Several entries as one: rows one after another on the way in, and apart again on the way out.

use wasmeter_inference::{BatchEntry, Tensor};

/// How many rows each entry has.
pub(super) struct Rows(Vec<u32>);

impl Rows {
    /// `None` where the entries cannot be laid together: other types, other dimensions beyond the first, an entry
    /// whose inputs do not have equally many rows, or more rows than a dimension can say.
    pub(super) fn of(entries: &[BatchEntry]) -> Option<Self> {
        let (first, _) = entries.split_first()?;
        let mut rows = Vec::with_capacity(entries.len());
        for entry in entries {
            let (count, _) = entry.inputs.first()?.dims().split_first()?;
            let fits = entry.inputs.len() == first.inputs.len()
                && entry.inputs.iter().zip(&first.inputs).all(|(own, first)| {
                    own.dtype() == first.dtype()
                        && own.dims().first() == Some(count)
                        && own.dims().get(1..) == first.dims().get(1..)
                });
            if !fits {
                return None;
            }
            rows.push(*count);
        }
        rows.iter().try_fold(0u32, |total, rows| total.checked_add(*rows))?;
        Some(Self(rows))
    }

    pub(super) fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    /// Each entry's rows of all outputs. `None` where they are not as many as went in.
    pub(super) fn split(&self, outputs: &[Tensor]) -> Option<Vec<Vec<Tensor>>> {
        if outputs.iter().any(|tensor| tensor.dims().first() != Some(&self.total())) {
            return None;
        }
        let total = usize::try_from(self.total()).ok()?;
        let mut at = 0;
        let mut entries = Vec::with_capacity(self.0.len());
        for rows in &self.0 {
            let count = usize::try_from(*rows).ok()?;
            let part = |tensor: &Tensor| {
                let row = tensor.data().len().checked_div(total).unwrap_or(0);
                let mut dims = tensor.dims().to_vec();
                *dims.first_mut()? = *rows;
                let data = tensor.data().slice(row * at..row * (at + count));
                Tensor::new(tensor.dtype(), dims, data).ok()
            };
            entries.push(outputs.iter().map(part).collect::<Option<_>>()?);
            at += count;
        }
        Some(entries)
    }
}

#[cfg(test)]
mod tests {
    use wasmeter_inference::DType;

    use super::*;

    fn entry(shapes: &[&[u32]]) -> BatchEntry {
        let tensor = |dims: &&[u32]| {
            let len = dims.iter().product::<u32>() as usize;
            Tensor::new(DType::U8, dims.to_vec(), vec![1; len]).unwrap()
        };
        BatchEntry { tenant: "t".into(), inputs: shapes.iter().map(tensor).collect() }
    }

    #[test]
    fn only_equal_entries_are_laid_together() {
        let rows =
            Rows::of(&[entry(&[&[2, 3], &[2]]), entry(&[&[1, 3], &[1]]), entry(&[&[0, 3], &[0]])]).unwrap();
        assert_eq!(rows.total(), 3);
        for other in
            [&[&[2, 4][..], &[2]][..], &[&[2, 3], &[1]], &[&[2, 3]], &[&[2, 3, 1], &[2]], &[&[], &[]]]
        {
            assert!(Rows::of(&[entry(&[&[2, 3], &[2]]), entry(other)]).is_none(), "{other:?}");
        }
        assert!(Rows::of(&[entry(&[])]).is_none());
    }

    #[test]
    fn rows_come_apart_in_order() {
        let rows = Rows::of(&[entry(&[&[2, 1]]), entry(&[&[0, 1]]), entry(&[&[1, 1]])]).unwrap();
        let output = Tensor::new(DType::U8, vec![3, 2], vec![1, 2, 3, 4, 5, 6]).unwrap();
        let parts: Vec<_> =
            rows.split(&[output]).unwrap().into_iter().map(|mut part| part.remove(0)).collect();
        assert_eq!(
            parts.iter().map(|part| part.data().to_vec()).collect::<Vec<_>>(),
            [vec![1, 2, 3, 4], vec![], vec![5, 6]]
        );
        assert_eq!(parts[1].dims(), [0, 2]);
        let other = Tensor::new(DType::U8, vec![2, 2], vec![1, 2, 3, 4]).unwrap();
        let scalar = Tensor::new(DType::U8, vec![], vec![1]).unwrap();
        assert!(rows.split(&[other]).is_none() && rows.split(&[scalar]).is_none());
    }
}
