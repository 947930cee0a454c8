"""What stands at the top of the package: complete, documented, and free of surprises."""

import inspect
import pkgutil
import subprocess
import sys

import pytest

import nc_tools

MODULES = {module.name for module in pkgutil.iter_modules(nc_tools.__path__)}
NAMES = sorted(dir(nc_tools))


def test_the_entry_points_are_there() -> None:
    assert {"swap_head", "watch", "track", "measure", "compare", "load_run", "spec", "ETFHead", "LinearHead"} <= set(
        NAMES
    )
    assert {"LogitAdjustedLoss", "DotRegressionLoss", "GeneralizedCrossEntropyLoss"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented(name: str) -> None:
    value = getattr(nc_tools, name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        assert name.isupper()
        return
    doc = inspect.getdoc(value) or ""
    assert len(doc.splitlines()) > 3, f"help(nc_tools.{name}) says too little"
    assert "Example" in doc, f"help(nc_tools.{name}) has no example"


def test_no_public_name_is_a_submodule() -> None:
    """Importing a submodule would put the module in the place of the function."""
    assert set(NAMES) & MODULES == set()


@pytest.mark.slow
def test_importing_every_module_leaves_the_names_as_they_are() -> None:
    code = (
        "import importlib, inspect, pkgutil, nc_tools\n"
        "for module in pkgutil.walk_packages(nc_tools.__path__, 'nc_tools.'):\n"
        "    importlib.import_module(module.name)\n"
        "print([name for name in dir(nc_tools) if inspect.ismodule(getattr(nc_tools, name))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_mistyped_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="swap_haed"):
        nc_tools.swap_haed  # noqa: B018
