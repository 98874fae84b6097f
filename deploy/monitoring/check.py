"""Alert rules and dashboard held against the source: each metric, label and value that they use is one that is exported.

usage: check.py
"""

import json
import pathlib
import re
import sys

here = pathlib.Path(__file__).resolve().parent
root = here.parent.parent
# What Prometheus itself adds.
OWN = {"up": "gauge"}
OWN_LABELS = {"job", "instance", "le"}

failures = []


def fail(text):
    failures.append(text)


def exported():
    """Kind and labels of each metric, and all words in quotes, by what the source says."""
    metrics, words = {}, set()
    for folder in ("host/src", "host/crates", "billing/src", "billing/crates"):
        for file in sorted((root / folder).rglob("*.rs")):
            text = file.read_text()
            words.update(re.findall(r'"([a-z0-9_]+)"', text))
            if "tests" in file.relative_to(root).parts:
                continue
            # Also through a closure that adds the device; then the labels are elsewhere in the file.
            labels = set(re.findall(r'"(\w+)" =>', text))
            for kind, name in re.findall(r'\b(counter|gauge|histogram)!?\(\s*"(wasmeter_\w+)"', text):
                if metrics.setdefault(name, (kind, labels))[0] != kind:
                    fail(f"{file}: {name} is two kinds of metric")
    return metrics, words


def expressions():
    """Place and text of each expression."""
    alert, rules = None, {}
    for number, line in enumerate((here / "alerts.yaml").read_text().splitlines(), 1):
        key, _, value = line.strip().removeprefix("- ").partition(": ")
        if key == "alert":
            alert = value
            if alert in rules:
                fail(f"alerts.yaml:{number}: {alert} is there twice")
            rules[alert] = set()
        elif alert and key in ("expr", "labels", "summary"):
            rules[alert].add(key)
            if key == "expr":
                yield f"alerts.yaml:{number}", value
    for alert, keys in rules.items():
        if keys != {"expr", "labels", "summary"}:
            fail(f"alerts.yaml: {alert} has only {sorted(keys)}")
    dashboard = json.loads((here / "dashboard.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(set(ids)) != len(ids):
        fail("dashboard.json: two panels have one id")
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"dashboard.json, {panel['title']!r}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield "dashboard.json, variables", variable["query"]["query"]


def check(place, text, metrics, words):
    """The names in one expression; those that it used."""
    used = set()
    if any(text.count(a) != text.count(b) for a, b in ("()", "[]", "{}")):
        fail(f"{place}: brackets are not in pairs: {text}")
    for name, matchers in re.findall(r'\b(up|wasmeter_\w+)(?:\{([^}]*)\})?', text):
        base = name if name in metrics else re.sub(r"_(bucket|sum|count)$", "", name)
        kind, labels = metrics.get(base, (OWN.get(name), set()))
        if kind is None:
            fail(f"{place}: nobody exports {name}")
            continue
        if (kind == "histogram") != (base != name):
            fail(f"{place}: {base} is a {kind}: {name} is not there")
        if kind == "gauge" and re.search(rf"\b(rate|increase)\({name}\b", text):
            fail(f"{place}: {name} is a gauge, of which there is no rate")
        used.add(base)
        for label, value in re.findall(r'(\w+)\s*=~?\s*"([^"]*)"', matchers):
            if label not in labels | OWN_LABELS:
                fail(f"{place}: {base} has no label {label}")
            elif label not in OWN_LABELS:
                for word in value.split("|"):
                    if word not in words:
                        fail(f"{place}: {label} is never {word!r}")
        for by in re.findall(r"\bby \(([^)]*)\)", text):
            for label in (label.strip() for label in by.split(",")):
                if label not in OWN_LABELS and not any(label in known for _, known in metrics.values()):
                    fail(f"{place}: nothing has a label {label}")
    return used


metrics, words = exported()
used, count = set(), 0
for place, text in expressions():
    count += 1
    found = check(place, text, metrics, words)
    if not found:
        fail(f"{place}: no metric in {text}")
    used |= found
for name in sorted(set(metrics) - used):
    fail(f"{name} is exported and shown nowhere")
for failure in failures:
    print(failure, file=sys.stderr)
print(f"monitoring: {count} expressions over {len(used - set(OWN))} of {len(metrics)} metrics, {len(failures)} wrong")
sys.exit(bool(failures))
