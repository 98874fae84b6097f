"""Prepare the OCR recognition model: name its dimensions and take its characters out.

usage: ocr_rec.py REC.onnx MODEL.onnx KEYS.txt

The published file gives the batch dimension another name in the output than in the input, and leaves the height open
though only 48 works; with true names a reader can see that rows go in and the same rows come out. The weights and
the operators stay as they are.
"""

import sys

import onnx

CLASSES = 6625


def name_dims(value, dims):
    shape = value.type.tensor_type.shape
    if len(shape.dim) != len(dims):
        sys.exit(f"{value.name} has {len(shape.dim)} dimensions, expected {len(dims)}")
    for found, wanted in zip(shape.dim, dims):
        found.Clear()
        if isinstance(wanted, int):
            found.dim_value = wanted
        else:
            found.dim_param = wanted


def main(source, dest, keys):
    model = onnx.load(source)
    graph = model.graph
    if len(graph.input) != 1 or len(graph.output) != 1:
        sys.exit(f"{source}: expected one input and one output")
    characters = [entry.value for entry in model.metadata_props if entry.key == "character"]
    lines = characters[0].splitlines() if len(characters) == 1 else []
    # Before them "nothing", after them a space.
    if len(lines) != CLASSES - 2:
        sys.exit(f"{source}: expected {CLASSES - 2} characters in its metadata, found {len(lines)}")
    name_dims(graph.input[0], ["batch", 3, 48, "width"])
    name_dims(graph.output[0], ["batch", "step", CLASSES])
    old = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["steps" if name == old else name for name in node.output]
        node.input[:] = ["steps" if name == old else name for name in node.input]
    graph.output[0].name = "steps"
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, dest)
    with open(keys, "w", encoding="utf-8", newline="\n") as out:
        out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
