use std::rc::Rc;

use super::size::Size;

/// What is known of a value, whatever the batch.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    /// `None` where the walk lost it.
    pub(super) shape: Option<Vec<Size>>,
    pub(super) rows: Rows,
    /// The elements of a small tensor of integers with at most one dimension.
    pub(super) elements: Option<Vec<Option<Size>>>,
}

/// How a value depends on the rows of the batch.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rows {
    /// Not at all: it is the same beside any rows.
    Free,
    /// Along this dimension, which is the batch or a multiple of it with whole rows one after another. What
    /// belongs to a row depends on nothing but this row.
    Along(usize),
    /// The elements are the number of the row, along this dimension: good only for finding the row again.
    Number(usize),
    /// Index tuples in the last dimension; the first component is the row's number along this dimension, the
    /// others are free or the row's own.
    Tuple(usize),
    /// In some other way; says which.
    Mixed(Rc<str>),
}

impl Fact {
    pub(super) fn new(shape: Vec<Size>, rows: Rows) -> Self {
        Self { shape: Some(shape), rows, elements: None }
    }

    pub(super) fn lost(reason: &Rc<str>) -> Self {
        Self { shape: None, rows: Rows::Mixed(Rc::clone(reason)), elements: None }
    }

    /// Integers that the walk can follow. `scalar` or a list.
    pub(super) fn of_elements(elements: Vec<Option<Size>>, scalar: bool, otherwise: &Rows) -> Self {
        let shape = if scalar { Vec::new() } else { vec![len(elements.len())] };
        let known = elements.iter().all(|element| element.as_ref().is_some_and(|size| !size.has_batch()));
        let rows = if known { Rows::Free } else { otherwise.clone() };
        Self { shape: Some(shape), rows, elements: Some(elements) }
    }

    pub(super) fn is_free(&self) -> bool {
        self.rows == Rows::Free
    }

    pub(super) fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The elements, where all are plain numbers.
    pub(super) fn numbers(&self) -> Option<Vec<i64>> {
        self.elements.as_ref()?.iter().map(|element| element.as_ref()?.as_number()).collect()
    }
}

pub(super) fn len(len: usize) -> Size {
    Size::number(i64::try_from(len).unwrap_or(i64::MAX))
}
