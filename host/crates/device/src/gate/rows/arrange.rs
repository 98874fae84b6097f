//! Operators that work element by element, and those that only move elements.

use super::{
    fact::{Fact, Rows},
    size::Size,
    walk::{At, Given},
};

/// Each element of the output comes from the elements at its place.
const ELEMENTWISE: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
];
/// The same, of `com.microsoft`.
const ELEMENTWISE_MS: &[&str] = &["BiasGelu", "FastGelu", "Gelu", "QuickGelu"];

pub(super) fn apply(at: &mut At<'_, '_, '_>) -> Option<Given> {
    let (domain, op) = (at.node.domain(), at.node.op);
    if domain == "com.microsoft" && ELEMENTWISE_MS.contains(&op) {
        return Some(elementwise(at));
    }
    if !domain.is_empty() {
        return None;
    }
    if ELEMENTWISE.contains(&op) {
        return Some(elementwise(at));
    }
    Some(match op {
        "Identity" => same(at, true),
        "Cast" => {
            let integer = matches!(at.node.int("to"), Some(6 | 7));
            same(at, integer)
        }
        "Dropout" => dropout(at),
        "Reshape" => reshape(at),
        "Flatten" => flatten(at),
        "Squeeze" => squeeze(at),
        "Unsqueeze" => unsqueeze(at),
        "Transpose" => transpose(at),
        "Concat" => concat(at),
        "Split" => split(at),
        "Slice" => slice(at),
        "Expand" => expand(at),
        "Tile" => tile(at),
        "Pad" => pad(at),
        _ => return None,
    })
}

/// Where rows are after dimensions have moved.
fn moved(rows: &Rows, to: impl Fn(usize) -> Option<usize>) -> Rows {
    let there = |axis: usize, rows: fn(usize) -> Rows| match to(axis) {
        Some(axis) => rows(axis),
        None => Rows::Mixed("the batch dimension is lost".into()),
    };
    match rows {
        Rows::Along(axis) => there(*axis, Rows::Along),
        Rows::Number(axis) => there(*axis, Rows::Number),
        Rows::Tuple(_) => Rows::Mixed("index tuples of rows are moved".into()),
        rows => rows.clone(),
    }
}

fn elementwise(at: &mut At<'_, '_, '_>) -> Given {
    let mut shape: Vec<Size> = Vec::new();
    let mut inputs = Vec::new();
    for index in 0..at.node.inputs.len() {
        if at.input(index).is_none() {
            continue;
        }
        let (other, rows) = at.shaped(index)?;
        shape = stretched(at, &shape, &other)?;
        inputs.push((other.len(), rows));
    }
    let mut rows = Rows::Free;
    for (rank, own) in inputs {
        // Shapes are laid beside each other from their ends.
        let shift = shape.len() - rank;
        rows = match (rows, own) {
            (Rows::Mixed(reason), _) | (_, Rows::Mixed(reason)) => Rows::Mixed(reason),
            (_, Rows::Number(_) | Rows::Tuple(_)) => {
                Rows::Mixed(format!("{} computes with the number of the row", at.node.shown()).into())
            }
            (Rows::Free, Rows::Along(axis)) => Rows::Along(axis + shift),
            (Rows::Along(one), Rows::Along(axis)) if one != axis + shift => {
                return Err("lays every row beside every other".to_owned());
            }
            (rows, _) => rows,
        };
    }
    Ok(vec![Fact::new(shape, rows)])
}

pub(super) fn stretched(at: &mut At<'_, '_, '_>, a: &[Size], b: &[Size]) -> Result<Vec<Size>, String> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let shift = long.len() - short.len();
    let mut shape = long.to_vec();
    for (size, other) in shape[shift..].iter_mut().zip(short) {
        *size = at.walk.stretch(size, other)?;
    }
    Ok(shape)
}

fn same(at: &At<'_, '_, '_>, keeps_numbers: bool) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let rows = match rows {
        Rows::Number(_) | Rows::Tuple(_) if !keeps_numbers => {
            Rows::Mixed(format!("{} computes with the number of the row", at.node.shown()).into())
        }
        rows => rows,
    };
    Ok(vec![Fact::new(shape, rows)])
}

fn dropout(at: &mut At<'_, '_, '_>) -> Given {
    let training = at.input(2).map(Fact::numbers);
    if training.is_some_and(|training| training.is_none_or(|value| value != [0])) {
        return Err("is random".to_owned());
    }
    same(at, false)
}

fn reshape(at: &mut At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let target = at.input(1).and_then(|fact| fact.elements.clone()).ok_or("reshapes to what is not known")?;
    let keep_zero = at.node.int("allowzero").unwrap_or(0) == 0;
    let mut out = Vec::with_capacity(target.len());
    let mut hole = None;
    for (index, size) in target.into_iter().enumerate() {
        let size = size.ok_or("reshapes to what is not known")?;
        out.push(match size.as_number() {
            Some(-1) if hole.is_none() => {
                hole = Some(index);
                Size::number(1)
            }
            Some(0) if keep_zero => shape.get(index).cloned().ok_or("reshapes to what is not known")?,
            Some(number) if number <= 0 => return Err("reshapes to what is not known".to_owned()),
            _ => size,
        });
    }
    let unfit = || "fixes the size of the batch in a reshape, or hides it".to_owned();
    let total = Size::product(&shape).ok_or_else(unfit)?;
    let rest = Size::product(&out).ok_or_else(unfit)?;
    match hole {
        Some(hole) => out[hole] = total.over(&rest).ok_or_else(unfit)?,
        None if total != rest => return Err(unfit()),
        None => {}
    }
    let rows = regrouped(&shape, &out, &rows)?;
    Ok(vec![Fact::new(out, rows)])
}

/// Rows after their elements were grouped anew: they stay whole and in order where the batch is again the
/// leading part of a dimension with as many elements before it.
fn regrouped(from: &[Size], to: &[Size], rows: &Rows) -> Result<Rows, String> {
    let axis = match rows {
        Rows::Free | Rows::Mixed(_) => return Ok(rows.clone()),
        Rows::Number(_) | Rows::Tuple(_) => return Err("regroups the numbers of rows".to_owned()),
        Rows::Along(axis) => *axis,
    };
    let Some(at) = to.iter().position(Size::has_batch) else { return Err("loses the batch".to_owned()) };
    let (before, after) = (Size::product(&from[..axis]), Size::product(&to[..at]));
    if before.is_none() || before != after {
        return Err("mixes the batch with another dimension".to_owned());
    }
    Ok(Rows::Along(at))
}

fn flatten(at: &At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let axis = at.node.int("axis").unwrap_or(1);
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
    let axis = usize::try_from(axis).ok().filter(|axis| *axis <= shape.len()).ok_or("has an axis outside")?;
    let (head, tail) = shape.split_at(axis);
    let unfit = || "makes a dimension that is too complicated".to_owned();
    let out = vec![Size::product(head).ok_or_else(unfit)?, Size::product(tail).ok_or_else(unfit)?];
    let rows = regrouped(&shape, &out, &rows)?;
    Ok(vec![Fact::new(out, rows)])
}

/// Axes by attribute or, in later versions, by input.
pub(super) fn listed_axes(at: &At<'_, '_, '_>, input: usize) -> Result<Option<Vec<i64>>, String> {
    match (at.node.ints("axes"), at.input(input)) {
        (Some(axes), _) => Ok(Some(axes.to_vec())),
        (None, None) => Ok(None),
        (None, Some(fact)) => Ok(Some(fact.numbers().ok_or("has axes that are not known")?)),
    }
}

fn squeeze(at: &At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let axes = match listed_axes(at, 1)? {
        Some(axes) => at.axes(&axes, shape.len())?,
        None if shape.iter().all(|size| size.as_number().is_some()) => {
            (0..shape.len()).filter(|axis| shape[*axis].is(1)).collect()
        }
        // Which dimensions vanish would depend on the batch being 1.
        None => return Err("squeezes whatever dimension is 1".to_owned()),
    };
    if axes.iter().any(|axis| shape[*axis].has_batch()) {
        return Err("squeezes the batch away".to_owned());
    }
    let kept: Vec<usize> = (0..shape.len()).filter(|axis| !axes.contains(axis)).collect();
    let out = kept.iter().map(|axis| shape[*axis].clone()).collect();
    Ok(vec![Fact::new(out, moved(&rows, |axis| kept.iter().position(|kept| *kept == axis)))])
}

fn unsqueeze(at: &At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let axes = listed_axes(at, 1)?.ok_or("has no axes")?;
    let rank = shape.len() + axes.len();
    let axes = at.axes(&axes, rank)?;
    let mut rest = shape.into_iter();
    let mut places = Vec::new();
    let mut out = Vec::with_capacity(rank);
    for axis in 0..rank {
        if axes.contains(&axis) {
            out.push(Size::number(1));
        } else {
            places.push(axis);
            out.push(rest.next().ok_or("has an axis twice")?);
        }
    }
    Ok(vec![Fact::new(out, moved(&rows, |axis| places.get(axis).copied()))])
}

fn transpose(at: &At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let order = match at.node.ints("perm") {
        Some(order) => at.axes(order, shape.len())?,
        None => (0..shape.len()).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted.into_iter().ne(0..shape.len()) {
        return Err("has an order that is none".to_owned());
    }
    let out = order.iter().map(|axis| shape[*axis].clone()).collect();
    Ok(vec![Fact::new(out, moved(&rows, |axis| order.iter().position(|from| *from == axis)))])
}

fn concat(at: &mut At<'_, '_, '_>) -> Given {
    let count = at.node.inputs.len();
    let (mut out, first) = at.shaped(0)?;
    let axis = at.axis(at.node.int("axis").unwrap_or(1), out.len())?;
    let mut lengths = vec![out[axis].clone()];
    let mut rows = first;
    // The row's number as the first component of index tuples.
    let tuple = match rows {
        Rows::Number(along) if axis + 1 == out.len() && along != axis && out[axis].is(1) => Some(along),
        Rows::Number(_) | Rows::Tuple(_) => return Err("computes with the number of the row".to_owned()),
        _ => None,
    };
    for index in 1..count {
        let (shape, other) = at.shaped(index)?;
        if shape.len() != out.len() {
            return Err("joins shapes that do not fit".to_owned());
        }
        for place in (0..out.len()).filter(|place| *place != axis) {
            // Joined tensors are never stretched, so these are equal at every run.
            if out[place].has_batch() != shape[place].has_batch() {
                return Err("joins the batch with a fixed size".to_owned());
            }
            if out[place].as_number().is_none() && shape[place].as_number().is_some() {
                out[place] = shape[place].clone();
            }
        }
        lengths.push(shape[axis].clone());
        rows = match (rows, other) {
            (Rows::Mixed(reason), _) | (_, Rows::Mixed(reason)) => Rows::Mixed(reason),
            (_, Rows::Number(_) | Rows::Tuple(_)) => {
                return Err("computes with the number of the row".to_owned());
            }
            (Rows::Free, other) => other,
            (Rows::Along(one) | Rows::Number(one), Rows::Along(other)) if one != other => {
                return Err("joins rows that lie across each other".to_owned());
            }
            (rows, _) => rows,
        };
    }
    if rows == Rows::Along(axis) {
        return Err("joins rows to each other".to_owned());
    }
    let numbers: Option<Vec<i64>> = lengths.iter().map(Size::as_number).collect();
    out[axis] = match numbers.and_then(|numbers| numbers.into_iter().try_fold(0i64, i64::checked_add)) {
        Some(total) => Size::number(total),
        None if lengths.len() == 1 => out[axis].clone(),
        None => at.walk.unknown(),
    };
    if let (Some(along), Rows::Number(_)) = (tuple, &rows) {
        rows = Rows::Tuple(along);
    }
    Ok(vec![Fact::new(out, rows)])
}

fn split(at: &mut At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let axis = at.axis(at.node.int("axis").unwrap_or(0), shape.len())?;
    whole(&rows, axis, "splits the batch")?;
    let lengths = match (at.node.ints("split"), at.input(1)) {
        (Some(lengths), _) => Some(lengths.to_vec()),
        (None, Some(fact)) => fact.numbers(),
        (None, None) => None,
    };
    let count = at.node.outputs.len();
    let even = shape[axis].as_number().filter(|_| at.input(1).is_none() && at.node.ints("split").is_none());
    let facts = (0..count).map(|index| {
        let parts = i64::try_from(count).unwrap_or(1).max(1);
        let length = match (lengths.as_ref().and_then(|lengths| lengths.get(index)), even) {
            (Some(length), _) => Size::number(*length),
            (None, Some(total)) if total % parts == 0 => Size::number(total / parts),
            _ => at.walk.unknown(),
        };
        let mut out = shape.clone();
        out[axis] = length;
        Fact::new(out, rows.clone())
    });
    Ok(facts.collect())
}

/// The batch must not be cut or joined along `axis`.
pub(super) fn whole(rows: &Rows, axis: usize, what: &str) -> Result<(), String> {
    match rows {
        Rows::Along(along) if *along == axis => Err(what.to_owned()),
        Rows::Number(_) | Rows::Tuple(_) => Err("computes with the number of the row".to_owned()),
        Rows::Mixed(reason) => Err(reason.to_string()),
        Rows::Along(_) | Rows::Free => Ok(()),
    }
}

fn slice(at: &mut At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let list = |index: usize, attribute: &str| -> Result<Option<Vec<Option<Size>>>, String> {
        if let Some(ints) = at.node.ints(attribute) {
            return Ok(Some(ints.iter().map(|int| Some(Size::number(*int))).collect()));
        }
        match at.input(index) {
            None => Ok(None),
            Some(fact) => match (&fact.elements, fact.is_free()) {
                // What is not followed may come from the batch.
                (Some(elements), free) if free || elements.iter().all(Option::is_some) => {
                    Ok(Some(elements.clone()))
                }
                (Some(_), _) => Err("cuts at places that depend on the batch".to_owned()),
                (None, _) => Err("cuts at places that are not known".to_owned()),
            },
        }
    };
    let unknown = || "cuts at places that are not known".to_owned();
    let starts = list(1, "starts")?.ok_or_else(unknown)?;
    let ends = list(2, "ends")?.ok_or_else(unknown)?;
    let steps = list(4, "steps")?;
    let axes: Vec<i64> = match list(3, "axes")? {
        Some(axes) => axes
            .into_iter()
            .map(|axis| axis.and_then(|axis| axis.as_number()).ok_or_else(unknown))
            .collect::<Result<_, _>>()?,
        None => (0..i64::try_from(starts.len()).unwrap_or(0)).collect(),
    };
    let axes = at.axes(&axes, shape.len())?;
    let mut out = shape.clone();
    for (index, axis) in axes.into_iter().enumerate() {
        let start = starts.get(index).cloned().flatten();
        let end = ends.get(index).cloned().flatten();
        let step = match &steps {
            None => Some(1),
            Some(steps) => steps.get(index).cloned().flatten().and_then(|step| step.as_number()),
        };
        let from_start = step == Some(1) && start.as_ref().is_some_and(|start| start.is(0));
        let size = &shape[axis];
        let to_end = end.as_ref().is_some_and(|end| {
            end == size || end.as_number().is_some_and(|end| end >= TO_THE_END || (end >= 1 && size.is(1)))
        });
        if from_start && to_end {
            continue;
        }
        whole(&rows, axis, "takes some rows of the batch")?;
        if start.as_ref().or(end.as_ref()).is_some_and(Size::has_batch)
            || end.as_ref().is_some_and(Size::has_batch)
        {
            return Err("cuts by the size of the batch".to_owned());
        }
        let numbers =
            (start.and_then(|s| s.as_number()), end.as_ref().and_then(Size::as_number), size.as_number());
        out[axis] = match (numbers, step) {
            ((Some(start), Some(end), Some(size)), Some(step)) => {
                Size::number(sliced(start, end, size, step))
            }
            ((Some(0), None, Some(most)), Some(1)) => {
                let end = end.ok_or_else(unknown)?;
                at.walk.clip(&end, most)
            }
            _ => at.walk.unknown(),
        };
    }
    Ok(vec![Fact::new(out, rows)])
}

/// What converters write for the end of a dimension, whatever it is; no tensor that fits a device is longer.
const TO_THE_END: i64 = 1_000_000_000;

/// Length of a slice, by ONNX's rules.
fn sliced(start: i64, end: i64, size: i64, step: i64) -> i64 {
    let from_end = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let (start, end) = (from_end(start), from_end(end));
    match step {
        0 => 0,
        1.. => {
            let (start, end) = (start.clamp(0, size), end.clamp(0, size));
            (end - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs()).cast_signed()
        }
        _ => {
            let (start, end) = (start.clamp(0, (size - 1).max(0)), end.clamp(-1, size));
            (start - end).max(0).unsigned_abs().div_ceil(step.unsigned_abs()).cast_signed()
        }
    }
}

fn expand(at: &mut At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let target = at.input(1).and_then(|fact| fact.elements.clone());
    let target: Option<Vec<Size>> = target.and_then(|sizes| sizes.into_iter().collect());
    let target = target.ok_or("stretches to what is not known")?;
    let out = stretched(at, &shape, &target)?;
    let shift = out.len() - shape.len();
    let rows = match rows {
        Rows::Free => match out.iter().position(Size::has_batch) {
            Some(axis) if Size::product(&out).is_some() => Rows::Along(axis),
            Some(_) => return Err("has the batch in two dimensions".to_owned()),
            None => Rows::Free,
        },
        rows => {
            let own = matches!(rows, Rows::Along(axis) | Rows::Number(axis) if out.iter().position(Size::has_batch) == Some(axis + shift));
            if !own && !matches!(rows, Rows::Mixed(_)) {
                return Err("lays every row beside every other".to_owned());
            }
            moved(&rows, |axis| Some(axis + shift))
        }
    };
    if out.iter().filter(|size| size.has_batch()).count() > 1 {
        return Err("has the batch in two dimensions".to_owned());
    }
    Ok(vec![Fact::new(out, rows)])
}

fn tile(at: &mut At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    let repeats =
        at.input(1).and_then(|fact| fact.elements.clone()).ok_or("repeats as often as is not known")?;
    let repeats: Option<Vec<Size>> = repeats.into_iter().collect();
    let repeats =
        repeats.filter(|repeats| repeats.len() == shape.len()).ok_or("repeats as often as is not known")?;
    let mut out = Vec::with_capacity(shape.len());
    let mut rows = rows;
    for (axis, (size, times)) in shape.iter().zip(&repeats).enumerate() {
        if !times.is(1) {
            whole(&rows, axis, "repeats the batch")?;
        }
        if times.has_batch() {
            match rows {
                // The same, once for each row: the batch comes first in what is repeated.
                Rows::Free => rows = Rows::Along(axis),
                _ => return Err("repeats rows by the size of the batch".to_owned()),
            }
        }
        out.push(size.times(times).ok_or("makes a dimension that is too complicated")?);
    }
    Ok(vec![Fact::new(out, rows)])
}

fn pad(at: &mut At<'_, '_, '_>) -> Given {
    let (shape, rows) = at.shaped(0)?;
    if at.input(2).is_some_and(|value| !value.is_free()) {
        return Err("pads with a value from the batch".to_owned());
    }
    let pads = match at.node.ints("pads") {
        Some(pads) => pads.to_vec(),
        None => at.input(1).and_then(Fact::numbers).ok_or("pads by what is not known")?,
    };
    let axes = match at.input(3) {
        Some(axes) => at.axes(&axes.numbers().ok_or("pads by what is not known")?, shape.len())?,
        None => (0..shape.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err("pads by what is not known".to_owned());
    }
    let mut out = shape.clone();
    for (index, axis) in axes.iter().enumerate() {
        let (before, after) = (pads[index], pads[index + axes.len()]);
        if before == 0 && after == 0 {
            continue;
        }
        whole(&rows, *axis, "pads the batch")?;
        let padded = shape[*axis].as_number().and_then(|size| size.checked_add(before)?.checked_add(after));
        out[*axis] = match padded {
            Some(size) => Size::number(size),
            None => at.walk.unknown(),
        };
    }
    whole(&rows, usize::MAX, "")?;
    Ok(vec![Fact::new(out, rows)])
}
