"""docs/losses.md has every loss of the package, and says what each one takes."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch
from support.loss_variants import K, N, build

import nc_tools.losses
from nc_tools.losses import LossTerm, WeightedSumLoss
from nc_tools.specs import Spec

GUIDE = Path(__file__).parent.parent / "docs" / "losses.md"
ROW = re.compile(r"^\| `(\w+Loss)` \| ([\w ]+) \| [^|]+ \| [^|]* ?\|$", re.MULTILINE)


def losses_of_the_package() -> list[type[LossTerm]]:
    """Return the public losses of all modules, exported or not."""
    modules = [
        importlib.import_module(f"nc_tools.losses.{m.name}") for m in pkgutil.iter_modules(nc_tools.losses.__path__)
    ]
    return [
        cls
        for module in modules
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, LossTerm) and cls.__module__ == module.__name__
        if name == cls.__name__ and not name.startswith("_") and not inspect.isabstract(cls)
    ]


def what_is_missing(losses: list[type[LossTerm]], exported: list[str], documented: list[str]) -> list[str]:
    """Return what to add for losses that are not exported or not in the guide, one sentence each."""
    return [
        f"{cls.__name__} is not exported: add `from {cls.__module__} import {cls.__name__}` to "
        f'nc_tools/losses/__init__.py, and "{cls.__name__}" to its __all__.'
        for cls in losses
        if cls.__name__ not in exported
    ] + [
        f"{cls.__name__} is not in docs/losses.md: add the row | `{cls.__name__}` | logits, or what else it takes | "
        f"when to use it | source | to one of its tables."
        for cls in losses
        if cls.__name__ not in documented
    ]


def test_every_loss_is_exported_and_in_the_guide() -> None:
    documented = [name for name, _ in ROW.findall(GUIDE.read_text(encoding="utf-8"))]
    losses = losses_of_the_package()
    assert len(losses) > 35
    missing = what_is_missing(losses, nc_tools.losses.__all__, documented)
    assert not missing, "\n".join(["", *missing])
    assert sorted(documented) == sorted(cls.__name__ for cls in losses)  # each once, and none that is gone


def test_a_new_loss_that_is_nowhere_is_named_with_the_lines_to_add() -> None:
    class PolyLoss(LossTerm):
        pass

    PolyLoss.__module__ = "nc_tools.losses.poly"
    export, row = what_is_missing([PolyLoss], ["CrossEntropyLoss"], ["CrossEntropyLoss"])
    assert "from nc_tools.losses.poly import PolyLoss" in export
    assert "| `PolyLoss` |" in row
    assert what_is_missing([PolyLoss], ["PolyLoss"], ["PolyLoss"]) == []


@pytest.mark.parametrize(("name", "takes"), ROW.findall(GUIDE.read_text(encoding="utf-8")))
def test_the_guide_says_what_each_loss_takes(name: str, takes: str) -> None:
    cls = getattr(nc_tools.losses, name)
    if cls is WeightedSumLoss or "loss" in inspect.signature(cls).parameters:
        assert takes == "as its parts"
        return
    loss = build(Spec(cls))
    logits, labels = torch.randn(N, K), torch.arange(N) % K
    if takes == "logits":
        assert loss(logits, labels).ndim == 0
        return
    with pytest.raises(TypeError, match=r"needs more than logits"):
        loss(logits, labels)
    assert (loss.views == 2, loss.needs_outliers) == (takes == "two views", takes == "outliers")
    assert takes in ("features", "two views", "outliers", "index", "tags")
