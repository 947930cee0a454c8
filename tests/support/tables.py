"""Tables of images in the forms that people have, written anew from small pictures."""

import hashlib
import json

from PIL import Image

CLASSES = ("ape", "bat", "cow")


def picture(path, key):
    """Save a small picture whose color depends on the key alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), tuple(hashlib.sha256(key.encode()).digest()[:3])).save(path)


def pictures(root, paths):
    """Save a picture at each path, all different."""
    for path in paths:
        picture(root / path, path)


def names(count=30, pattern="img_{:03d}"):
    """Names of images, and the class of each: ape for every second, bat and cow for the others."""
    return [(pattern.format(i), CLASSES[(0, 1, 0, 2)[i % 4]]) for i in range(count)]


def lines(path, *rows, end="\n", encoding="utf-8"):
    """Write lines to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(rows) + end).encode(encoding))
    return path


def as_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
