"""What magika itself answers for some inputs -> functions/filetype/tests/golden/filetype.json

usage: filetype.py      needs the PyPI package magika 1.0.3 and pillow
The features are hashed (FNV-1a, 64 bits, over i32 little-endian) to keep the file small.
"""

import base64
import gzip
import io
import json
import pathlib
import random
import struct
import zipfile
import zlib

from magika import Magika
from magika.types import Seekable
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parent.parent / "filetype" / "tests" / "golden" / "filetype.json"
MAGIKA = Magika()


def picture(kind):
    image = Image.new("RGB", (24, 16))
    image.putdata([(x * 10, y * 15, (x * y) % 256) for y in range(16) for x in range(24)])
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def archive():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name in ("readme.txt", "data/table.csv"):
            z.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), f"{name}\n" * 40)
    return out.getvalue()


def wav():
    samples = b"".join(struct.pack("<h", (n * 997) % 20000 - 10000) for n in range(600))
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"data" + struct.pack("<I", len(samples))
    return b"RIFF" + struct.pack("<I", len(head) + len(samples)) + head + samples


PYTHON = b'''import sys


def fibonacci(n: int) -> int:
    """The n-th number, slowly."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(fibonacci(int(argument)))
'''
RUST = b'''use std::collections::BTreeMap;

/// Counts words.
pub fn count(text: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word).or_insert(0) += 1;
    }
    counts
}
'''
HTML = b"<!DOCTYPE html>\n<html><head><title>Hello</title></head>\n<body><h1>Hello</h1><p>A page.</p></body></html>\n"
PROSE = b"The committee met on Tuesday and agreed to nothing in particular, which surprised nobody who had been there. "
CSV = b"city,country,people\n" + b"".join(b"town%d,land%d,%d\n" % (n, n % 7, n * 1234) for n in range(40))
RANDOM = random.Random(42).randbytes(5000)

INPUTS = {
    "python": PYTHON,
    "rust": RUST,
    "html": HTML,
    "json": json.dumps({"name": "wasmeter", "list": list(range(30)), "nested": {"a": None, "b": True}}, indent=1).encode(),
    "csv": CSV,
    "prose": PROSE * 4,
    "toml": b'[package]\nname = "x"\nversion = "0.1.0"\n\n[dependencies]\nserde = { version = "1", features = ["derive"] }\n',
    "shell": b"#!/bin/bash\nset -euo pipefail\nfor f in *.txt; do\n  echo \"$f\" | tr a-z A-Z\ndone\n",
    "png": picture("PNG"),
    "jpeg": picture("JPEG"),
    "gif": picture("GIF"),
    "bmp": picture("BMP"),
    "zip": archive(),
    "gzip": gzip.compress(PROSE * 30, mtime=0),
    "zlib": zlib.compress(PROSE * 30),
    "wav": wav(),
    "wasm": b"\0asm\1\0\0\0" + bytes([1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3]) + b"add\0\0\n\t\1\7\0\x20\0\x20\1\x6a\x0b",
    "random": RANDOM,
    "empty": b"",
    "one letter": b"a",
    "seven bytes": b"1234567",
    "eight bytes": b"12345678",
    "few bytes that are no text": b"\xff\xfe\x00\x01",
    "white space only": b" \t\r\n\x0b\x0c" * 20,
    "seven bytes in white space": b"   \n\n 1234567 \x0b\n   ",
    "eight bytes in white space": b"   \n\n 12345678 \x0b\n   ",
    "white space longer than a block": b" " * 4096 + PYTHON,
    "code within white space": b"\n\x0c  " * 30 + PYTHON + b"\n" * 99,
    "no UTF-8 in few bytes": b"      caf\xe9      ",
    "exactly a block": (PROSE * 50)[:4096],
    "exactly the features": (RUST * 9)[:2048],
    "longer than a block": HTML + PROSE * 60 + b"</p>\n\n\n",
}


def fnv1a(numbers):
    value = 0xCBF29CE484222325
    for byte in b"".join(struct.pack("<i", n) for n in numbers):
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return f"{value:016x}"


def case(name, data):
    answer = MAGIKA.identify_bytes(data).prediction
    out = {
        "name": name,
        "base64": base64.b64encode(data).decode(),
        "answer": {
            "label": str(answer.output.label),
            "description": answer.output.description,
            "mime": answer.output.mime_type,
            "score": answer.score,
        },
    }
    _, features = MAGIKA._get_result_or_features_from_seekable(Seekable(io.BytesIO(data)))
    if features is not None:
        out["features_fnv1a64"] = fnv1a(features.beg + features.end)
    return out


if __name__ == "__main__":
    golden = {
        "made_by": "functions/reference/filetype.py with magika " + MAGIKA.get_module_version() + ", model " + MAGIKA.get_model_name(),
        "how": "POST the bytes to the function filetype; label, description and mime must be equal, score within the tolerance",
        "tolerance": {"score": 1e-4},
        "cases": [case(name, data) for name, data in INPUTS.items()],
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(golden, indent=1) + "\n")
    for c in golden["cases"]:
        print(f"{c['name']:34} {c['answer']['label']:12} {c['answer']['score']:.4f}")
