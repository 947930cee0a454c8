"""Write the lists of images that benchmarks/pretrained.sh compares heads on: CSV tables of path, class and split.

    python benchmarks/pretrained_lists.py CIFAR10 TINY_IMAGENET OUT

CIFAR10 and TINY_IMAGENET are image folders with ``train`` and ``test`` or ``val``. ``tiny_imagenet_lt.csv`` is a long
tail of 200 classes, 150 to 3 training images, in an order of classes drawn with seed 0, and 25 test images of each;
``cifar10_small.csv`` has 200 training and 200 test images of each class.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Mapping
from pathlib import Path

LARGEST, IMBALANCE, TESTED, SMALL = 150, 50, 25, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for name in ("cifar10", "tiny_imagenet", "out"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    classes = class_names(args.tiny_imagenet)
    random.Random(0).shuffle(classes)
    last = len(classes) - 1
    tail = {name: round(LARGEST * IMBALANCE ** (-i / last)) for i, name in enumerate(classes)}
    write(args.out / "tiny_imagenet_lt.csv", args.tiny_imagenet, {"train": tail, "val": dict.fromkeys(classes, TESTED)})
    small = dict.fromkeys(class_names(args.cifar10), SMALL)
    write(args.out / "cifar10_small.csv", args.cifar10, {"train": small, "test": small})


def class_names(root: Path) -> list[str]:
    return sorted(folder.name for folder in (root / "train").iterdir() if folder.is_dir())


def write(path: Path, root: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Write a table of the first images of each class, as many as ``counts`` says for each part and class."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "class", "split"])
        for part, of_class in counts.items():
            for name, count in of_class.items():
                images = sorted(image for image in (root / part / name).rglob("*.*") if image.is_file())[:count]
                split = "train" if part == "train" else "test"
                writer.writerows([image.relative_to(root).as_posix(), name, split] for image in images)


if __name__ == "__main__":
    main()
