//! From the model's scores to the answer, as magika 1.0.3 decides in its mode "high confidence".

use crate::features::beginning;
use crate::kinds::{BLOCK, CLASSES, EMPTY, ENOUGH, KINDS, TXT, UNKNOWN};

/// The answer for bytes that are too few for the model; `None` if it must be asked.
pub(crate) fn without_model(bytes: &[u8]) -> Option<usize> {
    if bytes.is_empty() {
        return Some(EMPTY);
    }
    if bytes.len() >= ENOUGH && beginning(bytes).len() >= ENOUGH {
        return None;
    }
    let first = &bytes[..bytes.len().min(BLOCK)];
    Some(if std::str::from_utf8(first).is_ok() { TXT } else { UNKNOWN })
}

/// The answer and the best score; `None` if there is not one score for each class.
pub(crate) fn by_scores(scores: &[f32]) -> Option<(usize, f32)> {
    if scores.len() != CLASSES.len() {
        return None;
    }
    let best = CLASSES.iter().zip(scores).reduce(|best, next| if next.1 > best.1 { next } else { best });
    let (class, &score) = best?;
    let kind = if f64::from(score) >= class.threshold {
        class.output
    } else if KINDS[class.output].is_text {
        TXT
    } else {
        UNKNOWN
    };
    Some((kind, score))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(label: &str, score: f32) -> &'static str {
        let mut scores = vec![0.0; CLASSES.len()];
        let class = CLASSES.iter().position(|c| KINDS[c.output].label == label).expect("a class");
        scores[class] = score;
        KINDS[by_scores(&scores).expect("enough scores").0].label
    }

    #[test]
    fn thresholds_differ() {
        assert_eq!(scored("markdown", 0.76), "markdown");
        assert_eq!(scored("markdown", 0.74), "txt");
        assert_eq!(scored("png", 0.51), "png");
        assert_eq!(scored("png", 0.49), "unknown");
    }

    #[test]
    fn overwritten_and_odd() {
        // "randombytes" is answered as "unknown", "randomtxt" as "txt".
        assert!(CLASSES.iter().filter(|c| c.output == UNKNOWN).count() == 1);
        assert!(by_scores(&[0.5; 3]).is_none());
    }
}
