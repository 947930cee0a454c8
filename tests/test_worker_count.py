"""How many processes make the runs, and that torchrun is no way to start a comparison."""

import os
import subprocess
import sys

import pytest
from support.recipe_commands import ENVIRONMENT, RECIPES

from nc_tools._support.available_cores import available_cores
from nc_tools.experiment.worker_count import worker_count


def test_one_worker_for_each_core_or_one_on_a_gpu(monkeypatch):
    monkeypatch.setattr("nc_tools.experiment.worker_count.available_cores", lambda: 8)
    assert worker_count(None, "cpu") == (8, 1)
    assert worker_count(None, "cuda:1") == (1, 8)
    assert worker_count(3, "cpu") == (3, 2)
    assert worker_count(16, "cuda") == (16, 1)
    with pytest.raises(ValueError, match="--workers must be at least 1, got 0"):
        worker_count(0, "cpu")


def test_torchrun_with_one_process_is_a_plain_start(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert worker_count(1, "cpu") == (1, available_cores())


@pytest.mark.slow
def test_a_recipe_that_torchrun_starts_twice_says_what_to_do(tmp_path):
    recipe = next(path for path in RECIPES if path.stem == "long_tail")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [*torchrun, str(recipe), "--smoke", "--out", str(tmp_path / "out")],
        capture_output=True, text=True, env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    printed = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "torchrun has started 2: start it with python and --workers" in " ".join(printed.split())
    assert not os.path.lexists(tmp_path / "out" / "runs")
