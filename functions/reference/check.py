"""Computes the golden answers anew with the models in the cache and compares them with the golden files.

usage: check.py         needs what classify.py and similar.py need; filetype is left out where magika is not installed
"""

import json
import sys

import classify
import post
import similar


def main():
    count, wrong = 0, []

    def golden(name):
        return json.loads((post.FUNCTIONS / name / "tests" / "golden" / f"{name}.json").read_text())

    def compare(name, case, answer, tolerance):
        nonlocal count
        count += 1
        difference = getattr(post, name)(case, answer, tolerance)
        if difference:
            wrong.append(f"{name} {case.get('name', case.get('request'))}: {difference}")

    for case in golden("classify")["cases"]:
        data, _ = post.body(case, post.FUNCTIONS / "classify" / "tests" / "golden")
        compare("classify", case, classify.case(case["name"], {}, data)["answer"], {})
    file = golden("similar")
    for case in file["cases"]:
        again = similar.case(case["request"]["a"], case["request"]["b"])
        compare("similar", case, again["answer"], file["tolerance"])
        if again["tokens"] != case["tokens"]:
            wrong.append(f"similar {case['request']}: other tokens")
    try:
        import filetype
    except ModuleNotFoundError as missing:
        print(f"check.py: filetype is left out: {missing}")
    else:
        file = golden("filetype")
        for case in file["cases"]:
            data, _ = post.body(case, None)
            compare("filetype", case, filetype.case(case["name"], data)["answer"], file["tolerance"])
    print(*wrong, f"{count} golden answers computed anew, {len(wrong)} differ", sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
