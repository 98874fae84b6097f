//! Figures of several rounds.

use std::fmt;

/// Median, smallest and largest.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    median: f64,
    least: f64,
    most: f64,
    digits: usize,
}

impl Figure {
    pub(crate) fn of(rounds: impl IntoIterator<Item = f64>, digits: usize) -> Self {
        let mut all: Vec<f64> = rounds.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(all.len() / 2), least: at(0), most: at(all.len().saturating_sub(1)), digits }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, least, most, digits } = self;
        write!(f, "{median:>10.digits$} ({least:.digits$} to {most:.digits$})")
    }
}
