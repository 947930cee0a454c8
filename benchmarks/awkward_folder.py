"""Make an image folder as people have them: few images, uneven classes, every kind of file.

    python benchmarks/awkward_folder.py IMAGES OUT
    nc-tools choose OUT --model timm:tf_efficientnet_lite0 --weights WEIGHTS --image-size 128 --skip-unreadable

IMAGES is a folder with ``train/CLASS/...``, such as Tiny ImageNet. Its first six classes give 120, 60, 30, 15, 8 and 3
training images and 25 test images each, written in turn as JPEG, gray PNG, PNG with a transparent border, GIF with a
palette, PNG of 16 bits, CMYK JPEG, JPEG that only its EXIF tag turns upright, and WebP, in sizes from 24 to 72 pixels.
Class names hold spaces, accents and markup; one kind of JPEG has the ending .JPG; one training file is cut off in its
middle.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = (120, 60, 30, 15, 8, 3)
TESTED = 25
NAMES = ("red fox", "Ñandú", "<b>owl</b>", "50% off", "class, with comma", "1")


def jpeg(image: Image.Image, path: Path) -> Path:
    return saved(image, path.with_suffix(".JPG"))


def gray(image: Image.Image, path: Path) -> Path:
    return saved(image.convert("L"), path.with_suffix(".png"))


def transparent(image: Image.Image, path: Path) -> Path:
    alpha = np.full(image.size[::-1], 255, dtype=np.uint8)
    alpha[:3], alpha[-3:] = 0, 0
    image.putalpha(Image.fromarray(alpha))
    return saved(image, path.with_suffix(".png"))


def palette(image: Image.Image, path: Path) -> Path:
    return saved(image.quantize(64), path.with_suffix(".gif"))


def sixteen_bits(image: Image.Image, path: Path) -> Path:
    values = np.asarray(image.convert("L"), dtype=np.uint16) * 257
    return saved(Image.fromarray(values), path.with_suffix(".png"))


def cmyk(image: Image.Image, path: Path) -> Path:
    return saved(image.convert("CMYK"), path.with_suffix(".jpg"))


def turned(image: Image.Image, path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned by 90 degrees clockwise
    path = path.with_suffix(".jpeg")
    image.rotate(90, expand=True).save(path, exif=exif, quality=90)
    return path


def webp(image: Image.Image, path: Path) -> Path:
    return saved(image, path.with_suffix(".webp"))


def saved(image: Image.Image, path: Path) -> Path:
    image.save(path, quality=90)  # formats without a quality ignore it
    return path


FORMS: tuple[Callable[[Image.Image, Path], Path], ...] = (
    jpeg, gray, transparent, palette, sixteen_bits, cmyk, turned, webp,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    classes = sorted(folder for folder in (args.images / "train").iterdir() if folder.is_dir())
    if len(classes) < len(NAMES):
        parser.error(f"{args.images / 'train'} must hold at least {len(NAMES)} class folders, got {len(classes)}")
    number = 0
    for folder, name, count in zip(classes[: len(NAMES)], NAMES, COUNTS, strict=True):
        files = sorted(file for file in folder.rglob("*.*") if file.is_file())[: count + TESTED]
        for i, file in enumerate(files):
            part = args.out / ("train" if i < count else "test") / name.replace("/", "∕")  # no / in a name
            part.mkdir(parents=True, exist_ok=True)
            image = Image.open(file).convert("RGB").resize((24 + 7 * number % 49, 24 + 11 * number % 49))
            written = FORMS[number % len(FORMS)](image, part / f"image {i}")
            number += 1
            if number == 1:
                written.write_bytes(written.read_bytes()[: written.stat().st_size // 2])
    print(f"{number} images of {len(NAMES)} classes in {args.out}, one of them cut off")


if __name__ == "__main__":
    main()
