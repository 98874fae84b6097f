"""What onnxruntime and the tokenizers library answer for pairs of texts
-> functions/similar/tests/golden/similar.json

usage: similar.py       needs numpy, onnxruntime, tokenizers and $WASMETER_CACHE/models/minilm
"""

import json
import os
import pathlib

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

CACHE = pathlib.Path(os.environ.get("WASMETER_CACHE", pathlib.Path.home() / ".cache" / "wasmeter"))
MODEL = CACHE / "models" / "minilm"
OUT = pathlib.Path(__file__).resolve().parent.parent / "similar" / "tests" / "golden" / "similar.json"

LONG = " ".join(f"Sentence number {n} speaks of rivers, mountains and the weather in the valley." for n in range(60))
PAIRS = [
    ("A cat sits on the mat.", "A kitten is resting on a rug."),
    ("A man is playing a guitar.", "Someone plays an instrument."),
    ("How do I reset my password?", "I forgot my login and need a new one."),
    ("A cat sits on the mat.", "The stock market fell sharply today."),
    ("The committee approved the budget.", "Penguins cannot fly."),
    ("same text", "same text"),
    ("Same TEXT", "same   text\n"),
    ("", "an empty text has a vector too"),
    ("", ""),
    ("short", LONG),
    (LONG, LONG[: len(LONG) // 8]),
    ("Crème brûlée à l'Ångström façade", "creme brulee a l'angstrom facade"),
    ("naïve coöperation: Größe, ŁÓDŹ, İstanbul", "ﬁne ligatures ①②③ ½ ™"),
    ("我喜欢猫", "I like cats"),
    ("東京タワーは高い。", "Токио — столица Японии"),
    ("emoji 😀 👩‍👩‍👧 🇫🇷 mixed", "zero\u200bwidth\u00adsoft\ufeffmark\u0000nul\u0007bell"),
    ("don't... e-mail@example.com (50%) $3.50 #tag `x` ~y", "snake_case camelCase C++ a/b\\c <tag> {json: [1, 2]}"),
    ("supercalifragilisticexpialidocious antidisestablishmentarianism", "x" * 100 + " " + "y" * 101),
    ("\u00a0non\u2003breaking\u3000spaces\u2028lines\u2029and\ttabs", "हिन्दी العربية עברית ไทย 한국어"),
    ("ＦＵＬＬ　ｗｉｄｔｈ！", "full width!"),
]

TOKENIZER = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
TOKENIZER.no_padding()
TOKENIZER.enable_truncation(256)
SESSION = ort.InferenceSession(str(MODEL / "model.onnx"), providers=["CPUExecutionProvider"])


def tokens(text):
    return TOKENIZER.encode(text).ids


def vector(ids):
    ids = np.array([ids], np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    mean = SESSION.run(["last_hidden_state"], feed)[0][0].astype(np.float64).mean(0)
    return mean / np.linalg.norm(mean)


def case(a, b):
    ids = tokens(a), tokens(b)
    similarity = float(vector(ids[0]) @ vector(ids[1]))
    return {"request": {"a": a, "b": b}, "tokens": {"a": ids[0], "b": ids[1]}, "answer": {"similarity": similarity}}


if __name__ == "__main__":
    golden = {
        "made_by": f"functions/reference/similar.py with onnxruntime {ort.__version__}, each text alone, no padding",
        "how": "POST `request` as JSON to the function similar; similarity must be equal within the tolerance",
        "tolerance": {"similarity": 1e-3},
        "cases": [case(a, b) for a, b in PAIRS],
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join("  " + json.dumps(c) for c in golden.pop("cases"))
    head = json.dumps(golden, indent=1)[:-2]
    OUT.write_text(f'{head},\n "cases": [\n{rows}\n ]\n}}\n')
    for c in json.loads(OUT.read_text())["cases"]:
        print(f"{c['answer']['similarity']:8.4f}  {len(c['tokens']['a']):3} {len(c['tokens']['b']):3}  {c['request']['a'][:40]!r} {c['request']['b'][:40]!r}")
