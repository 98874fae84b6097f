"""Makes the tiny ONNX models of the tests: functions/_fixtures/models/<name>.onnx. Same bytes at each run.

usage: tiny_models.py [--check] [--ir]      --check also runs them (needs onnxruntime), --ir also makes tiny.xml and
                                            tiny.bin, tiny as OpenVINO's IR (needs openvino 2026.4.1)

identity-<type>   x [batch, columns] -> y, for f16 bf16 f32 f64 u8 i32 i64
mlp               x f32 [batch, 784] -> y f32 [batch, 10]: 784-64-10 with ReLU, random weights of a fixed seed
pair              a f32 [batch, 3], b f32 [batch, 2] -> double [batch, 3] = a + a, total [batch, 2] = a W + b; W has small
                  integers, so that small integers come out exactly, also of an engine that computes in bf16
tiny              x f32 [batch, 8] -> y f32 [batch, 4]: 8-16-4 with ReLU and softmax, random weights of a fixed seed
slow              size i64 [1], rounds i64 [1] -> mean f32 [1]: `rounds` products of two dense `size` x `size`
                  matrices, one after another; one product is one kernel, which no engine interrupts
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

OUT = pathlib.Path(__file__).resolve().parent.parent / "_fixtures" / "models"
TYPES = {"f16": T.FLOAT16, "bf16": T.BFLOAT16, "f32": T.FLOAT, "f64": T.DOUBLE, "u8": T.UINT8, "i32": T.INT32, "i64": T.INT64}


def save(name, nodes, inputs, outputs, initializers=()):
    graph = h.make_graph(nodes, name, inputs, outputs, list(initializers))
    model = h.make_model(graph, producer_name="wasmeter", opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    (OUT / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def identities():
    for name, ty in TYPES.items():
        x, y = (h.make_tensor_value_info(n, ty, ["batch", "columns"]) for n in "xy")
        save(f"identity-{name}", [h.make_node("Identity", ["x"], ["y"])], [x], [y])


def mlp():
    rng = np.random.default_rng(784)
    weight = lambda rows, columns: (rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
    initializers = [
        nh.from_array(weight(784, 64), "w1"),
        nh.from_array(rng.standard_normal(64).astype(np.float32), "b1"),
        nh.from_array(weight(64, 10), "w2"),
        nh.from_array(rng.standard_normal(10).astype(np.float32), "b2"),
    ]
    nodes = [
        h.make_node("Gemm", ["x", "w1", "b1"], ["h1"]),
        h.make_node("Relu", ["h1"], ["h2"]),
        h.make_node("Gemm", ["h2", "w2", "b2"], ["y"]),
    ]
    x, y = (h.make_tensor_value_info(n, T.FLOAT, ["batch", d]) for n, d in (("x", 784), ("y", 10)))
    save("mlp", nodes, [x], [y], initializers)


def pair():
    weight = nh.from_array(np.array([[1, -2], [3, 4], [-5, 6]], np.float32), "w")
    nodes = [
        h.make_node("Add", ["a", "a"], ["double"]),
        h.make_node("MatMul", ["a", "w"], ["product"]),
        h.make_node("Add", ["product", "b"], ["total"]),
    ]
    a, b, double, total = (
        h.make_tensor_value_info(n, T.FLOAT, ["batch", d]) for n, d in (("a", 3), ("b", 2), ("double", 3), ("total", 2))
    )
    save("pair", nodes, [a, b], [double, total], [weight])


def tiny():
    rng = np.random.default_rng(8)
    weight = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    initializers = [nh.from_array(w, n) for n, w in (("w1", weight(8, 16)), ("b1", weight(16)), ("w2", weight(16, 4)))]
    nodes = [
        h.make_node("Gemm", ["x", "w1", "b1"], ["h1"]),
        h.make_node("Relu", ["h1"], ["h2"]),
        h.make_node("MatMul", ["h2", "w2"], ["h3"]),
        h.make_node("Softmax", ["h3"], ["y"], axis=-1),
    ]
    x, y = (h.make_tensor_value_info(n, T.FLOAT, ["batch", d]) for n, d in (("x", 8), ("y", 4)))
    save("tiny", nodes, [x], [y], initializers)


def ir():
    import openvino

    model = openvino.convert_model(OUT / "tiny.onnx")
    openvino.save_model(model, OUT / "tiny.xml", compress_to_fp16=False)


def slow():
    # The matrix is made from the inputs, so that no optimiser can compute the product at load time. Its elements
    # are 1/size: each product gives the same matrix again, whatever the number of rounds.
    body = h.make_graph(
        [
            h.make_node("MatMul", ["state", "step"], ["next"]),
            h.make_node("Identity", ["going"], ["still"]),
        ],
        "body",
        [
            h.make_tensor_value_info("round", T.INT64, []),
            h.make_tensor_value_info("going", T.BOOL, []),
            h.make_tensor_value_info("state", T.FLOAT, ["n", "n"]),
        ],
        [h.make_tensor_value_info("still", T.BOOL, []), h.make_tensor_value_info("next", T.FLOAT, ["n", "n"])],
    )
    nodes = [
        h.make_node("Cast", ["size"], ["size_f"], to=T.FLOAT),
        h.make_node("Reciprocal", ["size_f"], ["element"]),
        h.make_node("Concat", ["size", "size"], ["shape"], axis=0),
        h.make_node("Expand", ["element", "shape"], ["step"]),
        h.make_node("Squeeze", ["rounds"], ["trips"]),
        h.make_node("Loop", ["trips", "", "step"], ["last"], body=body),
        h.make_node("ReduceSum", ["last"], ["sum"], keepdims=0),
        h.make_node("Div", ["sum", "size_f"], ["mean"]),
    ]
    inputs = [h.make_tensor_value_info(n, T.INT64, [1]) for n in ("size", "rounds")]
    save("slow", nodes, inputs, [h.make_tensor_value_info("mean", T.FLOAT, [1])])


def check():
    import time

    import onnxruntime as ort

    run = lambda name, feed: ort.InferenceSession(str(OUT / f"{name}.onnx"), providers=["CPUExecutionProvider"]).run(None, feed)
    for name, ty in TYPES.items():
        if name != "bf16":  # numpy has no such type
            x = np.arange(12).reshape(2, 6).astype(h.tensor_dtype_to_np_dtype(ty))
            assert (run(f"identity-{name}", {"x": x})[0] == x).all(), name
        else:
            ort.InferenceSession(str(OUT / "identity-bf16.onnx"), providers=["CPUExecutionProvider"])
    double, total = run("pair", {"a": np.array([[1, 2, 3]], np.float32), "b": np.array([[10, 20]], np.float32)})
    assert double.tolist() == [[2, 4, 6]] and total.tolist() == [[2, 44]], (double, total)
    print("mlp of zeros:", run("mlp", {"x": np.zeros((1, 784), np.float32)})[0].tolist())
    for size in (256, 2048, 3072, 4096):
        start = time.monotonic()
        mean = run("slow", {"size": np.array([size]), "rounds": np.array([1])})[0]
        print(f"slow size {size}: mean {mean}, {time.monotonic() - start:.2f} s")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    identities(), mlp(), pair(), tiny(), slow()
    if "--ir" in sys.argv:
        ir()
    if "--check" in sys.argv:
        check()
