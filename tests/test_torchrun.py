"""Recipes under torchrun: the records of one process, also after a process was lost; what is refused."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from support.recipe_commands import ENVIRONMENT, RECIPES, recipe_module, run_in_process

from nc_tools.experiment.divided_runs import check_divisible
from nc_tools.experiment.on_features.feature_options import FeatureOptions, run_options
from nc_tools.experiment.recipe_cli import recipe_parser
from nc_tools.experiment.torchrun import device_here, first_of_torchrun, is_follower, started_processes, threads_here
from nc_tools.run_records import read_run
from nc_tools.training import TrainConfig

ROOT = Path(__file__).parents[1]
LONG_TAIL = next(path for path in RECIPES if path.stem == "long_tail")
LINE = re.search(r"^torchrun .*$", (ROOT / "docs" / "scale.md").read_text(), re.MULTILINE)[0]
FLAGS = shlex.split(
    "--arms linear_crt --seeds 0 --epochs 3 --tracking-uri none --device cpu --set protocol.rates=0.1 "
    "--set protocol.max_extensions=0 --set training.checkpoint_seconds=0"
)
OF_PROCESSES = {"perf/seconds", "perf/images_per_s", "perf/evaluation_seconds", "perf/processes"}


def started(out, *more):
    words = shlex.split(LINE)[1:]
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words, *FLAGS, "--out", str(out), *more],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def kill_second_process_of(torchrun, out):
    """Wait for the first checkpoint of the hold-out run."""
    until = time.monotonic() + 200
    while not list(out.glob("runs/*holdout*/checkpoint.pt")):
        assert torchrun.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    children = psutil.Process(torchrun.pid).children()
    next(child for child in children if child.environ().get("RANK") == "1").kill()


def finals_of(out):
    return {path.name: read_run(path) for path in sorted(out.glob("runs/*"))}


@pytest.mark.slow
def test_the_command_of_the_page_makes_the_records_of_one_process_after_a_process_was_lost(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    torchrun = started(two)
    kill_second_process_of(torchrun, two)
    shown, _ = torchrun.communicate(timeout=200)
    assert torchrun.returncode != 0
    assert [run.status for run in finals_of(two).values()].count("KILLED") == 1
    torchrun = started(two, "--resume")
    shown, _ = torchrun.communicate(timeout=200)
    assert torchrun.returncode == 0, shown
    assert shown.count("linear_crt: the second stage is trained by the first process alone") == 1
    assert shown.count("training images of each class") == 1
    recipe = recipe_module(LONG_TAIL)
    alone = [*FLAGS, "--workers", "1", "--pack", "1", "--out", str(one)]
    run_in_process(recipe.ARMS, name="long_tail", question=recipe.__doc__, protocol=recipe.PROTOCOL, argv=alone)
    made, expected = finals_of(two), finals_of(one)
    assert made.keys() == expected.keys()
    [holdout] = [json.loads(path.read_text()) for path in two.glob("runs/*holdout*/status.json")]
    assert len(holdout["resumed_bytes"]) == 1
    for name, run in made.items():
        assert run.status == "FINISHED"
        assert run.final["perf/processes"] == 2
        assert run.final.keys() - {"perf/processes"} == expected[name].final.keys()
        for key in run.final.keys() - OF_PROCESSES:
            if "conformal" not in key:  # ties of scores are broken by rounding
                assert run.final[key] == pytest.approx(expected[name].final[key], rel=1e-3, abs=1e-4), key
        losses, of_one = (dict(each.curves()["train/loss"]) for each in (run, expected[name]))
        assert losses == pytest.approx(of_one, rel=1e-4)
        assert {p.name for p in (two / "runs" / name).iterdir()} == {p.name for p in (one / "runs" / name).iterdir()}


@pytest.fixture
def of_two(monkeypatch):
    """The environment of the first of two processes."""
    settings = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**settings, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_one_process_is_a_plain_start(of_two):
    assert (started_processes(), is_follower()) == (2, False)
    of_two.setenv("RANK", "1")
    assert is_follower()
    of_two.setenv("WORLD_SIZE", "1")
    assert (started_processes(), is_follower()) == (1, False)
    with first_of_torchrun(None) as processes:
        assert processes is None
    of_two.setenv("WORLD_SIZE", "2")
    of_two.delenv("TORCHELASTIC_RUN_ID")  # a scheduler may set the number of processes too
    assert (started_processes(), is_follower()) == (1, False)


def test_processes_share_the_cores_and_have_a_gpu_each(of_two):
    of_two.setattr("nc_tools.experiment.torchrun.available_cores", lambda: 8)
    assert threads_here() == 4
    assert device_here("cpu") == "cpu"
    chosen = []
    of_two.setattr(torch.cuda, "set_device", chosen.append)
    of_two.setattr(torch.cuda, "device_count", lambda: 2)
    of_two.setenv("LOCAL_RANK", "1")
    assert device_here("cuda") == "cuda:1"
    assert chosen == [1]
    of_two.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"there are 2 processes on this machine and 1 GPU: start fewer processes"):
        device_here("cuda")


@pytest.mark.parametrize("flag", ["--workers 2", "--pack 4", "--cluster auto", "--plan", "--device cuda:1"])
def test_flags_of_other_starts_are_refused(of_two, flag, capsys, tmp_path):
    of_two.setattr(sys, "argv", [str(LONG_TAIL), *flag.split(), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(LONG_TAIL), run_name="__main__")
    assert capsys.readouterr().err == (
        f"error: the 2 processes of torchrun train one run at a time, each on a device of its own, got {flag}: leave "
        f"it out, or start the recipe with python\n"
    )
    assert not os.path.lexists(tmp_path / "out")


@pytest.mark.parametrize("more", [[], ["--device", "auto"], ["--workers", "1", "--pack", "1"]])
def test_flags_without_a_contradiction_are_taken(of_two, more):
    args = recipe_parser("long_tail", "", list(recipe_module(LONG_TAIL).ARMS)).parse_args(more)
    of_two.setattr("nc_tools.experiment.torchrun.connected_processes", lambda: "connected")
    of_two.setattr("nc_tools.experiment.torchrun.announce", lambda *_: None)
    with first_of_torchrun(args) as processes:
        assert processes == "connected"


def test_batches_that_cannot_be_divided_are_refused_before_anything_trains(of_two):
    arms = recipe_module(LONG_TAIL).ARMS
    check_divisible(arms, 16)
    with pytest.raises(
        ValueError, match=r"arm linear: training.batch_size=32 is too small for 17 processes.* to 34 or"
    ):
        check_divisible(arms, 17)
    compiled = {"one": replace(arms["linear"], training=TrainConfig(compile=True))}
    with pytest.raises(ValueError, match=r"arm one: training.compile=true, but 2 processes cannot.*: set it to false"):
        check_divisible(compiled, 2)


def test_the_others_print_nothing(of_two, capsys):
    of_two.setenv("RANK", "1")
    of_two.setattr(sys, "argv", [str(LONG_TAIL), "--print-config"])
    runpy.run_path(str(LONG_TAIL), run_name="__main__")
    of_two.setattr(sys, "argv", [str(LONG_TAIL), "--epoch", "many"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(LONG_TAIL), run_name="__main__")
    assert capsys.readouterr() == ("", "")


def test_heads_on_features_need_one_process(of_two, tmp_path):
    message = "trained by one command and its worker processes, but torchrun has started 2: start the command without"
    with pytest.raises(ValueError, match=message):
        run_options(FeatureOptions(data="photos", out=tmp_path), "cpu")
