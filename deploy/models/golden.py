"""What the models answer to small inputs, computed with ONNX Runtime from Python: the reference for both engines.

usage: golden.py [--write] [CACHE]     (default $WASMETER_CACHE or ~/.cache/wasmeter; run by the cache's own python)

Without --write, computes anew and compares with host/crates/device/tests/golden/*.json, which the tests of
wasmeter-device compare both engines with; exits 1 where a file is out of date. With it, writes them.
"""

import base64
import json
import math
import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the engine is loaded, or it starts its telemetry

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../host/crates/device/tests/golden")
# Another processor may order its sums in another way.
TOLERANCE = 1e-3


def session(cache, name):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    path = os.path.join(cache, "models", name, "model.onnx")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def floats(array):
    return [float(f"{x:.7g}") for x in np.asarray(array, np.float64).ravel()]


def efficientnet(cache):
    """A cat of 28 by 28 pixels, each eight pixels wide and high in the input."""
    with Image.open(os.path.join(cache, "samples", "cat.png")) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        small = np.asarray(image.convert("RGB").resize((28, 28), Image.Resampling.BICUBIC, box), np.uint8)
    pixels = small.repeat(8, 0).repeat(8, 1).astype(np.float32)
    logits = session(cache, "efficientnet-lite0").run(None, {"images": ((pixels - 127) / 128).transpose(2, 0, 1)[None]})[0]
    return {"pixels": base64.b64encode(small.tobytes()).decode(), "logits": floats(logits)}


def minilm(cache):
    """Two sentences, padded to one length: token ids and mask in, the mean over the unmasked tokens out."""
    tokenizer = Tokenizer.from_file(os.path.join(cache, "models", "minilm", "tokenizer.json"))
    tokenizer.no_padding()
    encoded = tokenizer.encode_batch(["A man is playing a guitar on stage.", "The cat sleeps."])
    width = max(len(e.ids) for e in encoded)
    padded = lambda rows: np.array([row + [0] * (width - len(row)) for row in rows], np.int64)
    ids, mask = padded([e.ids for e in encoded]), padded([e.attention_mask for e in encoded])
    model = session(cache, "minilm")
    hidden = model.run(None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})[0]
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return {"ids": ids.tolist(), "mask": mask.tolist(), "mean": [floats(row) for row in mean]}


def ocr(cache):
    """A drawn line of text: its grey pixels in, the best class of each step and its probability out."""
    text = "Hello Wasm 2026"
    font = ImageFont.load_default(34)
    width = math.ceil(font.getlength(text)) + 16
    image = Image.new("L", (width, 48), 255)
    ImageDraw.Draw(image).text((8, 2), text, 0, font)
    # Sixteen greys are enough to read, and half the bytes.
    grey = np.asarray(image) // 17
    steps = session(cache, "ocr-rec").run(None, {"x": np.repeat((grey * 17 / 127.5 - 1).astype(np.float32)[None, None], 3, 1)})[0][0]
    with open(os.path.join(cache, "models", "ocr-rec", "keys.txt"), encoding="utf-8") as file:
        keys = ["", *file.read().split("\n")[:-1], " "]
    best = steps.argmax(1)
    read = "".join(keys[c] for i, c in enumerate(best) if c and (i == 0 or best[i - 1] != c))
    if read != text:
        sys.exit(f"ocr-rec reads {read!r} instead of {text!r}")
    flat = grey.ravel()
    flat = np.append(flat, 0) if len(flat) % 2 else flat
    return {
        "text": text,
        "width": width,
        "grey": base64.b64encode((flat[0::2] * 16 + flat[1::2]).astype(np.uint8).tobytes()).decode(),
        "classes": best.tolist(),
        "odds": floats(steps.max(1)),
    }


def silero(cache):
    """Windows of a tone with harmonics whose pitch and loudness move as in speech, between silences; state carried on."""
    model = session(cache, "silero-vad")
    state, context, odds = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
    for window in range(12):
        samples = np.array([sample(window * 512 + i) if 3 <= window < 9 else 0.0 for i in range(512)], np.float32)
        row = np.concatenate([context, samples])
        out, state = model.run(None, {"input": row[None], "sr": np.array(16000, np.int64), "state": state})
        context = samples[-64:]
        odds.append(out[0, 0])
    return {"odds": floats(odds), "state": floats(state)}


def sample(i):
    t = i / 16000
    pitch = 2 * math.pi * 140 * t + 3 * math.sin(2 * math.pi * 4 * t)
    voice = sum(math.sin(k * pitch) / k for k in range(1, 13))
    return 0.2 * (0.6 + 0.4 * math.sin(2 * math.pi * 5 * t)) * voice


def near(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(near(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(near(x, y) for x, y in zip(a, b))
    if isinstance(a, float) or isinstance(b, float):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return a == b


def main(arguments):
    write = "--write" in arguments
    rest = [a for a in arguments if a != "--write"]
    cache = rest[0] if rest else os.environ.get("WASMETER_CACHE", os.path.expanduser("~/.cache/wasmeter"))
    passed = failed = 0
    for name, compute in (("efficientnet-lite0", efficientnet), ("minilm", minilm), ("ocr-rec", ocr), ("silero-vad", silero)):
        path = os.path.join(GOLDEN, name + ".json")
        found = compute(cache)
        if write:
            os.makedirs(GOLDEN, exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write("{\n" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in found.items()) + "\n}\n")
        with open(path, encoding="utf-8") as file:
            right = near(json.load(file), found)
        passed, failed = passed + right, failed + (not right)
        print(f"{'ok   ' if right else 'WRONG'} golden answers of {name}")
    print(f"golden: {passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main(sys.argv[1:])
