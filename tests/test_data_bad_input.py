"""What no training set can be made of: one sentence, when the data are loaded and not while a model trains."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nc_tools.data import AsymmetricNoise, Augment, Cutout, ImageSet, SymmetricNoise, class_counts, make_loader
from nc_tools.data.coarse_labels import read_grouping
from nc_tools.data.csv_labels import read_labels
from nc_tools.data.ood_sets import read_classes

PATHS = ("train/a/1.png", "train/a/2.png", "train/b/3.png")
GOOD = "path,worse\ntrain/a/1.png,a\ntrain/a/2.png,b\ntrain/b/3.png,1\n"
FILES: dict[str, tuple[bytes, str]] = {
    "utf-16": (GOOD.encode("utf-16"), r"must be text in UTF-8, and .*labels\.csv is not \(byte 0\): save it again"),
    "latin-1": ((GOOD + "é").encode("latin-1"), r"is not \(byte \d+\)"),
    "binary": (bytes(range(256)) * 9, "must be text in UTF-8"),
    "endless field": (b'path,worse\n"' + b"x" * 200_000, "cannot be read as a CSV .*field larger than field limit"),
    "two columns of one name": (
        GOOD.replace("worse", "worse,worse").encode(),
        "one column 'worse', and it has several",
    ),
    "empty": (b"", "must have a column 'path', and it has none: it has no header"),
    "other separator": (GOOD.replace(",", ";").encode(), "must have a column 'path', .* it has path;worse"),
    "unknown class": (GOOD.replace(",b", ",bb").encode(), "line 3 .* has 'bb' in column 'worse'; did you mean 'b'"),
    "missing rows": (b"path,worse\ntrain/a/1.png,a\n", "2 of 3 have none, such as train/a/2.png: add rows"),
    "two labels": (GOOD.encode() + b"train/a/1.png,b\n", "line 5, gives train/a/1.png a second one"),
}


@pytest.mark.parametrize(("content", "told"), FILES.values(), ids=FILES)
def test_label_files(content: bytes, told: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_labels(file, "worse", PATHS, ["a", "b"])


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_a_label_file_of_a_spreadsheet(before: bytes, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(before + GOOD.encode())
    assert read_labels(tmp_path / "labels.csv", "worse", PATHS, ["a", "b"]).tolist() == [0, 1, 1]


def test_a_grouping_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_bytes("class,coarse\na,x\n".encode("utf-16"))
    with pytest.raises(ValueError, match="must be text in UTF-8"):
        read_grouping(str(tmp_path / "groups.csv"), ("a", "b"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("class\nfrog\n".encode("utf-16"), "must be text in UTF-8"),
        (b'class\n"' + b"x" * 200_000, "cannot be read as a CSV"),
    ],
)
def test_a_list_of_classes_that_is_no_text(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_classes(tmp_path / "classes.csv")


IMAGES = ImageSet(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 0, 0, 1, 1, 2]), ("a", "b", "c"), "x")


def loader(indices: torch.Tensor | None = None, channels: int = 1) -> object:
    return make_loader(
        IMAGES, torch.arange(6) if indices is None else indices, 2, mean=[0.0] * channels, std=[1.0] * channels,
        augment=None, seed=0,
    )  # fmt: skip


WRONG: dict[str, tuple[type[Exception], Callable[[], object], str]] = {
    "index": (ValueError, lambda: loader(torch.tensor([0, 99])), r"indices must lie in \[0, 6\), .* got 0 to 99"),
    "negative index": (ValueError, lambda: loader(torch.tensor([-1, 2])), "got -1 to 2"),
    "mask": (TypeError, lambda: loader(torch.ones(6).bool()), r"got torch.bool .* mask.nonzero\(\)"),
    "shares": (TypeError, lambda: loader(torch.ones(6)), "indices must be positions"),
    "channels": (ValueError, lambda: loader(channels=3), "a number for each of 1 channels, got 3"),
    "half a pixel": (ValueError, lambda: Cutout(1.5), "whole pixels and must be at least 1, got 1.5"),  # type: ignore[arg-type]
    "padding": (ValueError, lambda: Augment(1.5, flip=True), "whole number of pixels .* got 1.5"),  # type: ignore[arg-type]
    "one class": (ValueError, lambda: SymmetricNoise(0.3).transition(("a",)), "needs another class .* got 1"),
    "map": (ValueError, lambda: AsymmetricNoise(0.3, ((1, 2),)), r"pairs \(class, another class\)"),  # type: ignore[arg-type]
    "text": (ValueError, lambda: AsymmetricNoise(0.3, "ab"), r"pairs \(class, another class\)"),  # type: ignore[arg-type]
    "label": (ValueError, lambda: class_counts(torch.tensor([0, 5]), 2), r"lie in \[0, 2\), but 1 of them do not"),
    "negative label": (ValueError, lambda: class_counts(torch.tensor([-1]), 2), "but 1 of them do not"),
    "no index": (TypeError, lambda: class_counts(torch.tensor([0.5]), 2), "class indices"),
}


@pytest.mark.parametrize(("error", "make", "told"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit(error: type[Exception], make: Callable[[], object], told: str) -> None:
    with pytest.raises(error, match=told):
        make()
