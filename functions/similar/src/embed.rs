//! From the model's output to one vector a text, and their cosine.

/// What the model takes for a batch of texts: numbers in row-major order, shorter rows filled up with 0.
pub(crate) struct Batch {
    pub(crate) columns: usize,
    pub(crate) ids: Vec<i64>,
    pub(crate) mask: Vec<i64>,
}

impl Batch {
    pub(crate) fn new(rows: &[Vec<u16>]) -> Self {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut ids = vec![0; rows.len() * columns];
        let mut mask = ids.clone();
        for (row, tokens) in rows.iter().enumerate() {
            for (column, token) in tokens.iter().enumerate() {
                ids[row * columns + column] = i64::from(*token);
                mask[row * columns + column] = 1;
            }
        }
        Self { columns, ids, mask }
    }
}

/// The mean of a text's token vectors over its first `tokens` tokens, scaled to length 1.
pub(crate) fn mean(states: &[f32], width: usize, tokens: usize) -> Vec<f32> {
    let mut sum = vec![0f32; width];
    for state in states.chunks_exact(width).take(tokens) {
        for (sum, value) in sum.iter_mut().zip(state) {
            *sum += value;
        }
    }
    // The length does not depend on a common factor, so that the division by the count is not needed.
    let length = dot(&sum, &sum).sqrt().max(f32::MIN_POSITIVE);
    sum.iter().map(|value| value / length).collect()
}

/// The scalar product; for vectors of length 1 the cosine of their angle.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_up() {
        let batch = Batch::new(&[vec![101, 7, 102], vec![101, 102]]);
        assert_eq!(batch.columns, 3);
        assert_eq!(batch.ids, [101, 7, 102, 101, 102, 0]);
        assert_eq!(batch.mask, [1, 1, 1, 1, 1, 0]);
    }

    #[test]
    fn padding_does_not_count() {
        let states = [3.0, 0.0, 0.0, 4.0, 9.0, 9.0];
        assert_eq!(mean(&states, 2, 2), [0.6, 0.8]);
        assert_eq!(mean(&[0.0; 4], 2, 2), [0.0, 0.0]);
    }
}
