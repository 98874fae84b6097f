"""Posts the golden inputs of the functions to a running host and compares its answers.

usage: post.py BASE [function…]      BASE as in BASE/classify, e.g. http://127.0.0.1:8080/fn/dev

Needs nothing but Python. Prints one line for each answer that differs, then a count; exits 1 if there was one.
The pictures of the set-up are looked for in $WASMETER_CACHE/samples.
"""

import base64
import json
import os
import pathlib
import sys
import urllib.error
import urllib.request

FUNCTIONS = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("WASMETER_CACHE", pathlib.Path.home() / ".cache" / "wasmeter"))


def post(url, body, content_type="application/octet-stream"):
    request = urllib.request.Request(url, body, {"content-type": content_type}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read()


def close(got, want, tolerance):
    return isinstance(got, (int, float)) and abs(got - want) <= tolerance


def filetype(case, answer, tolerance):
    want = case["answer"]
    if any(answer.get(key) != want[key] for key in ("label", "description", "mime")):
        return f"{answer} instead of {want}"
    if not close(answer.get("score"), want["score"], tolerance["score"]):
        return f"score {answer.get('score')} instead of {want['score']}"


def similar(case, answer, tolerance):
    want = case["answer"]["similarity"]
    if not close(answer.get("similarity"), want, tolerance["similarity"]):
        return f"{answer} instead of {want}"


def classify(case, answer, tolerance):
    got = {hit["index"]: hit for hit in answer["top"]}
    if len(got) != 5 or [h["score"] for h in answer["top"]] != sorted((h["score"] for h in answer["top"]), reverse=True):
        return f"not five classes, best first: {answer}"
    for want in case["answer"]["top"]:
        hit = got.get(want["index"])
        if want["score"] > 0.1 and (hit is None or hit["label"] != want["label"]):
            return f"{want} is missing in {answer}"
        if hit is not None and not close(hit["score"], want["score"], case["tolerance"]["score"]):
            return f"{hit} instead of {want}"


def body(case, folder):
    if "base64" in case:
        return base64.b64decode(case["base64"]), "application/octet-stream"
    if "request" in case:
        return json.dumps(case["request"]).encode(), "application/json"
    path = folder / case["file"] if "file" in case else CACHE / "samples" / case["sample"]
    return path.read_bytes(), "application/octet-stream"


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    base, names = sys.argv[1].rstrip("/"), sys.argv[2:] or ["classify", "filetype", "similar"]
    count, wrong = 0, []
    for name in names:
        folder = FUNCTIONS / name / "tests" / "golden"
        golden = json.loads((folder / f"{name}.json").read_text())
        for number, case in enumerate(golden["cases"]):
            status, answer = post(f"{base}/{name}", *body(case, folder))
            difference = f"status {status}: {answer[:200]!r}"
            if status == 200:
                difference = globals()[name](case, json.loads(answer), golden.get("tolerance", {}))
            count += 1
            if difference:
                wrong.append(f"{name} {case.get('name', number)}: {difference}")
        for case in golden.get("refused", []):
            status, answer = post(f"{base}/{name}", *body(case, folder))
            count += 1
            if status != case["status"] or not json.loads(answer).get("error"):
                wrong.append(f"{name} {case['name']}: status {status}: {answer[:200]!r} instead of {case['status']}")
    print(*wrong, f"{count} golden answers, {len(wrong)} differ", sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
