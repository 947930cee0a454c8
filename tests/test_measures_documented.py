"""Every measure and every out-of-distribution score is exported, and documented in docs/measures.md.

A message of these tests says what to add, and where, after a new file with a measure or a score.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import nc_tools.metrics
import nc_tools.ood
from nc_tools.ood import SCORES, OODScore
from nc_tools.ood.ood_score import package_scores

PAGE = Path(nc_tools.__file__).parent.parent / "docs" / "measures.md"
# Steps of other measures that return numbers.
INTERNAL = {"collapse_quantities", "finite_values"}


def modules_of(package: ModuleType) -> list[ModuleType]:
    return [import_module(info.name) for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]


def defined_in(module: ModuleType) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def returns_numbers(function: object) -> bool:
    """Whether a function returns numbers by the annotation of its result: float, dict[str, float], ..."""
    return inspect.isfunction(function) and "float" in str(inspect.signature(function).return_annotation)


def rows(text: str) -> str:
    """The first cell of every row of every table."""
    return "\n".join(re.findall(r"^\|(.*?)\|", text, re.MULTILINE))


def test_every_measure_is_exported() -> None:
    missing = [
        f"{module.__name__}.{name}"
        for module in modules_of(nc_tools.metrics)
        for name, value in defined_in(module).items()
        if returns_numbers(value) and name not in INTERNAL and name not in nc_tools.metrics.__all__
    ]
    assert not missing, f"import these functions in nc_tools/metrics/__init__.py and add them to its __all__: {missing}"


def test_every_measure_is_documented() -> None:
    text = PAGE.read_text(encoding="utf-8")
    functions = [name for name in nc_tools.metrics.__all__ if inspect.isfunction(getattr(nc_tools.metrics, name))]
    missing = [name for name in functions if not re.search(rf"`{name}[`(]", text)]
    assert not missing, (
        f"add a row to a table of docs/measures.md (formula, range, when not to use it), or name in its text: {missing}"
    )


def test_every_score_is_exported() -> None:
    modules = modules_of(nc_tools.ood)
    defined = {
        cls
        for module in modules
        for cls in defined_in(module).values()
        if inspect.isclass(cls) and issubclass(cls, OODScore) and not inspect.isabstract(cls)
    }
    missing = [f"{cls.__module__}.{cls.__name__}" for cls in defined - {getattr(nc_tools.ood, n) for n in exported()}]
    assert not missing, f"import these scores in nc_tools/ood/__init__.py and add them to its __all__: {missing}"
    assert set(SCORES) == defined


def exported() -> list[str]:
    return [name for name in nc_tools.ood.__all__ if inspect.isclass(getattr(nc_tools.ood, name))]


def test_every_score_is_documented() -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = [cls.name for cls in SCORES if f"`{cls.name}`" not in rows(text)]
    assert not missing, f"add a row to the table of scores in docs/measures.md for: {missing}"
    functions = [name for name in nc_tools.ood.__all__ if inspect.isfunction(getattr(nc_tools.ood, name))]
    missing = [name for name in functions if not re.search(rf"`{name}[`(]", text)]
    assert not missing, f"name these functions in docs/measures.md: {missing}"


def test_scores_keep_their_order_and_their_keys() -> None:
    """Records and reports are read by these names, in this order. Append a new score; do not rename or move one."""
    names = [cls.name for cls in SCORES]
    first = ["msp", "max_logit", "energy", "gen", "knn", "mahalanobis", "rmds", "vim", "neco", "nci", "fdbd", "grood"]
    assert names[: len(first)] == first
    assert len(set(names)) == len(names), f"two scores share a name: {names}"


def test_scores_defined_elsewhere_are_not_in_reports_by_default() -> None:
    class MyScore(nc_tools.ood.MaxLogit):
        name = "mine"

    assert MyScore not in package_scores()
