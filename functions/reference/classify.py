"""What Pillow, numpy and onnxruntime answer for some pictures -> functions/classify/tests/golden/
(classify.json and inputs/)

usage: classify.py      needs numpy, onnxruntime, pillow, $WASMETER_CACHE/models/efficientnet-lite0 and
                        $WASMETER_CACHE/samples/cat.png, cat.jpg
"""

import io
import json
import os
import pathlib

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps

CACHE = pathlib.Path(os.environ.get("WASMETER_CACHE", pathlib.Path.home() / ".cache" / "wasmeter"))
MODEL = CACHE / "models" / "efficientnet-lite0"
SAMPLES = CACHE / "samples"
OUT = pathlib.Path(__file__).resolve().parent.parent / "classify" / "tests" / "golden"
SIDE, STRIDE = 224, 757

LABELS = (MODEL / "labels.txt").read_text().splitlines()
SESSION = ort.InferenceSession(str(MODEL / "model.onnx"), providers=["CPUExecutionProvider"])
CAT = Image.open(SAMPLES / "cat.png").convert("RGB")


def encode(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def inputs():
    """Small pictures of every kind that the function says it takes."""
    small = CAT.resize((150, 100), Image.Resampling.BICUBIC)
    y, x = np.mgrid[0:90, 0:130]
    alpha = np.dstack([x * 255 // 129, y * 255 // 89, (x * y) % 256, (x + y) * 255 // 218]).astype(np.uint8)
    deep = ((x * 500 + y * 7) % 65536).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "rgb.png": encode(small.quantize(64).convert("RGB"), "PNG"),
        "palette.png": encode(small.quantize(32), "PNG"),
        "grey.png": encode(small.convert("L").quantize(32).convert("L"), "PNG"),
        "bits.png": encode(small.convert("1"), "PNG"),
        "alpha.png": encode(Image.fromarray(alpha, "RGBA"), "PNG"),
        "grey-alpha.png": encode(Image.fromarray(alpha, "RGBA").convert("LA"), "PNG"),
        "deep.png": encode(Image.fromarray(deep), "PNG"),
        "one-pixel.png": encode(Image.new("RGB", (1, 1), (200, 100, 50)), "PNG"),
        "wide.png": encode(Image.fromarray(alpha[:6, :, :3]).resize((700, 9)).quantize(32), "PNG"),
        "small.jpg": encode(small, "JPEG", quality=85),
        "no-subsampling.jpg": encode(small, "JPEG", quality=85, subsampling=0),
        "progressive.jpg": encode(small, "JPEG", quality=85, progressive=True),
        "grey.jpg": encode(small.convert("L"), "JPEG", quality=85),
        "turned.jpg": encode(small.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=85, exif=exif),
        "restarts.jpg": encode(small, "JPEG", quality=85, restart_marker_blocks=3),
    }


def to_rgb(image):
    """8-bit RGB, turned as the Exif tag says, on white."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def tensor(data):
    image = to_rgb(Image.open(io.BytesIO(data)))
    side = min(image.size) * 0.875
    left, top = ((d - side) / 2 for d in image.size)
    # With `box`, Pillow takes floats and looks at pixels beside the box as well.
    image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    levels = np.asarray(image, np.float32).transpose(2, 0, 1)
    return ((levels / 255 - 0.498) / 0.502)[None]


def case(name, where, data):
    x = tensor(data)
    logits = SESSION.run(["logits"], {"images": x})[0][0].astype(np.float64)
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    top = [{"label": LABELS[i], "index": int(i), "score": float(scores[i])} for i in np.argsort(-scores, kind="stable")[:5]]
    lossy = data[:2] == b"\xff\xd8"
    return {
        "name": name,
        **where,
        "answer": {"top": top},
        # JPEG decoders spread colours differently where there are fewer of them than pixels.
        "tolerance": {"score": 0.04 if lossy else 0.002, "tensor": 0.04 if lossy else 0.001, "tensor_mean": 0.006 if lossy else 0.0002},
        "tensor_every": STRIDE,
        "tensor": [round(float(v), 4) for v in x.reshape(-1)[::STRIDE]],
    }


def refused(made):
    png, jpg = made["rgb.png"], made["small.jpg"]
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0x55
    huge = bytearray(made["one-pixel.png"])
    huge[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    return {
        "nothing": b"",
        "text": b"this is no picture\n",
        "half-a.png": png[: len(png) // 2],
        "half-a.jpg": jpg[: len(jpg) // 2],
        "half-progressive.jpg": made["progressive.jpg"][: len(made["progressive.jpg"]) // 2],
        "flipped.png": bytes(flipped),
        "huge.png": bytes(huge),
        "only-magic.jpg": b"\xff\xd8\xff\xe0",
        "a.gif": encode(Image.new("P", (8, 8)), "GIF"),
    }


if __name__ == "__main__":
    (OUT / "inputs").mkdir(parents=True, exist_ok=True)
    made = inputs()
    bad = refused(made)
    for name, data in {**made, **{f"refused-{n}": d for n, d in bad.items()}}.items():
        (OUT / "inputs" / name).write_bytes(data)
    cases = [case(n, {"sample": n}, (SAMPLES / n).read_bytes()) for n in ("cat.png", "cat.jpg")]
    cases += [case(n, {"file": f"inputs/{n}"}, d) for n, d in made.items()]
    golden = {
        "made_by": f"functions/reference/classify.py with onnxruntime {ort.__version__}, pillow {Image.__version__}",
        "how": "POST the picture to the function classify. `file` is beside this file, `sample` in $WASMETER_CACHE/samples. "
        "Each expected class with a score above 0.1 must be in the answer with its score within the tolerance. "
        "What `refused` names must answer 400 with {\"error\": …}.",
        "refused": [{"name": n, "file": f"inputs/refused-{n}", "status": 400} for n in bad],
    }
    rows = ",\n".join("  " + json.dumps(c) for c in cases)
    (OUT / "classify.json").write_text(f'{json.dumps(golden, indent=1)[:-2]},\n "cases": [\n{rows}\n ]\n}}\n')
    for c in cases:
        print(f"{c['name']:20}", ", ".join(f"{t['label'].split(',')[0]} {t['score']:.3f}" for t in c["answer"]["top"][:3]))
