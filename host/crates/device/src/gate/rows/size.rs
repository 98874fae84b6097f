//! Sizes that are not known before a run: products of a number, the batch size, and other unknowns.

/// `coefficient * batch^0|1 * unknown * ...`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Size {
    coefficient: i64,
    batch: bool,
    /// Sorted numbers of unknowns; none of them depends on the batch.
    unknowns: Vec<u32>,
}

/// The most factors that are followed.
const MAX_FACTORS: usize = 8;

impl Size {
    pub(super) fn number(coefficient: i64) -> Self {
        Self { coefficient, batch: false, unknowns: Vec::new() }
    }

    pub(super) fn batch() -> Self {
        Self { coefficient: 1, batch: true, unknowns: Vec::new() }
    }

    pub(super) fn unknown(number: u32) -> Self {
        Self { coefficient: 1, batch: false, unknowns: vec![number] }
    }

    /// The plain number, if it is one.
    pub(super) fn as_number(&self) -> Option<i64> {
        (!self.batch && self.unknowns.is_empty()).then_some(self.coefficient)
    }

    pub(super) fn is(&self, number: i64) -> bool {
        self.as_number() == Some(number)
    }

    pub(super) fn has_batch(&self) -> bool {
        self.batch
    }

    pub(super) fn is_batch(&self) -> bool {
        *self == Self::batch()
    }

    /// The unknown, if it is exactly one.
    pub(super) fn as_unknown(&self) -> Option<u32> {
        match (self.coefficient, self.batch, self.unknowns.as_slice()) {
            (1, false, [unknown]) => Some(*unknown),
            _ => None,
        }
    }

    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        let coefficient = self.coefficient.checked_mul(other.coefficient)?;
        let mut unknowns = self.unknowns.clone();
        unknowns.extend(&other.unknowns);
        unknowns.sort_unstable();
        let fits = unknowns.len() <= MAX_FACTORS && !(self.batch && other.batch);
        fits.then_some(Self { coefficient, batch: self.batch || other.batch, unknowns })
    }

    /// The exact quotient.
    pub(super) fn over(&self, other: &Self) -> Option<Self> {
        let coefficient = self.coefficient.checked_div(other.coefficient)?;
        if coefficient.checked_mul(other.coefficient)? != self.coefficient || (other.batch && !self.batch) {
            return None;
        }
        let mut unknowns = self.unknowns.clone();
        for unknown in &other.unknowns {
            let index = unknowns.iter().position(|own| own == unknown)?;
            unknowns.remove(index);
        }
        Some(Self { coefficient, batch: self.batch && !other.batch, unknowns })
    }

    pub(super) fn product<'s>(sizes: impl IntoIterator<Item = &'s Size>) -> Option<Size> {
        sizes.into_iter().try_fold(Size::number(1), |product, size| product.times(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_quotients_are_exact() {
        let (b, s) = (Size::batch(), Size::unknown(1));
        let all = Size::product([&b, &s, &Size::number(384)]).unwrap();
        assert_eq!(
            all.over(&b).unwrap().over(&Size::number(32)).unwrap(),
            s.times(&Size::number(12)).unwrap()
        );
        assert_eq!(all.over(&Size::unknown(2)), None);
        assert_eq!(all.over(&Size::number(5)), None);
        assert_eq!(all.over(&Size::number(0)), None);
        assert_eq!(Size::number(i64::MIN).over(&Size::number(-1)), None);
        assert_eq!(b.times(&b), None);
        assert!(s.times(&Size::number(1)).unwrap().as_unknown() == Some(1));
    }
}
