"""A run and its process: signals, SIGKILL, and whether the process is still alive."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from support.run_records import identity, only_run, run_python

from nc_tools.run_records import RunIdentity, RunRecord, killed_on_sigterm, mark_killed
from nc_tools.run_records.liveness import ProcessStart, is_alive, start_of
from nc_tools.tracking import track


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
    earlier = {name: status[name] - 3600 for name in ("pid_started", "pid_since_boot")}
    (run.path / "status.json").write_text(json.dumps({**status, **earlier}))
    assert [killed.path for killed in mark_killed(tmp_path)] == [run.path]


def test_a_new_process_started_now():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert abs(start_of(process.pid).time - time.time()) < 3
        process.communicate(b"\n")
    assert start_of(process.pid) is None


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
        assert start == pytest.approx(start_of(process.pid).time, abs=0.02)  # a clock tick is 0.01 s
        status_file = only_run(tmp_path).path / "status.json"
        status = json.loads(status_file.read_text())
        older = {name: value for name, value in status.items() if name not in ("pid_since_boot", "boot_id")}
        status_file.write_text(json.dumps({**older, "pid_started": start}))
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
def test_the_start_of_an_older_record_may_differ_by_a_few_seconds(difference, alive):
    assert is_alive(os.getpid(), ProcessStart(start_of(os.getpid()).time + difference)) is alive


LINUX = pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="only Linux identifies a start")


@LINUX
@pytest.mark.parametrize("moved", [3600.0, -3600.0, 3 * 365 * 86400.0])
def test_a_living_run_is_not_killed_when_the_clock_is_set(tmp_path, monkeypatch, moved):
    run = RunRecord.create(tmp_path, identity())
    before = start_of(os.getpid())
    # The system tells the time of its start by the clock: setting the clock moves all starts of processes.
    true_boot = psutil._pslinux.boot_time  # which psutil.boot_time calls
    monkeypatch.setattr(psutil._pslinux, "BOOT_TIME", None, raising=False)  # psutil before 7 keeps the last answer

    def boot_time():
        psutil._pslinux.BOOT_TIME = true_boot() + moved
        return psutil._pslinux.BOOT_TIME

    monkeypatch.setattr(psutil._pslinux, "boot_time", boot_time)
    after = start_of(os.getpid())
    assert after.time == pytest.approx(before.time + moved, abs=2)
    assert is_alive(os.getpid(), before)
    assert mark_killed(tmp_path) == []
    assert run.read().status == "RUNNING"


@LINUX
def test_a_process_of_an_earlier_start_of_the_system_has_ended():
    start = start_of(os.getpid())
    assert is_alive(os.getpid(), start)
    assert not is_alive(os.getpid(), replace(start, boot_id="11111111-2222-3333-4444-555555555555"))
    assert not is_alive(os.getpid(), replace(start, since_boot=start.since_boot + 60))


def test_a_process_that_may_not_be_inspected_is_alive(monkeypatch):
    def denied(pid):
        raise psutil.AccessDenied(pid)

    monkeypatch.setattr(psutil, "Process", denied)
    assert is_alive(1, ProcessStart(0.0))
    assert start_of(1) is None


@pytest.mark.parametrize("pid", [-1, 2**22 + 1, 2**40, 10**30])
def test_a_number_that_no_process_has_is_not_alive(pid):
    assert not is_alive(pid, None)
    assert start_of(pid) is None


def test_a_loop_removes_what_killed_processes_left_half_written(tmp_path, monkeypatch):
    module = sys.modules["nc_tools.tracking.track"]
    monkeypatch.setattr(module, "_senders", {})
    monkeypatch.setattr(module.atexit, "register", lambda _: None)
    monkeypatch.setattr(module.MlflowSync, "start", lambda _: None)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    run = tmp_path / "runs" / "mine-s0-d0-loop-12345678"
    run.mkdir(parents=True)
    left = [
        run / f".status.json.{ended.pid}.140.part",
        tmp_path / f".experiment.json.{ended.pid}.7.part",
        tmp_path / "runs" / f".mine-s1-d0-loop-12345678.{ended.pid}",
        tmp_path / "runs" / f".mine-s1-d0-loop-12345678.old.{ended.pid}",
    ]
    kept = [run / f".status.json.{os.getpid()}.140.part", run / "metrics.jsonl", tmp_path / "runs" / ".keep"]
    for path in left[:2] + kept:
        path.write_text("half")
    for folder in left[2:]:
        (folder / "figures").mkdir(parents=True)
    with track(tmp_path, "mine", seed=3) as record:
        record.finish({"test/gen/accuracy": 0.5})
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
