"""A run's record on disk: it says the truth about how the run ended, whatever ended it."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import nc_tools
from nc_tools.run_records.liveness import is_alive, started_at
from nc_tools.run_records.reader import recover_run
from nc_tools.tracking import (
    Killed,
    RunIdentity,
    RunRecord,
    hash_config,
    killed_on_sigterm,
    mark_killed,
    read_run,
    read_runs,
    scan,
)

SOURCE = Path(nc_tools.__file__).resolve().parents[1]


def identity(**changes) -> RunIdentity:
    return RunIdentity(**{"kind": "final", "arm": "etf", "seed": 0, "config": {"lr": 0.1}, **changes})


def run_python(body: str, root: Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start a training script whose record is ``run`` and which says "ready" when it may be ended."""
    script = f"""
import os, signal, sys, time
# Started from a shell's background, a process is told to ignore Ctrl-C; a program at a terminal is not.
signal.signal(signal.SIGINT, signal.default_int_handler)
from nc_tools.tracking import Killed, RunIdentity, RunRecord, killed_on_sigterm
with killed_on_sigterm(), RunRecord.create({str(root)!r}, RunIdentity("final", arm="etf", seed=0)) as run:
    run.log(1, {{"train/loss": 1.0}})
    print("ready", flush=True)
{body}
"""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )


def only_run(root: Path):
    (run,) = read_runs(root)
    return run


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


def test_a_value_that_is_no_number_is_refused_before_anything_is_written(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    with pytest.raises(TypeError, match="'train/acc' must be one number, got list"):
        run.log(1, {"train/loss": 1.0, "train/acc": [1, 2]})
    with pytest.raises(TypeError, match="one number"):
        run.log(1, {"train/loss": torch.zeros(3)})
    assert not run.read().curves()
    run.finish({})
    with pytest.raises(RuntimeError, match="FINISHED"):
        run.log(2, {"train/loss": 1.0})


def test_leaving_without_final_values_is_a_failure(tmp_path):
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
def test_what_raises_out_of_the_block_decides_the_status(tmp_path, error, status, text):
    with pytest.raises(type(error)), RunRecord.create(tmp_path, identity()):
        raise error
    assert (only_run(tmp_path).status, only_run(tmp_path).error) == (status, text)


def test_an_error_after_finish_leaves_the_run_finished(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    run.finish({})
    with pytest.raises(OSError, match="later"), run:
        raise OSError("later")
    assert only_run(tmp_path).status == "FINISHED"


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(signal.SIGINT, "KILLED", -signal.SIGINT), (signal.SIGTERM, "KILLED", 128 + signal.SIGTERM)],
)
def test_signals_end_a_real_process_as_killed_with_everything_kept(tmp_path, number, status, code):
    process = run_python("    time.sleep(60)", tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert only_run(tmp_path).status == status
    assert only_run(tmp_path).curves() == {"train/loss": [(1, 1.0)]}


def test_sigkill_leaves_running_until_mended_and_only_then(tmp_path):
    process = run_python("    time.sleep(60)", tmp_path)
    assert process.stdout.readline() == "ready\n"
    assert mark_killed(tmp_path) == []  # it lives
    process.kill()
    # Not waited for yet: the process is a zombie, which is dead enough.
    deadline = time.monotonic() + 10
    while is_alive(process.pid, None) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert only_run(tmp_path).status == "RUNNING"
    (mended,) = mark_killed(tmp_path)
    assert mended == only_run(tmp_path)
    assert mended.status == "KILLED"
    assert str(process.pid) in mended.error
    process.communicate()
    assert mark_killed(tmp_path) == []


def test_mend_knows_a_reused_process_number_and_leaves_other_machines_alone(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**status, "host": "elsewhere", "pid": 2**22 + 1}))
    assert mark_killed(tmp_path) == []
    # Our own number, but of a process that began an hour earlier.
    (run.path / "status.json").write_text(json.dumps({**status, "pid_started": status["pid_started"] - 3600}))
    assert [mended.path for mended in mark_killed(tmp_path)] == [run.path]


def test_process_start_is_now_for_a_new_process():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert abs(started_at(process.pid) - time.time()) < 3
        process.communicate(b"\n")
    assert started_at(process.pid) is None


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


def test_a_finished_run_is_not_begun_again_and_an_unfinished_one_is_replaced(tmp_path):
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


def test_a_run_that_another_process_writes_is_refused(tmp_path):
    process = run_python("    time.sleep(60)", tmp_path)
    assert process.stdout.readline() == "ready\n"
    try:
        with pytest.raises(FileExistsError, match=f"process {process.pid}"):
            RunRecord.create(tmp_path, RunIdentity("final", arm="etf", seed=0))
        with pytest.raises(FileExistsError, match=f"process {process.pid}"):
            RunRecord.open(only_run(tmp_path).path, step=0)
    finally:
        process.kill()
        process.communicate()


def test_a_broken_folder_is_named_and_the_others_are_read(tmp_path):
    good = RunRecord.create(tmp_path, identity())
    bad = RunRecord.create(tmp_path, identity(seed=1))
    (bad.path / "run.json").write_text("{")
    with pytest.warns(UserWarning, match=bad.path.name):
        assert [run.path for run in read_runs(tmp_path)] == [good.path]
    assert list(scan(tmp_path).broken) == [bad.path.name]
    with pytest.raises(FileNotFoundError, match="must exist"):
        read_runs(tmp_path / "nowhere")


def test_kinds_are_kept_apart(tmp_path):
    RunRecord.create(tmp_path, identity())
    RunRecord.create(tmp_path, identity(kind="tuning"))
    assert [run.identity.kind for run in read_runs(tmp_path)] == ["final"]
    assert {run.identity.kind for run in read_runs(tmp_path, ("tuning", "final"))} == {"final", "tuning"}


def test_hashes_name_the_run_and_its_group():
    base = identity(config={"lr": 0.1, "seed": 0, "head": {"draw": 1}})
    other_seed = identity(seed=1, draw=2, config={"lr": 0.1, "seed": 1, "head": {"draw": 1}})
    other_lr = identity(config={"lr": 0.2, "seed": 0, "head": {"draw": 1}})
    assert base.group_hash == other_seed.group_hash != other_lr.group_hash
    assert len({base.config_hash, other_seed.config_hash, other_lr.config_hash}) == 3
    assert base.run_id == f"etf-s0-d0-final-{base.config_hash[:8]}"
    assert hash_config({"a": (1, 2)}) == hash_config({"a": [1, 2]})
    with pytest.raises(ValueError, match="kind must be one of"):
        identity(kind="finale")


def test_credentials_reach_no_file_of_a_record(tmp_path):
    secret = "http://ann:pa$$w0rd@host:5000"
    run = RunRecord.create(
        tmp_path,
        identity(command=("train.py", f"--tracking-uri={secret}"), config={"tracking": {"uri": [secret]}}),
    )
    run.fail(f"cannot reach {secret}/api")
    for path in run.path.rglob("*.json"):
        assert "pa$$w0rd" not in path.read_text()
    assert "host:5000" in (run.path / "run.json").read_text()


def test_sigterm_handler_is_restored_and_a_users_own_is_respected():
    before = signal.getsignal(signal.SIGTERM)
    with killed_on_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before

    def mine(*_):
        pass

    signal.signal(signal.SIGTERM, mine)
    try:
        with killed_on_sigterm():
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_record_imports_neither_mlflow_nor_torch():
    code = "import sys, nc_tools.tracking; print([m for m in ('mlflow', 'torch', 'numpy') if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert out.stdout.strip() == "[]"


def test_a_run_read_twice_while_it_is_written_never_shows_half_a_line(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    run.log(1, {"a": 1})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step":2,"time_ms":0,"values":{"a":2}}')
        file.flush()
        assert read_run(run.path).curves() == {"a": [(1, 1.0)]}
        file.write(b"\n")
    assert read_run(run.path).curves() == {"a": [(1, 1.0), (2, 2.0)]}


def test_a_sound_record_is_the_same_to_both_readers(tmp_path):
    with RunRecord.create(tmp_path, identity(draw=2, data={"name": "digits"})) as run:
        run.log(1, {"train/loss": 0.5})
        run.finish({"test/gen/accuracy": 0.9})
    stored, found = read_run(run.path), recover_run(run.path)
    assert found.identity == {key: getattr(run.identity, key) or "" for key in found.identity} | {"draw": 2, "seed": 0}
    assert (found.status, found.error, found.final) == (stored.status, "", stored.final)
    assert found.curves == stored.curves() == {"train/loss": [(1, 0.5)]}
    assert found.problems == ()


def test_who_a_run_is_can_be_told_from_its_folder(tmp_path):
    run = RunRecord.create(tmp_path, identity(arm="etf-la", seed=4, draw=2, kind="holdout"))
    (run.path / "run.json").write_text("{")
    found = recover_run(run.path)
    assert [found.identity[key] for key in ("arm", "seed", "draw", "kind")] == ["etf-la", 4, 2, "holdout"]
    assert found.problems == ("run.json holds no JSON object",)


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"step":2}', '{"step":2,"values":{"a":"high"}}'])
def test_a_damaged_line_is_refused_by_one_reader_and_named_by_the_other(tmp_path, text):
    run = RunRecord.create(tmp_path, identity())
    run.log(1, {"a": 1})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(f"{text}\n")
    run.log(3, {"a": 3})
    with pytest.raises(ValueError, match=r"line 2 after byte 0 of .*metrics\.jsonl is no line of metrics"):
        read_run(run.path).curves()
    assert recover_run(run.path).curves == {"a": [(1, 1.0), (3, 3.0)]}
    assert recover_run(run.path).problems == ("metrics.jsonl line 2 cannot be read",)


def test_the_later_value_of_a_step_is_taken_and_steps_are_in_order(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    for step, value in ((1, 1.0), (3, 9.0), (2, 2.0), (3, 3.0)):
        run.log(step, {"a": value})
    assert run.read().curves() == recover_run(run.path).curves == {"a": [(1, 1.0), (2, 2.0), (3, 3.0)]}


def test_a_final_value_that_is_no_number_makes_the_record_broken(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    run.finish({"a": 1})
    (run.path / "final.json").write_text('{"a": 1, "b": "high"}')
    with pytest.raises(ValueError, match="must be a number or null, got 'high'"):
        read_run(run.path)
    assert recover_run(run.path).final == {"a": 1.0}
    assert recover_run(run.path).problems == ("final.json holds no number for 'b'",)
