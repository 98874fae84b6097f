//! Operators that compute over other dimensions than the batch: products, convolutions, layers.

use super::{
    arrange::{stretched, whole},
    fact::{Fact, Rows},
    index::from_axis,
    size::Size,
    walk::{At, Given},
};

pub(super) fn apply(at: &mut At<'_, '_, '_>) -> Option<Given> {
    Some(match (at.node.domain(), at.node.op) {
        ("", "MatMul") => matmul(at, 0, 1, &[]),
        ("", "MatMulInteger") => matmul(at, 0, 1, &[2, 3]),
        ("", "QLinearMatMul") => matmul(at, 0, 3, &[1, 2, 4, 5, 6, 7]),
        ("com.microsoft", "MatMulNBits") => matmul_nbits(at),
        ("", "Gemm") => gemm(at),
        ("", "Conv" | "ConvInteger") => conv(at, 1),
        ("", "QLinearConv") => conv(at, 3),
        ("", "ConvTranspose") => images(at, 1, false),
        ("", "MaxPool" | "AveragePool" | "LpPool" | "DepthToSpace" | "SpaceToDepth") => images(at, 1, true),
        ("", "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool") => global_pool(at),
        ("", "LRN" | "InstanceNormalization" | "GroupNormalization") => per_image(at),
        ("", "BatchNormalization") => batch_normalization(at),
        ("", "Resize" | "Upsample") => resize(at),
        ("", "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization") => {
            from_axis(at, -1, 1, "normalises over the batch")
        }
        ("com.microsoft", "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization") => skip_norm(at),
        ("", "QuantizeLinear" | "DequantizeLinear")
        | ("com.microsoft", "QuantizeLinear" | "DequantizeLinear") => quantize(at),
        ("", "DynamicQuantizeLinear") => dynamic(at),
        ("com.microsoft", "DynamicQuantizeMatMul" | "DynamicQuantizeLSTM") => dynamic(at),
        ("", "LSTM" | "GRU" | "RNN") => recurrent(at),
        ("com.microsoft", "Attention" | "MultiHeadAttention") => attention(at),
        ("ai.onnx.ml", "Imputer" | "Binarizer" | "Scaler" | "LabelEncoder" | "Normalizer") => per_row(at),
        _ => return None,
    })
}

/// `params` are inputs that must not come from the batch.
fn matmul(at: &mut At<'_, '_, '_>, a: usize, b: usize, params: &[usize]) -> Given {
    at.all_known()?;
    if params.iter().any(|index| at.input(*index).is_some_and(|fact| !fact.is_free())) {
        return Err("takes a scale or zero point from the batch".to_owned());
    }
    let ((a, a_rows), (b, b_rows)) = (at.shaped(a)?, at.shaped(b)?);
    let (Some(a_lead), Some(b_lead)) = (a.len().checked_sub(2), b.len().checked_sub(2)) else {
        return Err("multiplies a vector, which is not followed".to_owned());
    };
    whole(&a_rows, a.len() - 1, "sums over the batch")?;
    whole(&b_rows, b_lead, "sums over the batch")?;
    let mut out = stretched(at, &a[..a_lead], &b[..b_lead])?;
    let lead = out.len();
    let place = |rows: &Rows, own: usize, last: usize| match rows {
        Rows::Along(axis) if *axis < own => Some(axis + lead - own),
        Rows::Along(_) => Some(last),
        _ => None,
    };
    let rows = match (place(&a_rows, a_lead, lead), place(&b_rows, b_lead, lead + 1)) {
        (None, None) => Rows::Free,
        (Some(axis), None) | (None, Some(axis)) => Rows::Along(axis),
        (Some(one), Some(other)) if one == other => Rows::Along(one),
        _ => return Err("multiplies every row with every other".to_owned()),
    };
    out.push(a[a_lead].clone());
    out.push(b[b_lead + 1].clone());
    Ok(vec![Fact::new(out, rows)])
}

fn matmul_nbits(at: &At<'_, '_, '_>) -> Given {
    at.all_known()?;
    at.free_from(1)?;
    // Level 4 quantises the activations too, and not alike in batches of all sizes.
    if at.node.int("accuracy_level").unwrap_or(0) > 1 {
        return Err("quantises its input as it runs".to_owned());
    }
    let (mut shape, rows) = at.shaped(0)?;
    let last = shape.len().checked_sub(1).ok_or("multiplies a scalar")?;
    whole(&rows, last, "sums over the batch")?;
    shape[last] = Size::number(at.node.int("N").ok_or("has no N")?);
    Ok(vec![Fact::new(shape, rows)])
}

fn gemm(at: &At<'_, '_, '_>) -> Given {
    at.all_known()?;
    let ((a, a_rows), (b, b_rows)) = (at.shaped(0)?, at.shaped(1)?);
    let flag = |name: &str| usize::from(at.node.int(name).unwrap_or(0) != 0);
    let ([_, _], [_, _]) = (a.as_slice(), b.as_slice()) else {
        return Err("multiplies what are no matrices".to_owned());
    };
    let (m, n) = (flag("transA"), 1 - flag("transB"));
    whole(&a_rows, 1 - m, "sums over the batch")?;
    whole(&b_rows, 1 - n, "sums over the batch")?;
    let rows = match (&a_rows, &b_rows) {
        (Rows::Free, Rows::Free) => Rows::Free,
        (_, Rows::Free) => Rows::Along(0),
        (Rows::Free, _) => Rows::Along(1),
        _ => return Err("multiplies every row with every other".to_owned()),
    };
    if let Some(c) = at.input(2) {
        let same_place = c.rank() == Some(2) && c.rows == rows;
        if !c.is_free() && !same_place {
            return Err("adds rows across each other".to_owned());
        }
        if c.rank().is_none() {
            return Err("adds a tensor of a shape that is not known".to_owned());
        }
    }
    Ok(vec![Fact::new(vec![a[m].clone(), b[n].clone()], rows)])
}

/// The first input as images `[batch, channels, ...]` with nothing else from the batch.
fn image(at: &At<'_, '_, '_>) -> Result<(Vec<Size>, Rows), String> {
    at.all_known()?;
    at.free_from(1)?;
    let (shape, rows) = at.shaped(0)?;
    if shape.len() < 2 {
        return Err("works on images, and has none".to_owned());
    }
    if !matches!(rows, Rows::Free | Rows::Along(0)) {
        return Err("takes the batch for channels or pixels".to_owned());
    }
    Ok((shape, rows))
}

fn spatial(at: &mut At<'_, '_, '_>, shape: &mut [Size]) {
    for size in &mut shape[2..] {
        *size = at.walk.unknown();
    }
}

fn conv(at: &mut At<'_, '_, '_>, weights: usize) -> Given {
    let (mut shape, rows) = image(at)?;
    let (kernel, _) = at.shaped(weights)?;
    if kernel.len() != shape.len() {
        return Err("has weights of another rank".to_owned());
    }
    shape[1] = kernel[0].clone();
    // Where nothing is added around, dimensions shrink by the window; other cases need not be followed.
    let plain =
        |name: &str, value: i64| at.node.ints(name).is_none_or(|ints| ints.iter().all(|int| *int == value));
    let auto = at.node.attribute("auto_pad").map_or(&b"NOTSET"[..], |attribute| attribute.text);
    let simple = auto == b"NOTSET" && plain("strides", 1) && plain("dilations", 1);
    let pads = at.node.ints("pads").map(<[i64]>::to_vec);
    let count = shape.len() - 2;
    for axis in 0..count {
        let added =
            pads.as_ref().map_or(Some(0), |pads| pads.get(axis)?.checked_add(*pads.get(axis + count)?));
        let (size, window) = (shape[axis + 2].as_number(), kernel[axis + 2].as_number());
        let out = match (simple, size, window, added) {
            (true, Some(size), Some(window), Some(added)) => {
                size.checked_add(added).and_then(|size| size.checked_sub(window)?.checked_add(1))
            }
            _ => None,
        };
        shape[axis + 2] = match out.filter(|out| *out > 0) {
            Some(out) => Size::number(out),
            None => at.walk.unknown(),
        };
    }
    Ok(vec![Fact::new(shape, rows)])
}

fn images(at: &mut At<'_, '_, '_>, _weights: usize, keeps_channels: bool) -> Given {
    let (mut shape, rows) = image(at)?;
    let keeps_channels = keeps_channels && !matches!(at.node.op, "DepthToSpace" | "SpaceToDepth");
    if !keeps_channels {
        shape[1] = at.walk.unknown();
    }
    spatial(at, &mut shape);
    // A second output of pooling numbers the elements of all images together.
    Ok(vec![Fact::new(shape, rows)])
}

fn global_pool(at: &At<'_, '_, '_>) -> Given {
    let (mut shape, rows) = image(at)?;
    shape[2..].fill(Size::number(1));
    Ok(vec![Fact::new(shape, rows)])
}

fn per_image(at: &At<'_, '_, '_>) -> Given {
    let (shape, rows) = image(at)?;
    Ok(vec![Fact::new(shape, rows)])
}

fn batch_normalization(at: &At<'_, '_, '_>) -> Given {
    let training = at.node.int("training_mode").unwrap_or(0) != 0;
    let old = at.walk.opset < 7 && at.node.int("is_test").unwrap_or(0) == 0;
    if training || old || at.node.outputs.iter().filter(|name| !name.is_empty()).count() > 1 {
        return Err("normalises over the batch".to_owned());
    }
    per_image(at)
}

fn resize(at: &mut At<'_, '_, '_>) -> Given {
    let (mut shape, rows) = image(at)?;
    if at.node.op == "Resize" && at.walk.opset < 11 || at.node.op == "Upsample" && at.walk.opset < 9 {
        return Err("of this version is not followed".to_owned());
    }
    if at.node.ints("axes").is_some() {
        return Err("with axes is not followed".to_owned());
    }
    let crops = at.node.attribute("coordinate_transformation_mode").map(|attribute| attribute.text);
    if crops == Some(b"tf_crop_and_resize") {
        return Err("crops, which is not followed".to_owned());
    }
    // Sizes name the batch, which must stay; scales are floats, whose first one is not read here.
    let sizes =
        at.input(3).and_then(|fact| fact.elements.clone()).ok_or("has scales, which are not followed")?;
    if sizes.len() != shape.len() || sizes[0].as_ref() != Some(&shape[0]) {
        return Err("fixes the size of the batch".to_owned());
    }
    for (axis, size) in sizes.into_iter().enumerate().skip(1) {
        shape[axis] = size.unwrap_or_else(|| at.walk.unknown());
    }
    Ok(vec![Fact::new(shape, rows)])
}

fn skip_norm(at: &mut At<'_, '_, '_>) -> Given {
    at.all_known()?;
    at.free_from(2)?;
    let ((shape, rows), (skip, skip_rows)) = (at.shaped(0)?, at.shaped(1)?);
    let last = shape.len().saturating_sub(1);
    whole(&rows, last, "normalises over the batch")?;
    if shape != skip || rows != skip_rows {
        return Err("adds another shape, which is not followed".to_owned());
    }
    Ok(vec![Fact::new(shape, rows)])
}

fn quantize(at: &At<'_, '_, '_>) -> Given {
    at.all_known()?;
    at.free_from(1)?;
    let (shape, rows) = at.shaped(0)?;
    let (scale, _) = at.shaped(1)?;
    let one = scale.iter().all(|size| size.is(1));
    if !one {
        if scale.len() != 1 || shape.is_empty() {
            return Err("has scales in blocks, which are not followed".to_owned());
        }
        let axis = at.axis(at.node.int("axis").unwrap_or(1), shape.len())?;
        whole(&rows, axis, "has a scale for each row of the batch")?;
    }
    Ok(vec![Fact::new(shape, rows)])
}

fn dynamic(at: &At<'_, '_, '_>) -> Given {
    at.all_known()?;
    if (0..at.node.inputs.len()).all(|index| at.input(index).is_none_or(Fact::is_free)) {
        return Ok(vec![Fact { shape: None, rows: Rows::Free, elements: None }; at.node.outputs.len()]);
    }
    Err("computes one quantisation scale over the whole batch".to_owned())
}

fn recurrent(at: &At<'_, '_, '_>) -> Given {
    at.all_known()?;
    if at.node.int("layout").unwrap_or(0) != 0 {
        return Err("with layout 1 is not followed".to_owned());
    }
    let (shape, rows) = at.shaped(0)?;
    let ([steps, batch, _], Rows::Along(1)) = (shape.as_slice(), &rows) else {
        return Err("takes the batch for time or features".to_owned());
    };
    for (index, wanted) in [(4, 0), (5, 1), (6, 1)] {
        if let Some(fact) = at.input(index)
            && !matches!(fact.rows, Rows::Along(axis) if axis == wanted)
        {
            return Err("has lengths or states that are not the rows'".to_owned());
        }
    }
    for index in [1, 2, 3, 7] {
        if at.input(index).is_some_and(|fact| !fact.is_free()) {
            return Err("takes weights from the batch".to_owned());
        }
    }
    let (weights, _) = at.shaped(2)?;
    let [directions, _, hidden] = weights.as_slice() else {
        return Err("has weights of another rank".to_owned());
    };
    let state = Fact::new(vec![directions.clone(), batch.clone(), hidden.clone()], Rows::Along(1));
    let all = vec![steps.clone(), directions.clone(), batch.clone(), hidden.clone()];
    Ok(vec![Fact::new(all, Rows::Along(2)), state.clone(), state])
}

fn attention(at: &mut At<'_, '_, '_>) -> Given {
    at.all_known()?;
    let whole_op = at.node.op == "Attention";
    // input, weights, bias, mask | query, key, value, bias, padding mask; states of earlier runs are not followed.
    let (rows_of, free, most): (&[usize], &[usize], usize) =
        if whole_op { (&[0, 3], &[1, 2], 4) } else { (&[0, 1, 2, 4], &[3], 5) };
    if at.node.int("unidirectional").unwrap_or(0) != 0 && !whole_op {
        return Err("is not followed in this form".to_owned());
    }
    for index in rows_of {
        if let Some(fact) = at.input(*index)
            && (fact.rows != Rows::Along(0) || fact.shape.as_ref().is_none_or(|s| !s[0].is_batch()))
        {
            return Err("has inputs that are not the rows'".to_owned());
        }
    }
    let beyond = (most..at.node.inputs.len()).any(|index| at.input(index).is_some());
    if beyond || free.iter().any(|index| at.input(*index).is_some_and(|fact| !fact.is_free())) {
        return Err("has inputs that are not followed".to_owned());
    }
    let (query, _) = at.shaped(0)?;
    let [batch, steps, width] = query.as_slice() else {
        return Err("with packed inputs is not followed".to_owned());
    };
    // The width of the values, or a third of the packed projection.
    let width = if whole_op {
        let (weights, _) = at.shaped(1)?;
        match (at.node.ints("qkv_hidden_sizes"), weights.get(1).and_then(|size| size.over(&Size::number(3))))
        {
            (None, Some(width)) => width,
            _ => at.walk.unknown(),
        }
    } else if let Some(value) = at.input(2) {
        match value.shape.as_deref() {
            Some([_, _, width]) => width.clone(),
            _ => return Err("with keys and values of earlier runs is not followed".to_owned()),
        }
    } else {
        width.clone()
    };
    Ok(vec![Fact::new(vec![batch.clone(), steps.clone(), width], Rows::Along(0))])
}

/// Tables `[batch, features]`.
fn per_row(at: &At<'_, '_, '_>) -> Given {
    at.all_known()?;
    let (shape, rows) = at.shaped(0)?;
    let width = shape.len();
    // A normaliser, and a list of values for each feature, work along dimension 1.
    if !matches!((&rows, width), (Rows::Free, _) | (Rows::Along(0), 2..)) {
        return Err("takes the batch for features".to_owned());
    }
    Ok(vec![Fact::new(shape, rows)])
}
