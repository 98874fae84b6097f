//! Operators that look elements up, order them, or fold a dimension.

use super::{
    arrange::{listed_axes, whole},
    fact::{Fact, Rows},
    size::Size,
    walk::{At, Given},
};

pub(super) fn apply(at: &mut At<'_, '_, '_>) -> Option<Given> {
    if !at.node.domain().is_empty() {
        return None;
    }
    Some(match at.node.op {
        "Gather" => gather(at),
        "GatherElements" => gather_elements(at),
        "GatherND" => gather_nd(at),
        "OneHot" => one_hot(at),
        "Trilu" => trilu(at),
        "CumSum" => cum_sum(at),
        "TopK" => top_k(at),
        "ArgMax" | "ArgMin" => arg(at),
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean"
        | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => reduce(at),
        "Softmax" | "LogSoftmax" | "Hardmax" => softmax(at),
        "LpNormalization" => one_axis(at, -1, "normalises over the batch"),
        "MeanVarianceNormalization" => mean_variance(at),
        _ => return None,
    })
}

fn gather(at: &At<'_, '_, '_>) -> Given {
    let ((data, data_rows), (indices, index_rows)) = (at.shaped(0)?, at.shaped(1)?);
    at.all_known()?;
    let axis = at.axis(at.node.int("axis").unwrap_or(0), data.len())?;
    whole(&data_rows, axis, "picks rows of the batch")?;
    let rows = match (data_rows, index_rows) {
        (Rows::Free, Rows::Along(along)) => Rows::Along(axis + along),
        (Rows::Along(along), Rows::Free) if along < axis => Rows::Along(along),
        (Rows::Along(along), Rows::Free) => Rows::Along(along + indices.len() - 1),
        (Rows::Free, Rows::Free) => Rows::Free,
        _ => return Err("looks up rows by rows".to_owned()),
    };
    let out = [&data[..axis], &indices, &data[axis + 1..]].concat();
    // `along` of a scalar index is one less; with `indices.len()` of 0 and `along` above the axis it is at least 1.
    Ok(vec![Fact::new(out, rows)])
}

fn gather_elements(at: &At<'_, '_, '_>) -> Given {
    let ((data, data_rows), (indices, index_rows)) = (at.shaped(0)?, at.shaped(1)?);
    at.all_known()?;
    let axis = at.axis(at.node.int("axis").unwrap_or(0), data.len())?;
    whole(&data_rows, axis, "picks rows of the batch")?;
    match (data_rows, index_rows) {
        (Rows::Free, Rows::Free) => Ok(vec![Fact::new(indices, Rows::Free)]),
        (Rows::Along(one), Rows::Along(other)) if one == other && data[one] == indices[other] => {
            Ok(vec![Fact::new(indices, Rows::Along(one))])
        }
        _ => Err("looks up rows by what is no row".to_owned()),
    }
}

fn gather_nd(at: &At<'_, '_, '_>) -> Given {
    let ((data, data_rows), (indices, index_rows)) = (at.shaped(0)?, at.shaped(1)?);
    let batch_dims = at.node.int("batch_dims").unwrap_or(0);
    let (Some(width), lead) = (indices.last().and_then(Size::as_number), indices.len().saturating_sub(1))
    else {
        return Err("looks up by tuples of a length that is not known".to_owned());
    };
    let shared = usize::try_from(batch_dims).map_err(|_| "has an axis outside")?;
    let width = usize::try_from(width).map_err(|_| "has an axis outside")?;
    let rest = shared.checked_add(width).and_then(|from| data.get(from..)).ok_or("has an axis outside")?;
    let out = [&indices[..lead], rest].concat();
    let rows = match (data_rows, index_rows, shared) {
        (Rows::Mixed(reason), ..) | (_, Rows::Mixed(reason), _) => return Err(reason.to_string()),
        (Rows::Free, Rows::Free, _) => Rows::Free,
        (Rows::Free, Rows::Along(along), 0) if along < lead => Rows::Along(along),
        // Each row looks into itself: the first component is its own number.
        (Rows::Along(0), Rows::Tuple(along), 0)
            if along < lead && data[0].is_batch() && indices[along].is_batch() =>
        {
            Rows::Along(along)
        }
        (Rows::Along(0), Rows::Along(0), 1..) if lead > 0 => Rows::Along(0),
        _ => return Err("looks up rows by what is no row".to_owned()),
    };
    Ok(vec![Fact::new(out, rows)])
}

fn one_hot(at: &At<'_, '_, '_>) -> Given {
    let (mut shape, rows) = at.shaped(0)?;
    at.free_from(1)?;
    at.all_known()?;
    let axis = at.axis(at.node.int("axis").unwrap_or(-1), shape.len() + 1)?;
    let depth = at.input(1).and_then(Fact::numbers).filter(|depth| depth.len() == 1);
    let depth = depth.ok_or("has a depth that is not known")?;
    shape.insert(axis, Size::number(depth[0]));
    let rows = match rows {
        Rows::Along(along) if along >= axis => Rows::Along(along + 1),
        rows => rows,
    };
    Ok(vec![Fact::new(shape, rows)])
}

fn trilu(at: &At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    at.free_from(1)?;
    let plane = shape.len().saturating_sub(2);
    for axis in plane..shape.len() {
        whole(&rows, axis, "cuts a triangle out of the batch")?;
    }
    whole(&rows, usize::MAX, "")?;
    Ok(vec![Fact::new(shape, rows)])
}

fn cum_sum(at: &At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let axis = at.input(1).and_then(Fact::numbers).filter(|axis| axis.len() == 1);
    let axis = at.axis(axis.ok_or("has an axis that is not known")?[0], shape.len())?;
    whole(&rows, axis, "adds the rows of the batch up")?;
    Ok(vec![Fact::new(shape, rows)])
}

fn top_k(at: &mut At<'_, '_, '_>) -> Given {
    let (mut shape, rows) = at.shaped(0)?;
    at.free_from(1)?;
    let axis = at.axis(at.node.int("axis").unwrap_or(-1), shape.len())?;
    whole(&rows, axis, "orders the rows of the batch")?;
    let k = at.input(1).and_then(Fact::numbers).filter(|k| k.len() == 1);
    shape[axis] = match (k, at.node.int("k")) {
        (Some(k), _) => Size::number(k[0]),
        (None, Some(k)) => Size::number(k),
        (None, None) => at.walk.unknown(),
    };
    let fact = Fact::new(shape, rows);
    Ok(vec![fact.clone(), fact])
}

fn arg(at: &At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let axis = at.axis(at.node.int("axis").unwrap_or(0), shape.len())?;
    folded(&shape, &rows, &[axis], at.node.int("keepdims").unwrap_or(1) != 0)
}

fn reduce(at: &At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let axes = match listed_axes(at, 1)? {
        Some(axes) if !axes.is_empty() => at.axes(&axes, shape.len())?,
        _ if at.node.int("noop_with_empty_axes").unwrap_or(0) != 0 => Vec::new(),
        _ => (0..shape.len()).collect(),
    };
    folded(&shape, &rows, &axes, at.node.int("keepdims").unwrap_or(1) != 0)
}

/// One number for all along these dimensions.
fn folded(shape: &[Size], rows: &Rows, axes: &[usize], keep: bool) -> Given {
    for axis in axes {
        whole(rows, *axis, "folds the rows of the batch together")?;
    }
    whole(rows, usize::MAX, "")?;
    let mut out = Vec::with_capacity(shape.len());
    let mut place = None;
    for (axis, size) in shape.iter().enumerate() {
        if *rows == Rows::Along(axis) {
            place = Some(out.len());
        }
        if !axes.contains(&axis) {
            out.push(size.clone());
        } else if keep {
            out.push(Size::number(1));
        }
    }
    let rows = place.map_or_else(|| rows.clone(), Rows::Along);
    Ok(vec![Fact::new(out, rows)])
}

fn softmax(at: &At<'_, '_, '_>) -> Given {
    const WHAT: &str = "normalises over the batch";
    if at.walk.opset >= 13 {
        return one_axis(at, -1, WHAT);
    }
    // Earlier versions fold all dimensions from the axis on.
    from_axis(at, 1, 1, WHAT)
}

/// Operators that couple what lies along one dimension.
fn one_axis(at: &At<'_, '_, '_>, default: i64, what: &str) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let axis = at.axis(at.node.int("axis").unwrap_or(default), shape.len())?;
    whole(&rows, axis, what)?;
    Ok(vec![Fact::new(shape, rows)])
}

/// Operators that couple all dimensions from one on; gives the first output.
pub(super) fn from_axis(at: &At<'_, '_, '_>, default: i64, params: usize, what: &str) -> Given {
    let (shape, rows) = at.shaped(0)?;
    at.free_from(params)?;
    let first = at.axis(at.node.int("axis").unwrap_or(default), shape.len())?;
    for axis in first..shape.len() {
        whole(&rows, axis, what)?;
    }
    Ok(vec![Fact::new(shape, rows)])
}

fn mean_variance(at: &At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let axes = at.axes(at.node.ints("axes").unwrap_or(&[0, 2, 3]), shape.len())?;
    for axis in axes {
        whole(&rows, axis, "normalises over the batch")?;
    }
    Ok(vec![Fact::new(shape, rows)])
}
