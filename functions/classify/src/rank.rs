//! From the model's numbers to names and probabilities.

use serde::Serialize;

include!(concat!(env!("OUT_DIR"), "/labels.rs"));

/// One class of the answer.
#[derive(Serialize)]
pub(crate) struct Hit {
    pub(crate) label: &'static str,
    /// Its number among ImageNet's classes.
    pub(crate) index: usize,
    /// Its probability, 0 to 1.
    pub(crate) score: f32,
}

/// The best `count` classes, best first; `None` if there is not one number for each class.
pub(crate) fn best(logits: &[f32], count: usize) -> Option<Vec<Hit>> {
    if logits.len() != LABELS.len() {
        return None;
    }
    // Softmax, shifted by the greatest so that nothing overflows.
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - greatest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    let mut order: Vec<usize> = (0..powers.len()).collect();
    order.sort_by(|a, b| powers[*b].total_cmp(&powers[*a]));
    let hit = |index: &usize| Hit { label: LABELS[*index], index: *index, score: powers[*index] / sum };
    Some(order.iter().take(count).map(hit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_comes_first() {
        let mut logits = vec![-1000.0; 1000];
        logits[281] = 900.0;
        logits[7] = 900.0 - 2f32.ln();
        let hits = best(&logits, 2).expect("enough");
        assert_eq!((hits[0].index, hits[1].index), (281, 7));
        assert!((hits[0].score - 2.0 / 3.0).abs() < 1e-4);
        assert!(hits[0].label.starts_with("tabby"));
        assert!(best(&logits[1..], 5).is_none());
    }
}
