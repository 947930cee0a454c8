"""The record of a run on disk: values, final values, and a status that says how the run ended."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.run_records import SOURCE, identity, only_run

from nc_tools.run_records import Killed, RunRecord, hash_config


def test_finished_run_reads_back_with_nulls_for_what_is_not_finite(tmp_path):
    with RunRecord.create(tmp_path, identity(data={"name": "digits", "num_classes": 2})) as run:
        run.log(1, {"train/loss": float("nan"), "train/lr": np.float32(0.5)})
        run.log(2, {"train/loss": torch.tensor(0.25), "train/lr": float("-inf")})
        run.finish({"test/gen/accuracy": 0.5, "test/cal/nll": math.inf})
    raw = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["values"] for line in raw] == [
        {"train/loss": None, "train/lr": 0.5},
        {"train/loss": 0.25, "train/lr": None},
    ]
    stored = only_run(tmp_path)
    assert stored.status == "FINISHED"
    assert stored.identity == run.identity
    assert stored.final["test/gen/accuracy"] == 0.5
    assert math.isnan(stored.final["test/cal/nll"])
    losses = stored.curves()["train/loss"]
    assert losses[1] == (2, 0.25)
    assert losses[0][0] == 1
    assert math.isnan(losses[0][1])
    assert stored.ended_ms >= stored.started_ms


def test_a_value_that_is_not_a_number_is_an_error_and_nothing_is_written(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    with pytest.raises(TypeError, match="'train/acc' must be one number, got list"):
        run.log(1, {"train/loss": 1.0, "train/acc": [1, 2]})
    with pytest.raises(TypeError, match="one number"):
        run.log(1, {"train/loss": torch.zeros(3)})
    assert not run.read().curves()
    run.finish({})
    with pytest.raises(RuntimeError, match="FINISHED"):
        run.log(2, {"train/loss": 1.0})


def test_a_block_that_ends_without_final_values_is_a_failure(tmp_path):
    with RunRecord.create(tmp_path, identity()):
        pass
    assert only_run(tmp_path).status == "FAILED"
    assert "finish" in only_run(tmp_path).error


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("bad\nlong story"), "FAILED", "ValueError: bad"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt"),
        (SystemExit(3), "KILLED", "SystemExit"),
        (Killed(), "KILLED", "Killed"),
        (RuntimeError("see http://ann:secret@host/x"), "FAILED", "RuntimeError: see http://***@host/x"),
    ],
)
def test_the_exception_that_leaves_the_block_decides_the_status(tmp_path, error, status, text):
    with pytest.raises(type(error)), RunRecord.create(tmp_path, identity()):
        raise error
    assert (only_run(tmp_path).status, only_run(tmp_path).error) == (status, text)


def test_an_error_after_finish_leaves_the_run_finished(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    run.finish({})
    with pytest.raises(OSError, match="later"), run:
        raise OSError("later")
    assert only_run(tmp_path).status == "FINISHED"


def test_resuming_drops_later_steps_and_a_half_written_line(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    for step in range(1, 6):
        run.log(step, {"train/loss": step})
    run.kill()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step":6,"time_ms":1,"val')
    assert len(only_run(tmp_path).curves()["train/loss"]) == 5  # the half line is no value
    resumed = RunRecord.open(run.path, step=3)
    assert resumed.read().status == "RUNNING"
    assert resumed.read().error is None
    resumed.log(4, {"train/loss": 40})
    resumed.finish({})
    assert only_run(tmp_path).curves()["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert only_run(tmp_path).started_ms == run.read().started_ms


def test_a_finished_run_is_not_started_again_and_an_unfinished_one_is_replaced(tmp_path):
    first = RunRecord.create(tmp_path, identity())
    first.log(1, {"train/loss": 1.0})
    first.fail("out of luck")
    second = RunRecord.create(tmp_path, identity())
    assert second.path == first.path
    assert second.read().curves() == {}
    second.finish({})
    with pytest.raises(FileExistsError, match="already finished"):
        RunRecord.create(tmp_path, identity())
    with pytest.raises(FileExistsError, match="already finished"):
        RunRecord.open(second.path, step=1)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [first.path.name]


def test_hashes_identify_the_run_and_its_group():
    base = identity(config={"lr": 0.1, "seed": 0, "head": {"draw": 1}})
    other_seed = identity(seed=1, draw=2, config={"lr": 0.1, "seed": 1, "head": {"draw": 1}})
    other_lr = identity(config={"lr": 0.2, "seed": 0, "head": {"draw": 1}})
    assert base.group_hash == other_seed.group_hash != other_lr.group_hash
    assert len({base.config_hash, other_seed.config_hash, other_lr.config_hash}) == 3
    assert base.run_id == f"etf-s0-d0-final-{base.config_hash[:8]}"
    assert hash_config({"a": (1, 2)}) == hash_config({"a": [1, 2]})
    with pytest.raises(ValueError, match="kind must be one of"):
        identity(kind="finale")


def test_no_file_of_a_record_holds_credentials(tmp_path):
    secret = "http://ann:pa$$w0rd@host:5000"
    run = RunRecord.create(
        tmp_path,
        identity(command=("train.py", f"--tracking-uri={secret}"), config={"tracking": {"uri": [secret]}}),
    )
    run.fail(f"cannot reach {secret}/api")
    for path in run.path.rglob("*.json"):
        assert "pa$$w0rd" not in path.read_text()
    assert "host:5000" in (run.path / "run.json").read_text()


def test_the_record_imports_neither_mlflow_nor_torch():
    code = "import sys, nc_tools.tracking; print([m for m in ('mlflow', 'torch', 'numpy') if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert out.stdout.strip() == "[]"
