"""Recipes as modules, as commands, in this process, and a finished smoke run of each."""

import contextlib
import functools
import importlib.util
import io
import os
import runpy
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from unittest import mock

from filelock import FileLock

import nc_tools
from nc_tools.experiment import run_recipe
from support.runs_here import runs_here, sync_here
from support.session_folder import session_folder

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


def smoke_flags(path, out):
    return ["--smoke", "--device", "cpu", "--workers", "1", "--out", str(out), "--arms", ",".join(arms_of(path))]


def command(path, out):
    return [sys.executable, str(path), *smoke_flags(path, out)]


def run_in_process(*arguments, **more):
    """Run a recipe here, without workers and without the process that sends runs to MLflow, which take seconds."""
    off = mock.patch("nc_tools.experiment.recipe_cli.sync_unless_off", return_value=contextlib.nullcontext())
    with runs_here(), off:
        run_recipe(*arguments, **more)


def smoke(path, tmp_path_factory):
    """Run a recipe once in a test session; return its output folder and the lines it printed.

    The first recipe runs as a command, with a worker process and the process that sends runs to MLflow. The others run
    in this process, which has imported torch and MLflow.
    """
    from support.mlflow_store import migrated_store  # here, because it imports MLflow

    base = session_folder(tmp_path_factory) / "recipes" / path.stem
    printed = base / "printed.txt"
    base.mkdir(parents=True, exist_ok=True)
    with FileLock(base / ".lock"):
        if not printed.exists():
            run = _as_command if path == RECIPES[0] else functools.partial(_here, migrated_store(tmp_path_factory))
            printed.write_text(run(path, base))
    return base / "out", printed.read_text().rstrip("\n").split("\n")


def _as_command(path, base):
    process = subprocess.run(
        command(path, base / "out"), env=ENVIRONMENT, cwd=base, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return process.stdout


def _here(store, path, base):
    shown, errors = io.StringIO(), io.StringIO()
    with runs_here(), sync_here(store), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(errors):
        run_script(path, *smoke_flags(path, base / "out"))
    assert errors.getvalue() == ""
    return shown.getvalue()


def run_script(path, *flags):
    """Run a recipe's script in this process."""
    with mock.patch.object(sys, "argv", [str(path), *map(str, flags)]):
        runpy.run_path(str(path), run_name="__main__")
