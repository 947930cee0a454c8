"""Bad input of the data package: each error names the file or value and says what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nc_tools.data import (
    AsymmetricNoise,
    Augment,
    BatchOptions,
    Cutout,
    ImageSet,
    SymmetricNoise,
    class_counts,
    make_loader,
)
from nc_tools.data.coarse_labels import read_grouping
from nc_tools.data.ood_sets import read_classes


def test_a_grouping_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_bytes("class,coarse\na,x\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"groups\.csv is not text in UTF-8"):
        read_grouping(str(tmp_path / "groups.csv"), ("a", "b"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("class\nfrog\n".encode("utf-16"), "classes.csv is not text in UTF-8"),
        (b'class\n"' + b"x" * 200_000, "classes.csv is not a readable CSV file"),
        (b"class\n", "classes.csv must have a header row and a class name in each further row"),
    ],
)
def test_a_bad_list_of_classes(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_classes(tmp_path / "classes.csv")


IMAGES = ImageSet(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 0, 0, 1, 1, 2]), ("a", "b", "c"), "x")


def loader(indices: torch.Tensor | None = None, channels: int = 1) -> object:
    options = BatchOptions(batch_size=2, mean=[0.0] * channels, std=[1.0] * channels)
    return make_loader(IMAGES, torch.arange(6) if indices is None else indices, options)


WRONG: dict[str, tuple[type[Exception], Callable[[], object], str]] = {
    "index": (ValueError, lambda: loader(torch.tensor([0, 99])), r"indices must lie in \[0, 6\), .* got 0 to 99"),
    "negative index": (ValueError, lambda: loader(torch.tensor([-1, 2])), "got -1 to 2"),
    "mask": (TypeError, lambda: loader(torch.ones(6).bool()), r"got torch.bool .* mask.nonzero\(\)"),
    "shares": (TypeError, lambda: loader(torch.ones(6)), "indices must be positions"),
    "channels": (ValueError, lambda: loader(channels=3), "one number for each of the 1 channels, got 3"),
    "half a pixel": (ValueError, lambda: Cutout(1.5), "whole number of at least 1, got 1.5"),  # type: ignore[arg-type]
    "padding": (ValueError, lambda: Augment(1.5, flip=True), "must be a whole number from 0, got 1.5"),  # type: ignore[arg-type]
    "one class": (ValueError, lambda: SymmetricNoise(0.3).transition(("a",)), "needs at least two classes, got 1"),
    "map": (ValueError, lambda: AsymmetricNoise(0.3, ((1, 2),)), r"at least one pair \(class, another class\)"),  # type: ignore[arg-type]
    "text": (ValueError, lambda: AsymmetricNoise(0.3, "ab"), r"at least one pair \(class, another class\)"),  # type: ignore[arg-type]
    "label": (ValueError, lambda: class_counts(torch.tensor([0, 5]), 2), r"lie in \[0, 2\), but 1 of 2 do not"),
    "negative label": (ValueError, lambda: class_counts(torch.tensor([-1]), 2), "but 1 of 1 do not"),
    "no index": (TypeError, lambda: class_counts(torch.tensor([0.5]), 2), "class indices"),
}


@pytest.mark.parametrize(("error", "make", "message"), WRONG.values(), ids=WRONG)
def test_bad_values(error: type[Exception], make: Callable[[], object], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
