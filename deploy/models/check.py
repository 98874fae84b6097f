"""Prove that the demo models in the cache answer rightly through ONNX Runtime itself, without wasmeter.

usage: check.py [CACHE]     (default $WASMETER_CACHE or ~/.cache/wasmeter; run by the cache's own python)

Each model gets its pre- and post-processing from its publisher's description. Prints one line a check; exits 1 when
one is wrong. Where the demo fails and this passes, the fault is in wasmeter and not in a model or its labels.
"""

import json
import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the engine is loaded, or it starts its telemetry

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

failed = 0
passed = 0


def check(right, line):
    global failed, passed
    passed, failed = passed + bool(right), failed + (not right)
    print(f"{'ok   ' if right else 'WRONG'} {line}")


def session(folder):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"])


def efficientnet(folder, samples):
    model = session(folder)
    with open(os.path.join(folder, "labels.txt"), encoding="utf-8") as file:
        labels = file.read().splitlines()
    check(len(labels) == 1000, f"efficientnet-lite0: {len(labels)} labels")
    # Places that no shift or other order of the classes survives.
    known = {0: "tench", 1: "goldfish", 281: "tabby", 285: "Egyptian cat", 510: "container ship", 999: "toilet tissue"}
    check(all(labels[i].startswith(name) for i, name in known.items()), "efficientnet-lite0: class order")
    for name in ("cat.png", "cat.jpg"):
        with Image.open(os.path.join(samples, name)) as image:
            image = image.convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            box = (left, top, left + side, top + side)
            pixels = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC, box), np.float32)
        logits = model.run(None, {"images": ((pixels - 127) / 128).transpose(2, 0, 1)[None]})[0][0]
        odds = np.exp(logits - logits.max())
        odds /= odds.sum()
        top = np.argsort(-odds)[:5]
        shown = "; ".join(f"{labels[i].split(',')[0]} {odds[i]:.2f}" for i in top)
        check(281 <= top[0] <= 285, f"efficientnet-lite0: {name}: {shown}")


def minilm(folder):
    model = session(folder)
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "vocab.txt"), encoding="utf-8") as file:
        pieces = file.read().split("\n")[:-1]
    same = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())] == pieces
    check(same, f"minilm: vocab.txt holds the tokenizer's {len(pieces)} pieces in the order of their ids")
    tokenizer.no_padding()

    def embed(*texts):
        encoded = tokenizer.encode_batch(list(texts))
        width = max(len(e.ids) for e in encoded)
        padded = lambda rows: np.array([row + [0] * (width - len(row)) for row in rows], np.int64)
        ids, mask = padded([e.ids for e in encoded]), padded([e.attention_mask for e in encoded])
        hidden = model.run(None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})[0]
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    for a, b, right in (
        ("A man is playing a guitar on stage.", "Someone performs music with a guitar.", lambda s: s > 0.6),
        ("The cat sleeps on the sofa.", "A kitten is napping on the couch.", lambda s: s > 0.6),
        ("The cat sleeps on the sofa.", "Quarterly revenue rose by nine percent.", lambda s: s < 0.2),
    ):
        together = embed(a, b)
        similarity = float(together[0] @ together[1])
        check(right(similarity), f"minilm: {similarity:.3f} {a!r} {b!r}")
        # Padding and batch mates must not change an answer: the card allows batches.
        alone = np.concatenate([embed(a), embed(b)])
        check(np.abs(alone - together).max() < 1e-4, "minilm: the same alone and in a batch")


def magika(folder, samples):
    model = session(folder)
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    with open(os.path.join(folder, "content_types.json"), encoding="utf-8") as file:
        types = json.load(file)
    names = config["target_labels_space"]
    check(all(name in types for name in names), f"magika: content_types.json describes all {len(names)} labels")
    begin, end, pad, block = (config[k] for k in ("beg_size", "end_size", "padding_token", "block_size"))

    def classify(content):
        head = content[:block].lstrip()[:begin]
        tail = content[-block:].rstrip()[-end:]
        features = list(head) + [pad] * (begin - len(head)) + [pad] * (end - len(tail)) + list(tail)
        odds = model.run(None, {"bytes": np.array([features], np.int32)})[0][0]
        return names[int(odds.argmax())], float(odds.max())

    def read(path):
        with open(path, "rb") as file:
            return file.read()

    for what, content, expected in (
        ("this script", read(__file__), "python"),
        ("cat.png", read(os.path.join(samples, "cat.png")), "png"),
        ("cat.jpg", read(os.path.join(samples, "cat.jpg")), "jpeg"),
        ("the model's configuration", read(os.path.join(folder, "config.json")), "json"),
        ("the model", read(os.path.join(folder, "model.onnx")), "onnx"),
        ("this interpreter", read(os.path.realpath(sys.executable)), "elf"),
    ):
        name, odds = classify(content)
        check(name == expected, f"magika: {what}: {name} {odds:.3f} ({types[name]['mime_type']})")


if __name__ == "__main__":
    default = os.environ.get("WASMETER_CACHE", os.path.expanduser("~/.cache/wasmeter"))
    cache = sys.argv[1] if len(sys.argv) > 1 else default
    of = lambda name: os.path.join(cache, "models", name)
    efficientnet(of("efficientnet-lite0"), os.path.join(cache, "samples"))
    minilm(of("minilm"))
    magika(of("magika"), os.path.join(cache, "samples"))
    print(f"models: {passed} passed, {failed} failed")
    sys.exit(failed > 0)
