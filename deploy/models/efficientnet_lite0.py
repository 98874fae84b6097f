"""Convert the EfficientNet-lite0 checkpoint (PyTorch, .pth) to ONNX without PyTorch.

usage: efficientnet_lite0.py CHECKPOINT.pth MODEL.onnx

The model takes `images`, f32 [batch, 3, 224, 224], RGB, scaled to (x - 127) / 128, and answers `logits`,
f32 [batch, 1000]. Batch normalisation is folded into the convolutions: the checkpoint is for inference only.

Architecture: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019); the
"lite" variants have no squeeze-and-excitation and use ReLU6.
"""

import collections
import pickle
import struct
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 224
CLASSES = 1000
STEM_CHANNELS = 32
BATCH_NORM_EPSILON = 1e-3
OPSET, IR_VERSION = 17, 8

# One row a stage: expansion, output channels, blocks, stride of the first block, kernel.
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)

STORAGE_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}

TensorRef = collections.namedtuple("TensorRef", "storage offset shape strides")


def _tensor_ref(storage, offset, shape, strides, *_):
    return TensorRef(storage, offset, shape, strides)


class CheckpointUnpickler(pickle.Unpickler):
    """Reads tensors as references and refuses every other class: a pickle can run code."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor_ref
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"checkpoint names {module}.{name}, which no tensor needs")

    def persistent_load(self, pid):
        kind, dtype, key = pid[:3]
        if kind != "storage":
            raise pickle.UnpicklingError(f"checkpoint holds an unknown persistent object {kind!r}")
        return key, dtype


def load_checkpoint(path):
    """The state dict of a checkpoint in PyTorch's format before 1.6: five pickles, then the raw storages."""
    with open(path, "rb") as file:
        for _ in range(3):  # magic number, protocol version, system information
            CheckpointUnpickler(file).load()
        refs = CheckpointUnpickler(file).load()
        keys = CheckpointUnpickler(file).load()
        dtypes = dict(ref.storage for ref in refs.values())
        storages = {}
        for key in keys:
            (count,) = struct.unpack("<q", file.read(8))
            storages[key] = np.frombuffer(file.read(count * dtypes[key].itemsize), dtypes[key])
    weights = {}
    for name, ref in refs.items():
        key, dtype = ref.storage
        strides = [s * dtype.itemsize for s in ref.strides]
        view = np.lib.stride_tricks.as_strided(storages[key][ref.offset :], ref.shape, strides)
        weights[name] = np.ascontiguousarray(view)
    return weights


class Builder:
    """Appends nodes and constants to one ONNX graph and follows the side length of the feature map."""

    def __init__(self, weights):
        self.weights = weights
        self.nodes = []
        self.constants = []
        self.side = SIZE
        self.zero = self.constant(np.float32(0))
        self.six = self.constant(np.float32(6))

    def constant(self, array):
        name = f"w{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, output=None, **attributes):
        output = output or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def conv(self, x, weight, norm, kernel, stride, groups=1, relu6=True):
        """Convolution with TensorFlow's SAME padding, folded batch norm, ReLU6."""
        get = self.weights.__getitem__
        scale = get(f"{norm}.weight") / np.sqrt(get(f"{norm}.running_var") + BATCH_NORM_EPSILON)
        bias = get(f"{norm}.bias") - get(f"{norm}.running_mean") * scale
        folded = get(f"{weight}.weight") * scale[:, None, None, None]

        out_side = -(-self.side // stride)
        pad = max((out_side - 1) * stride + kernel - self.side, 0)
        before, after = pad // 2, pad - pad // 2  # SAME puts the odd pixel at the end
        self.side = out_side

        y = self.node(
            "Conv",
            [x, self.constant(folded.astype(np.float32)), self.constant(bias.astype(np.float32))],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )
        return self.node("Clip", [y, self.zero, self.six]) if relu6 else y

    def block(self, x, name, expansion, channels_in, channels_out, stride, kernel):
        """Inverted residual: expand, depthwise, project; a shortcut where the shapes agree."""
        y, width = x, channels_in * expansion
        if expansion > 1:
            y = self.conv(y, f"{name}._expand_conv", f"{name}._bn0", 1, 1)
        y = self.conv(y, f"{name}._depthwise_conv", f"{name}._bn1", kernel, stride, groups=width)
        y = self.conv(y, f"{name}._project_conv", f"{name}._bn2", 1, 1, relu6=False)
        return self.node("Add", [x, y]) if stride == 1 and channels_in == channels_out else y


def build(weights):
    """The whole network as an ONNX model."""
    net = Builder(weights)
    x = net.conv("images", "_conv_stem", "_bn0", 3, 2)
    channels, index = STEM_CHANNELS, 0
    for expansion, channels_out, blocks, stride, kernel in STAGES:
        for n in range(blocks):
            first = stride if n == 0 else 1
            x = net.block(x, f"_blocks.{index}", expansion, channels, channels_out, first, kernel)
            channels, index = channels_out, index + 1
    x = net.conv(x, "_conv_head", "_bn1", 1, 1)
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x])])
    fc = [x, net.constant(weights["_fc.weight"]), net.constant(weights["_fc.bias"])]
    net.node("Gemm", fc, output="logits", transB=1)

    graph = helper.make_graph(
        net.nodes,
        "efficientnet_lite0",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        net.constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="wasmeter")
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    onnx.save(build(load_checkpoint(sys.argv[1])), sys.argv[2])
