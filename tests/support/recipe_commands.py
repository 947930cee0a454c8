"""Recipes as modules, as commands, in this process, and a finished smoke run of each."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from unittest import mock

import nc_tools
from nc_tools.experiment import run_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.py"))
SOURCE = Path(nc_tools.__file__).resolve().parents[1]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | {"PYTHONPATH": str(SOURCE)}


@lru_cache
def recipe_module(path):
    file_spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(file_spec)
    file_spec.loader.exec_module(module)
    return module


def arms_of(path):
    """The arms of the shared run: the baseline and the last one."""
    arms = list(recipe_module(path).ARMS)
    return [arms[0], arms[-1]]


def command(path, out):
    flags = ["--smoke", "--device", "cpu", "--workers", "1", "--out", str(out), "--arms", ",".join(arms_of(path))]
    return [sys.executable, str(path), *flags]


def run_in_process(*arguments, **more):
    """Run a recipe here, without the process that sends runs to MLflow, which takes seconds to start."""
    with mock.patch("nc_tools.experiment.recipe_cli.sync_unless_off", return_value=contextlib.nullcontext()):
        run_recipe(*arguments, **more)


def smoke(path, tmp_path_factory):
    """Run a recipe once in a test session; return its output folder and the lines it printed."""
    base = tmp_path_factory.getbasetemp() / "recipes" / path.stem
    printed = base / "printed.txt"
    if not printed.exists():
        base.mkdir(parents=True)
        process = subprocess.run(
            command(path, base / "out"), env=ENVIRONMENT, cwd=base, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
        assert process.stderr == ""
        printed.write_text(process.stdout)
    return base / "out", printed.read_text().rstrip("\n").split("\n")
