use crate::{ComputeError, DType, Dim, NamedTensor, Port, Signature, Tensor};

/// Brings the inputs into the model's order, or says what is wrong with which.
pub(crate) fn arrange(signature: &Signature, inputs: Vec<NamedTensor>) -> Result<Vec<Tensor>, ComputeError> {
    let ports = &signature.inputs;
    let mut slots: Vec<Option<Tensor>> = ports.iter().map(|_| None).collect();
    for NamedTensor { name, tensor } in inputs {
        let Some(index) = position(ports, &name) else {
            return Err(invalid(format!("unknown input {name:?}; the model has {}", names(ports))));
        };
        if slots[index].is_some() {
            return Err(invalid(format!("input {:?} is given twice", ports[index].name)));
        }
        slots[index] = Some(fit(&ports[index], tensor)?);
    }
    let mut arranged = Vec::with_capacity(slots.len());
    for (slot, port) in slots.into_iter().zip(ports) {
        match slot {
            Some(tensor) => arranged.push(tensor),
            None => {
                let want = format!("{} {}", port.dtype, port.shape());
                return Err(invalid(format!("input {:?} is missing; expected {want}", port.name)));
            }
        }
    }
    Ok(arranged)
}

/// By name first: a model may call an input "1" that is not its second.
fn position(ports: &[Port], name: &str) -> Option<usize> {
    ports.iter().position(|port| port.name == name).or_else(|| {
        let index: usize = name.parse().ok()?;
        (index < ports.len() && index.to_string() == name).then_some(index)
    })
}

fn fit(port: &Port, tensor: Tensor) -> Result<Tensor, ComputeError> {
    let wrong = |tensor: &Tensor| {
        invalid(format!(
            "input {:?} expects {} {}, got {} {:?}",
            port.name,
            port.dtype,
            port.shape(),
            tensor.dtype(),
            tensor.dims()
        ))
    };
    if tensor.data().is_empty() {
        return Err(invalid(format!("input {:?} is empty: dimensions {:?}", port.name, tensor.dims())));
    }
    let tensor = match (port.dtype, tensor.dtype()) {
        (DType::Bool, DType::U8) => tensor.into_bool().ok_or_else(|| {
            invalid(format!("input {:?} expects bool: every byte must be 0 or 1", port.name))
        })?,
        (want, got) if want != got => return Err(wrong(&tensor)),
        (DType::Bool, _) if tensor.data().iter().any(|byte| *byte > 1) => {
            return Err(invalid(format!("input {:?} expects bool: every byte must be 0 or 1", port.name)));
        }
        _ => tensor,
    };
    let Some(dims) = &port.dims else { return Ok(tensor) };
    if dims.is_empty() && tensor.dims() == [1] {
        return Ok(tensor.into_scalar());
    }
    let fits = dims.len() == tensor.dims().len()
        && dims.iter().zip(tensor.dims()).all(|(want, got)| match want {
            Dim::Fixed(size) => size == got,
            Dim::Named(_) | Dim::Any => true,
        });
    if fits { Ok(tensor) } else { Err(wrong(&tensor)) }
}

fn names(ports: &[Port]) -> String {
    let names: Vec<_> = ports.iter().map(|port| format!("{:?}", port.name)).collect();
    names.join(", ")
}

fn invalid(message: String) -> ComputeError {
    ComputeError::InvalidArgument(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, dtype: DType, dims: Vec<Dim>) -> Port {
        Port { name: name.into(), dtype, dims: Some(dims) }
    }

    fn signature() -> Signature {
        Signature {
            inputs: vec![
                port("x", DType::F32, vec![Dim::Named("batch".into()), Dim::Fixed(2)]),
                port("mask", DType::Bool, vec![Dim::Any]),
                port("k", DType::I64, vec![]),
            ],
            outputs: vec![],
        }
    }

    fn named(name: &str, dtype: DType, dims: &[u32]) -> NamedTensor {
        let data = vec![0; dtype.bytes(dims).unwrap()];
        NamedTensor { name: name.into(), tensor: Tensor::new(dtype, dims.to_vec(), data).unwrap() }
    }

    fn good() -> Vec<NamedTensor> {
        vec![named("k", DType::I64, &[1]), named("1", DType::U8, &[3]), named("x", DType::F32, &[1, 2])]
    }

    fn message(change: impl FnOnce(&mut Vec<NamedTensor>)) -> String {
        let mut inputs = good();
        change(&mut inputs);
        arrange(&signature(), inputs).unwrap_err().to_string()
    }

    #[test]
    fn names_indices_and_order() {
        let tensors = arrange(&signature(), good()).unwrap();
        assert_eq!(tensors[0].dims(), [1, 2]);
        assert_eq!((tensors[1].dtype(), tensors[1].dims()), (DType::Bool, &[3][..]));
        assert!(tensors[2].dims().is_empty());
    }

    #[test]
    fn messages_say_which_and_what() {
        assert_eq!(
            message(|i| i[2].name = "y".into()),
            r#"unknown input "y"; the model has "x", "mask", "k""#
        );
        assert_eq!(
            message(|i| i[2].name = "03".into()),
            r#"unknown input "03"; the model has "x", "mask", "k""#
        );
        assert_eq!(message(|i| drop(i.pop())), r#"input "x" is missing; expected f32 [batch, 2]"#);
        assert_eq!(message(|i| i.push(named("0", DType::F32, &[1, 2]))), r#"input "x" is given twice"#);
        assert_eq!(
            message(|i| i[2] = named("x", DType::F64, &[1, 2])),
            r#"input "x" expects f32 [batch, 2], got f64 [1, 2]"#
        );
        assert_eq!(
            message(|i| i[2] = named("x", DType::F32, &[2])),
            r#"input "x" expects f32 [batch, 2], got f32 [2]"#
        );
        assert_eq!(
            message(|i| i[2] = named("x", DType::F32, &[1, 3])),
            r#"input "x" expects f32 [batch, 2], got f32 [1, 3]"#
        );
        assert_eq!(
            message(|i| i[2] = named("x", DType::F32, &[0, 2])),
            r#"input "x" is empty: dimensions [0, 2]"#
        );
        assert_eq!(
            message(|i| i[1].tensor = Tensor::new(DType::U8, vec![1], vec![2]).unwrap()),
            r#"input "mask" expects bool: every byte must be 0 or 1"#
        );
    }
}
