"""One finished smoke run of each recipe, shared by the tests that look at it."""

import importlib.util
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import nc_tools

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.py"))
SOURCE = Path(nc_tools.__file__).resolve().parents[1]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | {"PYTHONPATH": str(SOURCE)}


@lru_cache
def recipe_module(path):
    found = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def arms_of(path):
    """The arms of the shared run: the baseline and the last one (the others are run in test_experiment_runs)."""
    arms = list(recipe_module(path).ARMS)
    return [arms[0], arms[-1]]


def command(path, out):
    flags = ["--smoke", "--device", "cpu", "--workers", "1", "--out", str(out), "--arms", ",".join(arms_of(path))]
    return [sys.executable, str(path), *flags]


def smoke(path, tmp_path_factory):
    """Run a recipe once in a test session; return its output folder and the lines it printed."""
    base = tmp_path_factory.getbasetemp() / "recipes" / path.stem
    shown = base / "shown.txt"
    if not shown.exists():
        base.mkdir(parents=True)
        told = subprocess.run(
            command(path, base / "out"), env=ENVIRONMENT, cwd=base, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr
        assert told.stderr == ""
        shown.write_text(told.stdout)
    return base / "out", shown.read_text().rstrip("\n").split("\n")
