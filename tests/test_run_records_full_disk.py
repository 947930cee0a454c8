"""A full disk: no half line of metrics, no run that stays RUNNING, and no half-written file."""

import errno
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.run_records import SOURCE, identity, only_run

from nc_tools.run_records import RunRecord, read_run, recover_run

LINE_LIMIT = 1000


def run_with_limit(root: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run a training script in which no file can grow beyond a limit, as on a disk that is full there."""
    script = f"""
from nc_tools.run_records import RunIdentity, RunRecord
with RunRecord.create({str(root)!r}, RunIdentity("final", arm="etf", seed=0)) as run:
{body}
"""
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},  # no cut bytecode either
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LINE_LIMIT, LINE_LIMIT)),
    )


def test_a_line_that_does_not_fit_is_not_left_half_written_and_the_run_fails(tmp_path):
    done = run_with_limit(tmp_path, "    for step in range(100):\n        run.log(step, {'train/loss': step / 7})")
    assert done.returncode == 1
    assert "File too large" in done.stderr
    run = only_run(tmp_path)
    assert run.status == "FAILED"
    assert "File too large" in run.error
    content = (run.path / "metrics.jsonl").read_bytes()
    assert content.endswith(b"\n")
    steps = [json.loads(line)["step"] for line in content.splitlines()]
    assert steps == list(range(len(steps)))
    assert LINE_LIMIT - 100 < len(content) <= LINE_LIMIT
    assert not list(run.path.glob(".*"))


def test_a_loop_that_goes_on_writes_no_damaged_line(tmp_path):
    body = """
    for step in range(100):
        try:
            run.log(step, {"a": 1.0} if step % 2 else {f"train/loss_of_a_long_name_{i}": 1.0 for i in range(10)})
        except OSError:
            pass
    run.finish({"test/gen/accuracy": 0.5})
"""
    assert run_with_limit(tmp_path, body).returncode == 0
    run = only_run(tmp_path)
    assert run.status == "FINISHED"
    assert recover_run(run.path).problems == ()
    assert run.curves()["a"]


def test_without_room_for_a_new_file_the_status_is_written_in_the_place_of_the_old_one(tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    run = RunRecord.create(tmp_path, identity())
    monkeypatch.setattr("nc_tools.run_records.status_file.write_json", full)
    with pytest.raises(OSError, match="No space"), run:
        full()
    stored = read_run(run.path)
    assert stored.status == "FAILED"
    assert "No space left on device" in stored.error
    # A longer status before leaves no rest behind.
    (run.path / "status.json").write_text((run.path / "status.json").read_text() + " " * 3000)
    run._status = "RUNNING"
    run.kill("stopped")
    assert read_run(run.path).error == "stopped"
    assert (run.path / "status.json").stat().st_size < 1000


def test_other_errors_of_the_disk_are_raised(tmp_path, monkeypatch):
    def broken(*_args, **_options):
        raise OSError(errno.EIO, "Input/output error")

    run = RunRecord.create(tmp_path, identity())
    monkeypatch.setattr("nc_tools.run_records.status_file.write_json", broken)
    with pytest.raises(OSError, match="Input/output"):
        run.kill("stopped")
    assert read_run(run.path).status == "RUNNING"
