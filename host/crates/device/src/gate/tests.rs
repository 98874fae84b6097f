use proptest::prelude::*;

use super::*;

/// ONNX files by hand, so that broken ones can be made too.
mod write {
    pub(super) fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let byte = u8::try_from(value & 0x7f).unwrap();
            value >>= 7;
            if value == 0 {
                out.push(byte);
                return out;
            }
            out.push(byte | 0x80);
        }
    }

    pub(super) fn bytes(number: u64, inner: &[u8]) -> Vec<u8> {
        [varint(number << 3 | 2), varint(inner.len() as u64), inner.to_vec()].concat()
    }

    pub(super) fn int(number: u64, value: i64) -> Vec<u8> {
        [varint(number << 3), varint(value.cast_unsigned())].concat()
    }

    /// A message nested along field numbers, from the model inwards.
    pub(super) fn nested(path: &[u64], inner: &[u8]) -> Vec<u8> {
        path.iter().rev().fold(inner.to_vec(), |inner, number| bytes(*number, &inner))
    }

    pub(super) fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
        of_domain("", op, inputs, outputs, attributes)
    }

    pub(super) fn of_domain(
        domain: &str,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[Vec<u8>],
    ) -> Vec<u8> {
        let mut out = [bytes(4, op.as_bytes()), bytes(3, b"n"), bytes(7, domain.as_bytes())].concat();
        for input in inputs {
            out.extend(bytes(1, input.as_bytes()));
        }
        for output in outputs {
            out.extend(bytes(2, output.as_bytes()));
        }
        for attribute in attributes {
            out.extend(bytes(5, attribute));
        }
        bytes(1, &out)
    }

    pub(super) fn attribute(name: &str, ints: &[i64]) -> Vec<u8> {
        let mut out = bytes(1, name.as_bytes());
        for value in ints {
            out.extend(int(8, *value));
        }
        out
    }

    pub(super) fn one(name: &str, value: i64) -> Vec<u8> {
        [bytes(1, name.as_bytes()), int(3, value)].concat()
    }

    pub(super) fn tensor(name: &str, dtype: i64, dims: &[i64], raw: &[u8]) -> Vec<u8> {
        let mut out = [bytes(8, name.as_bytes()), int(2, dtype), bytes(9, raw)].concat();
        for dim in dims {
            out.extend(int(1, *dim));
        }
        out
    }

    pub(super) fn floats(name: &str, dims: &[i64]) -> Vec<u8> {
        let count: i64 = dims.iter().product();
        bytes(5, &tensor(name, 1, dims, &vec![0; 4 * usize::try_from(count).unwrap()]))
    }

    pub(super) fn ints(name: &str, values: &[i64]) -> Vec<u8> {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        bytes(5, &tensor(name, 7, &[i64::try_from(values.len()).unwrap()], &raw))
    }

    /// `"b 3 ?"`: named, fixed and free dimensions.
    pub(super) fn value(field: u64, name: &str, dims: &str) -> Vec<u8> {
        let mut shape = Vec::new();
        for dim in dims.split_whitespace() {
            let dim = match dim.parse() {
                Ok(size) => int(1, size),
                Err(_) if dim == "?" => Vec::new(),
                Err(_) => bytes(2, dim.as_bytes()),
            };
            shape.extend(bytes(1, &dim));
        }
        let ty = bytes(1, &[int(1, 1), bytes(2, &shape)].concat());
        bytes(field, &[bytes(1, name.as_bytes()), bytes(2, &ty)].concat())
    }

    pub(super) fn model(opset: i64, graph: &[u8]) -> Vec<u8> {
        [int(1, 8), bytes(8, &int(2, opset)), bytes(7, graph)].concat()
    }
}

use write::{attribute, bytes, floats, int, ints, model, nested, node, of_domain, one, tensor, value};

fn kind(model: &[u8]) -> Kind {
    check_onnx(model).unwrap_err().kind()
}

#[test]
fn external_data_is_found_everywhere() {
    let external = [0x70, 1];
    let entry = bytes(13, b"\x0a\x08location");
    for path in [
        &[7, 5][..],
        &[7, 1, 5, 5],
        &[7, 1, 5, 10],
        &[7, 1, 5, 6, 5],
        &[7, 1, 5, 11, 1, 5, 5],
        &[7, 15, 1],
        &[7, 15, 2],
        &[7, 1, 5, 22, 1],
        &[7, 1, 5, 23, 2],
        &[25, 7, 5, 5],
        &[25, 11, 5],
        &[20, 1, 5],
        &[20, 2, 1, 5, 5],
    ] {
        for tensor in [&external[..], &entry] {
            let model = if path[0] == 7 {
                nested(path, tensor)
            } else {
                [bytes(7, b""), nested(path, tensor)].concat()
            };
            let error = check_onnx(&model).unwrap_err();
            assert!(error.to_string().contains("external files"), "{path:?}: {error}");
            assert_eq!(error.kind(), Kind::External);
        }
    }
    // "In the file", said explicitly.
    let inside = [tensor("w", 1, &[1], &[0; 4]), vec![0x70, 0]].concat();
    check_onnx(&nested(&[7, 5], &inside)).unwrap();
}

#[test]
fn other_files_are_refused() {
    let says = |model: &[u8]| check_onnx(model).unwrap_err().to_string();
    assert!(says(b"").contains("no graph"));
    assert!(says(b"\x08\x09").contains("no graph"));
    assert!(says(b"....ORTM").contains("own format"));
    assert!(says(&[0x3b]).contains("broken"));
    assert!(says(&[0xff; 40]).contains("broken"));
    assert!(says(&[0x00, 0x00]).contains("broken"));
    // An engine would read two graphs as one that nobody has looked at.
    assert!(says(&[bytes(7, b""), bytes(7, b"")].concat()).contains("broken"));
    let deep = nested(&[[7].as_slice(), &[1, 5, 6].repeat(40)].concat(), b"");
    assert!(says(&deep).contains("deeply"));
    let name = nested(&[7, 1, 1], &vec![b'x'; 5000]);
    assert!(says(&name).contains("5000 bytes"));
}

#[test]
fn sizes_are_those_of_the_file() {
    let with = |dtype: i64, dims: &[i64], raw: &[u8]| nested(&[7, 5], &tensor("w", dtype, dims, raw));
    check_onnx(&with(1, &[2, 2], &[0; 16])).unwrap();
    check_onnx(&with(1, &[0, 7], &[])).unwrap();
    check_onnx(&with(22, &[3], &[0; 2])).unwrap();
    // 3 GB in a hundred bytes; 3 GB, overflow, a negative and a hidden factor.
    for dims in [&[750 << 20][..], &[1000, 700_000], &[i64::MAX, 4], &[-1], &[0, 1 << 40], &[4]] {
        let model = with(1, dims, &[0; 12]);
        assert!(model.len() < 100);
        assert_eq!(kind(&model), Kind::Size, "{dims:?}");
    }
    assert!(check_onnx(&with(99, &[1], &[0; 64])).unwrap_err().to_string().contains("element type 99"));
    let error = check_onnx(&with(1, &[5], &[0; 12])).unwrap_err().to_string();
    assert!(error.contains("claims 5 elements") && error.contains("holds 3"), "{error}");
    // Typed fields count too.
    let typed = [int(2, 7), int(1, 3), bytes(7, &[1, 0x80, 1, 5])].concat();
    check_onnx(&nested(&[7, 5], &typed)).unwrap();
    // Declared shapes, and what a sparse tensor stands for.
    assert_eq!(kind(&bytes(7, &value(11, "x", "b 1048576 1048576"))), Kind::Size);
    let sparse = [bytes(1, &tensor("s", 1, &[1], &[0; 4])), int(3, 1 << 28)].concat();
    assert_eq!(kind(&nested(&[7, 15], &sparse)), Kind::Size);
    // More dimensions than any tensor has.
    assert_eq!(kind(&with(1, &[1; 33], &[0; 4])), Kind::Limit);
}

#[test]
fn values_come_before_their_use() {
    let cycle = [node("Relu", &["b"], &["a"], &[]), node("Relu", &["a"], &["b"], &[])].concat();
    let error = check_onnx(&bytes(7, &cycle)).unwrap_err();
    assert!(error.to_string().contains("before any node produces it"), "{error}");
    assert_eq!(error.kind(), Kind::Graph);
    for graph in [
        node("Relu", &["x"], &["a"], &[]),
        [value(11, "x", "b"), node("Relu", &["x"], &["x"], &[])].concat(),
        [value(11, "x", "b"), value(12, "y", "b")].concat(),
        [value(11, "x", "b"), node("Relu", &["x"], &["y"], &[one("a", 1), one("a", 2)])].concat(),
    ] {
        assert_eq!(kind(&bytes(7, &graph)), Kind::Graph);
    }
    // A body sees the values around it, and they do not see it.
    let body =
        [bytes(6, &[node("Relu", &["x"], &["inner"], &[]), value(12, "inner", "b")].concat())].concat();
    let body = [bytes(1, b"then_branch"), body].concat();
    let outer = [value(11, "x", "b"), node("If", &["x"], &["y"], &[body])].concat();
    check_onnx(&bytes(7, &outer)).unwrap();
    let leaks = [outer, node("Relu", &["inner"], &["z"], &[])].concat();
    assert_eq!(kind(&bytes(7, &leaks)), Kind::Graph);
}

#[test]
fn operators_are_the_engines_own() {
    let graph = |domain: &str, op: &str| {
        bytes(7, &[value(11, "x", "b"), of_domain(domain, op, &["x"], &["y"], &[])].concat())
    };
    check_onnx(&graph("ai.onnx", "Relu")).unwrap();
    check_onnx(&graph("com.microsoft", "FastGelu")).unwrap();
    let error = check_onnx(&graph("evil.corp", "Run")).unwrap_err();
    assert!(error.to_string().contains("evil.corp") && error.kind() == Kind::Operator, "{error}");
    assert_eq!(kind(&graph("com.microsoft", "EPContext")), Kind::Operator);
    // The model may bring functions of its own, but none that replaces an operator, and none without end.
    let function = |domain: &str, calls: &str, times: usize| {
        let body: Vec<u8> = (0..times)
            .flat_map(|i| {
                let node = of_domain("my", calls, &["x"], &[&format!("y{i}")], &[]);
                bytes(7, &node[2..])
            })
            .collect();
        bytes(25, &[bytes(1, domain.as_bytes()), bytes(10, b"my"), bytes(4, b"x"), body].concat())
    };
    let relu = bytes(25, &[bytes(1, b"f0"), bytes(10, b"my"), bytes(4, b"x")].concat());
    check_onnx(&[graph("my", "f0"), relu.clone()].concat()).unwrap();
    let replaces = bytes(25, &[bytes(1, b"Relu"), bytes(4, b"x")].concat());
    assert_eq!(kind(&[graph("", "Relu"), replaces].concat()), Kind::Operator);
    assert_eq!(kind(&[graph("my", "f1"), function("f1", "f1", 1)].concat()), Kind::Limit);
    let mut laughs = [graph("my", "f9"), relu].concat();
    for level in 1..10 {
        laughs.extend(function(&format!("f{level}"), &format!("f{}", level - 1), 10));
    }
    // Each leaf is empty, so make it one node.
    let leaf = node("Relu", &["x"], &["y"], &[]);
    let leaf =
        bytes(25, &[bytes(1, b"leaf"), bytes(10, b"my"), bytes(4, b"x"), bytes(7, &leaf[2..])].concat());
    laughs.extend(leaf);
    laughs.extend(function("f10", "leaf", 10));
    let mut chain = [graph("my", "f15")].concat();
    for level in 11..16 {
        chain.extend(function(&format!("f{level}"), &format!("f{}", level - 1), 10));
    }
    chain.extend(laughs.split_off(graph("my", "f9").len()));
    assert_eq!(kind(&chain), Kind::Limit);
}

/// What the gate says of a graph with input `x` and output `y`.
fn rows_of(opset: i64, x: &str, parts: &[Vec<u8>]) -> Result<(), String> {
    let graph = [value(11, "x", x), value(12, "y", "b ?"), parts.concat()].concat();
    match check_onnx(&model(opset, &graph)).unwrap().batching {
        Batching::Rows => Ok(()),
        Batching::Off(reason) => Err(reason),
    }
}

fn n(op: &str, inputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    node(op, inputs, &["y"], attributes)
}

#[test]
fn rows_stay_apart_where_operators_say_so() {
    let chained = |op: &str| {
        [
            node("Shape", &["x"], &["s"], &[]),
            ints("zero", &[0]),
            ints("more", &[-1, 2]),
            node("Gather", &["s", "zero"], &["b"], &[]),
            node("Concat", &["b", "more"], &["t"], &[one("axis", 0)]),
            node(op, &["x", "t"], &["y"], &[]),
        ]
        .concat()
    };
    for (name, opset, x, parts) in [
        ("relu", 17, "b 3", vec![n("Relu", &["x"], &[])]),
        ("matmul", 17, "b 3", vec![floats("w", &[3, 4]), n("MatMul", &["x", "w"], &[])]),
        ("gemm", 17, "b 3", vec![floats("w", &[4, 3]), n("Gemm", &["x", "w"], &[one("transB", 1)])]),
        ("softmax", 17, "b 3", vec![n("Softmax", &["x"], &[])]),
        ("old softmax", 11, "b 3 4", vec![n("Softmax", &["x"], &[])]),
        ("mean", 17, "b 3 4", vec![n("ReduceMean", &["x"], &[attribute("axes", &[-1]), one("keepdims", 0)])]),
        ("reshape", 17, "b 4 6", vec![ints("t", &[-1, 24]), n("Reshape", &["x", "t"], &[])]),
        ("keep", 17, "b 4 6", vec![ints("t", &[0, 2, -1]), n("Reshape", &["x", "t"], &[])]),
        ("computed", 17, "b s 8", vec![chained("Reshape")]),
        (
            "there and back",
            17,
            "b s 8",
            vec![
                ints("t", &[-1, 8]),
                floats("w", &[8, 8]),
                node("Reshape", &["x", "t"], &["r"], &[]),
                node("MatMul", &["r", "w"], &["m"], &[]),
                node("Shape", &["x"], &["s"], &[]),
                node("Reshape", &["m", "s"], &["y"], &[]),
            ],
        ),
        (
            "own slice",
            17,
            "b 4",
            vec![ints("a", &[0, 1]), ints("z", &[i64::MAX, 3]), n("Slice", &["x", "a", "z"], &[])],
        ),
        (
            "lstm",
            17,
            "b s 8",
            vec![
                node("Transpose", &["x"], &["t"], &[attribute("perm", &[1, 0, 2])]),
                floats("w", &[1, 16, 8]),
                floats("r", &[1, 16, 4]),
                node("LSTM", &["t", "w", "r"], &["", "h"], &[one("hidden_size", 4)]),
                ints("first", &[0]),
                node("Squeeze", &["h", "first"], &["y"], &[]),
            ],
        ),
        ("lookup", 17, "b 4", vec![floats("w", &[9, 3]), n("Gather", &["w", "x"], &[])]),
    ] {
        assert_eq!(rows_of(opset, x, &parts), Ok(()), "{name}");
    }
}

#[test]
fn what_couples_rows_is_named() {
    let w = || floats("w", &[3, 3]);
    for (word, opset, x, parts) in [
        ("fixed to 1", 17, "1 3", vec![n("Relu", &["x"], &[])]),
        ("fixes the size of the batch", 17, "b 3", vec![ints("t", &[1, 3]), n("Reshape", &["x", "t"], &[])]),
        ("mixes the batch", 17, "b 3", vec![ints("t", &[3, -1]), n("Reshape", &["x", "t"], &[])]),
        ("normalises over the batch", 17, "b 3", vec![n("Softmax", &["x"], &[one("axis", 0)])]),
        ("normalises over the batch", 11, "b 3", vec![n("Softmax", &["x"], &[one("axis", 0)])]),
        ("folds the rows", 17, "b 3", vec![n("ReduceMax", &["x"], &[])]),
        ("folds the rows", 17, "b 3", vec![n("ReduceSum", &["x"], &[attribute("axes", &[0])])]),
        ("joins rows", 17, "b 3", vec![n("Concat", &["x", "x"], &[one("axis", 0)])]),
        ("adds the rows", 17, "b 3", vec![ints("a", &[0]), n("CumSum", &["x", "a"], &[])]),
        ("beside a dimension that is none", 17, "b 3", vec![w(), n("Add", &["x", "w"], &[])]),
        ("every row", 17, "b 3", vec![node("Transpose", &["x"], &["t"], &[]), n("MatMul", &["x", "t"], &[])]),
        (
            "sums over the batch",
            17,
            "b 3",
            vec![node("Transpose", &["x"], &["t"], &[]), n("MatMul", &["t", "x"], &[])],
        ),
        ("dimension 0 of output", 17, "b 3", vec![n("Transpose", &["x"], &[])]),
        (
            "one quantisation scale over the whole batch",
            17,
            "b 3",
            vec![node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], &[]), n("Relu", &["s"], &[])],
        ),
        (
            "size of the batch",
            17,
            "b 3",
            vec![
                ints("zero", &[0]),
                node("Shape", &["x"], &["s"], &[]),
                node("Gather", &["s", "zero"], &["k"], &[]),
                node("Cast", &["k"], &["f"], &[one("to", 1)]),
                n("Mul", &["x", "f"], &[]),
            ],
        ),
        (
            "number of the row",
            17,
            "b 3",
            vec![
                bytes(5, &tensor("zero", 7, &[], &[0; 8])),
                bytes(5, &tensor("step", 7, &[], &[1, 0, 0, 0, 0, 0, 0, 0])),
                node("Shape", &["x"], &["s"], &[]),
                node("Gather", &["s", "zero"], &["k"], &[]),
                node("Range", &["zero", "k", "step"], &["i"], &[]),
                ints("last", &[1]),
                node("Unsqueeze", &["i", "last"], &["u"], &[]),
                n("Mul", &["x", "u"], &[]),
            ],
        ),
        (
            "some rows of the batch",
            17,
            "b 3",
            vec![ints("a", &[1]), ints("z", &[i64::MAX]), n("Slice", &["x", "a", "z"], &[])],
        ),
        ("rows of the batch", 17, "b 3", vec![ints("i", &[0]), n("Gather", &["x", "i"], &[])]),
        ("not known to keep rows apart", 17, "b 3", vec![n("Unique", &["x"], &[])]),
        ("is random", 17, "b 3", vec![n("RandomNormalLike", &["x"], &[])]),
        ("does not depend on the batch", 17, "b 3", vec![w(), n("Relu", &["w"], &[])]),
        ("batch dimension twice", 17, "b b", vec![n("Relu", &["x"], &[])]),
        (
            "over the batch",
            17,
            "b 3 2",
            vec![
                floats("p", &[3]),
                n("BatchNormalization", &["x", "p", "p", "p", "p"], &[one("training_mode", 1)]),
            ],
        ),
    ] {
        let reason = rows_of(opset, x, &parts).unwrap_err();
        assert!(reason.contains(word), "{reason:?} has no {word:?}");
    }
    // Operators are named with their nodes.
    let reason = rows_of(17, "b 3", &[n("Unique", &["x"], &[])]).unwrap_err();
    assert_eq!(reason, "operator \"Unique\" of node \"n\" is not known to keep rows apart");
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = check_onnx(&bytes);
        let _ = check_onnx(&nested(&[7, 1, 5], &bytes));
        let _ = check_onnx(&nested(&[7, 5], &bytes));
        let _ = check_onnx(&nested(&[25], &bytes));
    }
}
