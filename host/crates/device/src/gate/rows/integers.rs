//! Shapes that a graph computes for itself: small lists of integers are followed element by element.

use super::{
    fact::{Fact, Rows},
    size::Size,
    walk::{At, Given, constant},
};

/// The longest list that is followed.
const MAX_ELEMENTS: usize = 64;

type Elements = Vec<Option<Size>>;

/// Rules for operators that make or compute such lists; `None` where the operator or its inputs are others.
pub(super) fn apply(at: &mut At<'_, '_, '_>) -> Option<Given> {
    if !at.node.domain().is_empty() {
        return None;
    }
    match at.node.op {
        "Constant" => Some(Ok(vec![literal(at)])),
        "Shape" => Some(shape(at)),
        "Size" => Some(size(at)),
        "Range" => Some(range(at)),
        "ConstantOfShape" => Some(constant_of_shape(at)),
        _ => followed(at).map(|fact| Ok(vec![fact])),
    }
}

fn literal(at: &At<'_, '_, '_>) -> Fact {
    let number = |int: &i64| Some(Size::number(*int));
    for attribute in &at.node.attributes {
        match attribute.name {
            "value" => {
                if let Some(tensor) = &attribute.tensor {
                    return constant(tensor);
                }
            }
            "value_int" => return Fact::of_elements(vec![number(&attribute.int)], true, &Rows::Free),
            "value_ints" => {
                return Fact::of_elements(attribute.ints.iter().map(number).collect(), false, &Rows::Free);
            }
            "value_float" => return Fact::new(Vec::new(), Rows::Free),
            _ => {}
        }
    }
    Fact { shape: None, rows: Rows::Free, elements: None }
}

fn mixed() -> Rows {
    Rows::Mixed("operator Shape gives the size of the batch, and the model computes with it".into())
}

fn shape(at: &At<'_, '_, '_>) -> Given {
    let (shape, _) = at.shaped(0)?;
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let bound = |name: &str, default: i64| {
        let at = at.node.int(name).unwrap_or(default);
        let at = if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank);
        usize::try_from(at).unwrap_or(0)
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    let elements = shape.into_iter().take(end).skip(start).map(Some).collect();
    Ok(vec![Fact::of_elements(elements, false, &mixed())])
}

fn size(at: &At<'_, '_, '_>) -> Given {
    let (shape, _) = at.shaped(0)?;
    Ok(vec![Fact::of_elements(vec![Size::product(&shape)], true, &mixed())])
}

fn scalar(at: &At<'_, '_, '_>, index: usize) -> Option<Size> {
    match at.input(index)?.elements.as_deref() {
        Some([element]) => element.clone(),
        _ => None,
    }
}

fn range(at: &mut At<'_, '_, '_>) -> Given {
    let simple =
        scalar(at, 0).is_some_and(|start| start.is(0)) && scalar(at, 2).is_some_and(|step| step.is(1));
    match scalar(at, 1).filter(|_| simple) {
        Some(limit) if limit.is_batch() => Ok(vec![Fact::new(vec![limit], Rows::Number(0))]),
        Some(limit) if !limit.has_batch() => Ok(vec![Fact::new(vec![limit], Rows::Free)]),
        _ => {
            at.free_from(0)?;
            let len = at.walk.unknown();
            Ok(vec![Fact::new(vec![len], Rows::Free)])
        }
    }
}

fn constant_of_shape(at: &At<'_, '_, '_>) -> Given {
    let elements = at.input(0).and_then(|fact| fact.elements.clone());
    let sizes: Option<Vec<Size>> = elements.and_then(|elements| elements.into_iter().collect());
    let shape = sizes.ok_or("makes a tensor of a shape that is not known")?;
    let tensor = at.node.attribute("value").and_then(|attribute| attribute.tensor.as_ref());
    let value = match tensor {
        Some(tensor) => tensor.ints.as_ref().and_then(|ints| ints.first().copied()),
        None => None,
    };
    if let ([len], Some(value)) = (shape.as_slice(), value)
        && let Some(len) = len.as_number().and_then(|len| usize::try_from(len).ok())
        && len <= MAX_ELEMENTS
    {
        return Ok(vec![Fact::of_elements(vec![Some(Size::number(value)); len], false, &Rows::Free)]);
    }
    // The same number everywhere: the same for every row.
    let batches: Vec<_> = shape.iter().enumerate().filter(|(_, size)| size.has_batch()).collect();
    let rows = match batches.as_slice() {
        [] => Rows::Free,
        [(axis, _)] => Rows::Along(*axis),
        _ => return Err("has the batch in two dimensions".to_owned()),
    };
    Ok(vec![Fact::new(shape, rows)])
}

/// Operators over lists whose elements are all followed.
fn followed(at: &mut At<'_, '_, '_>) -> Option<Fact> {
    let count = at.node.inputs.len();
    let facts: Vec<&Fact> = (0..count).map(|index| at.input(index)).collect::<Option<_>>()?;
    let lists: Vec<&Elements> = facts.iter().map(|fact| fact.elements.as_ref()).collect::<Option<_>>()?;
    let scalars: Vec<bool> = facts.iter().map(|fact| fact.rank() == Some(0)).collect();
    let (first, first_scalar) = (*lists.first()?, *scalars.first()?);
    let all_scalar = scalars.iter().all(|scalar| *scalar);
    let otherwise = facts.iter().find(|fact| !fact.is_free()).map_or(Rows::Free, |fact| fact.rows.clone());
    let of = |elements: Elements, scalar: bool| {
        (elements.len() <= MAX_ELEMENTS).then(|| Fact::of_elements(elements, scalar, &otherwise))
    };
    let zip = |f: fn(&Size, &Size) -> Option<Size>| {
        let [a, b] = lists.as_slice() else { return None };
        pairs(a, b, f)
    };
    match at.node.op {
        "Identity" | "Squeeze" | "Unsqueeze" | "Cast" | "Reshape" => match at.node.op {
            "Identity" => of(first.clone(), first_scalar),
            "Cast" if matches!(at.node.int("to"), Some(6 | 7)) => of(first.clone(), first_scalar),
            "Squeeze" if first.len() == 1 => of(first.clone(), true),
            "Unsqueeze" if first_scalar && (count == 1 || lists.get(1)?.len() == 1) => {
                of(first.clone(), false)
            }
            "Reshape" if lists.get(1)?.len() == 1 => of(first.clone(), false),
            "Reshape" if lists.get(1)?.is_empty() && first.len() == 1 => of(first.clone(), true),
            _ => None,
        },
        "Add" => of(
            zip(|a, b| match (a.as_number(), b.as_number()) {
                (Some(a), Some(b)) => a.checked_add(b).map(Size::number),
                (Some(0), None) => Some(b.clone()),
                (None, Some(0)) => Some(a.clone()),
                _ => None,
            })?,
            all_scalar,
        ),
        "Sub" => of(
            zip(|a, b| match (a.as_number(), b.as_number()) {
                (Some(a), Some(b)) => a.checked_sub(b).map(Size::number),
                (None, Some(0)) => Some(a.clone()),
                _ => None,
            })?,
            all_scalar,
        ),
        "Mul" => of(zip(Size::times)?, all_scalar),
        "Div" => of(zip(Size::over)?, all_scalar),
        "Equal" => {
            let compare = |a: &Size, b: &Size| match (a.as_number(), b.as_number()) {
                (Some(a), Some(b)) => Some(Size::number((a == b).into())),
                // A size is never negative.
                (None, Some(number)) | (Some(number), None) if number < 0 => Some(Size::number(0)),
                _ => (a == b).then(|| Size::number(1)),
            };
            of(zip(compare)?, all_scalar)
        }
        "Where" => {
            let [choice, yes, no] = lists.as_slice() else { return None };
            let len = choice.len().max(yes.len()).max(no.len());
            let pick =
                |list: &Elements, index: usize| list.get(if list.len() == 1 { 0 } else { index }).cloned();
            let chosen = (0..len).map(|index| {
                Some(match pick(choice, index)?.and_then(|size| size.as_number()) {
                    Some(0) => pick(no, index)?,
                    Some(_) => pick(yes, index)?,
                    None => None,
                })
            });
            of(chosen.collect::<Option<_>>()?, all_scalar)
        }
        "Concat" if !scalars.iter().any(|scalar| *scalar) => {
            of(lists.iter().flat_map(|list| list.iter().cloned()).collect(), false)
        }
        "Gather" => {
            let picked = lists.get(1)?.iter().map(|index| {
                let index = index.as_ref()?.as_number()?;
                let len = i64::try_from(first.len()).ok()?;
                let index = if index < 0 { index.checked_add(len)? } else { index };
                first.get(usize::try_from(index).ok()?).cloned()
            });
            of(picked.collect::<Option<_>>()?, *scalars.get(1)?)
        }
        "Slice" => {
            let one = |list: Option<&&Elements>, default: i64| match list {
                None => Some(default),
                Some(list) => list.first()?.as_ref()?.as_number(),
            };
            let len = i64::try_from(first.len()).ok()?;
            let bound = |at: i64| if at < 0 { at.saturating_add(len) } else { at }.clamp(0, len);
            let (start, end) = (bound(one(lists.get(1), 0)?), bound(one(lists.get(2), 0)?));
            let forward = one(lists.get(4), 1)? == 1 && matches!(one(lists.get(3), 0)?, 0 | -1);
            let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
            of(first.get(start..end.max(start)).filter(|_| forward && count > 2)?.to_vec(), false)
        }
        _ => None,
    }
}

fn pairs(a: &Elements, b: &Elements, f: impl Fn(&Size, &Size) -> Option<Size>) -> Option<Elements> {
    let len = if a.len() == 1 { b.len() } else { a.len() };
    if (a.len() != len && a.len() != 1) || (b.len() != len && b.len() != 1) {
        return None;
    }
    let pick = |list: &Elements, index: usize| list.get(if list.len() == 1 { 0 } else { index }).cloned();
    Some((0..len).map(|index| f(&pick(a, index)??, &pick(b, index)??)).collect())
}
