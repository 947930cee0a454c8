"""A run and its process: signals, SIGKILL, and whether the process is still alive."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.run_records import identity, only_run, run_python

from nc_tools.run_records import RunIdentity, RunRecord, killed_on_sigterm, mark_killed
from nc_tools.run_records.liveness import is_alive, started_at


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(signal.SIGINT, "KILLED", -signal.SIGINT), (signal.SIGTERM, "KILLED", 128 + signal.SIGTERM)],
)
def test_a_signal_makes_the_run_killed_and_keeps_what_was_logged(tmp_path, number, status, code):
    process = run_python("    time.sleep(60)", tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert only_run(tmp_path).status == status
    assert only_run(tmp_path).curves() == {"train/loss": [(1, 1.0)]}


def test_after_sigkill_a_run_is_running_until_it_is_marked_as_killed(tmp_path):
    process = run_python("    time.sleep(60)", tmp_path)
    assert process.stdout.readline() == "ready\n"
    assert mark_killed(tmp_path) == []  # the process is alive
    process.kill()
    # Not waited for yet: the process is a zombie, which counts as ended.
    deadline = time.monotonic() + 10
    while is_alive(process.pid, None) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert only_run(tmp_path).status == "RUNNING"
    (killed,) = mark_killed(tmp_path)
    assert killed == only_run(tmp_path)
    assert killed.status == "KILLED"
    assert str(process.pid) in killed.error
    process.communicate()
    assert mark_killed(tmp_path) == []


def test_a_reused_process_number_is_recognized_and_runs_of_other_machines_stay(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**status, "host": "elsewhere", "pid": 2**22 + 1}))
    assert mark_killed(tmp_path) == []
    # The number of this process, but of one that started an hour earlier.
    (run.path / "status.json").write_text(json.dumps({**status, "pid_started": status["pid_started"] - 3600}))
    assert [killed.path for killed in mark_killed(tmp_path)] == [run.path]


def test_a_new_process_started_now():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert abs(started_at(process.pid) - time.time()) < 3
        process.communicate(b"\n")
    assert started_at(process.pid) is None


def test_a_run_that_another_process_writes_is_not_started_again(tmp_path):
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


def test_the_sigterm_handler_is_restored_and_a_users_own_handler_stays():
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


def start_from_proc(pid: int) -> float:
    """The start of a process as records hold it that were written before psutil was used: boot time and clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return float(boot.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="older records hold a start on Linux only")
def test_older_records_of_a_living_and_of_an_ended_process_are_judged_right(tmp_path):
    process = run_python("    time.sleep(60)", tmp_path)
    assert process.stdout.readline() == "ready\n"
    try:
        start = start_from_proc(process.pid)
        assert start == pytest.approx(started_at(process.pid), abs=0.02)  # a clock tick is 0.01 s
        status_file = only_run(tmp_path).path / "status.json"
        status_file.write_text(json.dumps({**json.loads(status_file.read_text()), "pid_started": start}))
        assert mark_killed(tmp_path) == []
        with pytest.raises(FileExistsError, match=f"process {process.pid}"):
            RunRecord.create(tmp_path, RunIdentity("final", arm="etf", seed=0))
    finally:
        process.kill()
        process.communicate()
    assert [run.status for run in mark_killed(tmp_path)] == ["KILLED"]


def test_a_record_without_a_start_is_judged_by_its_process_number(tmp_path):
    """Older records from systems without /proc hold null."""
    run = RunRecord.create(tmp_path, identity())
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**status, "pid_started": None}))
    assert mark_killed(tmp_path) == []
    (run.path / "status.json").write_text(json.dumps({**status, "pid": 2**22 + 1, "pid_started": None}))
    assert [killed.status for killed in mark_killed(tmp_path)] == ["KILLED"]


@pytest.mark.parametrize(("difference", "alive"), [(4.9, True), (-4.9, True), (5.1, False), (-5.1, False)])
def test_a_corrected_clock_moves_the_start_by_a_few_seconds_at_most(difference, alive):
    assert is_alive(os.getpid(), started_at(os.getpid()) + difference) is alive


def test_a_process_that_may_not_be_inspected_is_alive(monkeypatch):
    def denied(pid):
        raise psutil.AccessDenied(pid)

    monkeypatch.setattr(psutil, "Process", denied)
    assert is_alive(1, 0.0)
    assert started_at(1) is None


@pytest.mark.parametrize("pid", [-1, 2**22 + 1, 2**40])
def test_a_number_that_no_process_has_is_not_alive(pid):
    assert not is_alive(pid, None)
    assert started_at(pid) is None
