"""The script for a GPU, rehearsed on the CPU: every command that it would run, at a tiny size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DEVICE": "cpu", "PYTHON": sys.executable}
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_every_command_of_the_gpu_script_works_without_mlflow(tmp_path: Path) -> None:
    done = script(str(tmp_path), "0", "step", "heads", "losses", "measures", "evaluation", "table")
    assert done.returncode == 0, done.stdout + done.stderr
    stages = ["step", "heads", "losses", "measures", "evaluation", "table"]
    assert [line.split(" works")[0] for line in done.stdout.splitlines()[1:]] == [f"{stage}:" for stage in stages]
    assert not list(tmp_path.rglob("mlflow.db"))
    table = (tmp_path / "rehearsal" / "table.txt").read_text()
    assert table.rstrip().endswith(f"To send them: nc-tools sync {tmp_path / 'rehearsal' / 'table'}")


@pytest.mark.parametrize("minutes", ["", "abc", "1.5", "-1"])
def test_minutes_must_be_a_whole_number(tmp_path: Path, minutes: str) -> None:
    done = script(str(tmp_path / "out"), minutes, "step")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: benchmarks/gpu.sh OUT MINUTES [STAGE ...]")


def test_a_folder_of_data_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", str(tmp_path / "none"))
    done = script(str(tmp_path / "out"), "0", "data")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"there is no folder {tmp_path / 'none'}: check DATA and PEER\n"


def test_an_unknown_stage_is_named_before_anything_runs(tmp_path: Path) -> None:
    done = script(str(tmp_path / "out"), "1", "stap")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("there is no stage stap: choose from tests step heads")
