"""Real worker processes: one that dies, and comparisons that are stopped and go on."""

import contextlib
import errno
import io
import json
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from rich.console import Console
from support.experiment_runs import EPOCHS, config_of, job_of
from support.runs_here import runs_here

from nc_tools._support.disk_full import is_disk_full
from nc_tools._support.signals import Killed, StopSignal
from nc_tools.experiment import Protocol
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.run_pack import PackJob
from nc_tools.experiment.run_plan import run_plan
from nc_tools.experiment.workers import Workers
from nc_tools.run_records import read_run, scan

TIMED = {"perf/seconds", "perf/images_per_s", "perf/evaluation_seconds"}


def options(out, **more):
    """One run at a time, whose numbers are bit-equal after a stop; packs are tested in test_run_packs.py."""
    return RunOptions(out=out, device="cpu", workers=1, threads=1, pack=1, **more)


def plan():
    protocol = Protocol(seeds=(0, 1), draws=2, rates=(0.1,), max_extensions=0, curve_points=2)
    return Plan(
        name="test", question="Why?", arms={arm: config_of(arm) for arm in ("linear", "etf")}, protocol=protocol
    )


def quiet():
    return Console(file=io.StringIO(), width=80)


def finals(out):
    runs = [r for r in scan(out).runs if r.identity.kind == "final"]
    assert all(r.status == "FINISHED" for r in runs)
    return {r.path.name: {k: v for k, v in r.final.items() if k not in TIMED} for r in runs}


@contextlib.contextmanager
def when(condition, act):
    """Act from a thread once a condition holds."""
    done = threading.Event()

    def watch():
        while not done.is_set():
            if condition():
                act()
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    console = quiet()
    with runs_here():  # the tests below compare with it what worker processes make
        run_plan(plan(), options(out), console)
    return out, console.file.getvalue()


@pytest.mark.slow
def test_a_comparison_names_its_runs_and_its_tuning(finished):
    out, shown = finished
    experiment = json.loads((out / "experiment.json").read_text())
    assert (experiment["baseline"], experiment["arms"]) == ("linear", ["linear", "etf"])
    assert {(r["arm"], r["seed"], r["draw"]) for r in experiment["runs"]} == {
        *(("linear", s, 0) for s in (0, 1)),
        *(("etf", s, d) for s in (0, 1) for d in (0, 1)),
    }
    assert {r["status"] for r in experiment["runs"]} == {"FINISHED"}
    assert {r["run_id"] for r in experiment["runs"]} == finals(out).keys()
    tuning = json.loads((out / "tuning.json").read_text())
    counts = [sum(t["arm"] == arm for t in tuning["trials"]) for arm in ("linear", "etf")]
    assert counts == [3, 3]
    assert set(tuning["chosen"]) == {"linear", "etf"}
    assert all(len(line) < 200 for line in shown.splitlines())
    assert shown.startswith("data digits: 633 training and 631 test images of 7 classes, 1 x 8 x 8\n")
    assert "375 of 633 training images are left out" in shown


@pytest.mark.slow
def test_finals_of_an_arm_use_what_was_chosen_for_it(finished):
    out, _ = finished
    chosen = json.loads((out / "tuning.json").read_text())["chosen"]
    for run in scan(out).runs:
        if run.identity.kind in ("final", "holdout"):
            config, values = run.identity.config, chosen[run.identity.arm]
            assert config["optim"]["lr"] == values["lr"]
            if run.identity.arm == "etf":
                assert config["head"]["arguments"].get("scale") == values["head.scale"]
            else:
                assert config["optim"]["weight_decay"] == values["optim.weight_decay"]


@pytest.mark.slow
def test_a_comparison_stopped_by_sigterm_goes_on_to_the_same_numbers(finished, tmp_path):
    def in_a_final_run():
        return any((p / "metrics.jsonl").exists() for p in tmp_path.glob("runs/etf-*-final-*"))

    def ask():
        os.kill(os.getpid(), signal.SIGTERM)

    with when(in_a_final_run, ask), pytest.raises(Killed):
        run_plan(plan(), options(tmp_path), quiet())
    assert {r.status for r in scan(tmp_path).runs} <= {"FINISHED", "KILLED"}
    assert len([r for r in scan(tmp_path).runs if r.identity.kind == "final"]) < 6
    done = [r.path for r in scan(tmp_path).runs if r.status == "FINISHED"]
    before = {p: p.stat().st_mtime_ns for path in done for p in path.iterdir()}
    run_plan(plan(), options(tmp_path, resume=True), quiet())
    assert finals(tmp_path) == finals(finished[0])
    assert {p: p.stat().st_mtime_ns for p in before} == before  # what was finished was not repeated


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_only_its_run(tmp_path):
    long = config_of("linear", checkpoint_seconds=0.0)
    long = replace(long, training=replace(long.training, epochs=5000))
    configs = {1: config_of("linear"), 2: long, 3: config_of("linear")}
    jobs = [PackJob((job_of(tmp_path, "tuning", seed=s, config=configs[s]),)) for s in configs]
    ended = []
    with Workers(1, 1) as workers:

        def kill(progress):
            if progress.label == jobs[1].label:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(workers._workers[0].process.pid, signal.SIGKILL)

        def note(pack, result):
            ended.append((pack.jobs[0].seed, result.status))

        results = workers.run(jobs, stop=StopSignal(), on_progress=kill, on_result=note)
        workers._workers[0].process.kill()  # with nothing to do: nobody notices until the next job
        workers._workers[0].process.join()
        last = [PackJob((job_of(tmp_path, "tuning", seed=4),))]
        (later,) = workers.run(last, stop=StopSignal(), on_progress=lambda _: None, on_result=lambda *_: None)
    assert later.status == "FINISHED"
    assert [r.status for r in results] == ["FINISHED", "KILLED", "FINISHED"]
    assert ended == [(1, "FINISHED"), (2, "KILLED"), (3, "FINISHED")]
    assert results[1].unexpected
    assert "exit code -9" in results[1].error
    assert read_run(results[2].of_runs[0].run).curves()["train/loss"][-1][0] == EPOCHS


def test_there_is_no_pool_without_workers():
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        Workers(0, 1)


@pytest.fixture
def small_files():
    """Let no file grow beyond 20 kB, here and in new processes, until the fixture is called: no model fits."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
def test_a_full_disk_ends_the_comparison_at_once(finished, small_files, tmp_path):
    with pytest.raises(OSError, match="File too large") as caught:
        run_plan(plan(), options(tmp_path), quiet())
    assert is_disk_full(caught.value)
    runs = [read_run(path) for path in (tmp_path / "runs").iterdir()]
    assert [run.status for run in runs if run.identity.kind == "holdout"] == ["FAILED"]
    assert not [run for run in runs if run.identity.kind == "final"]
    assert not list(tmp_path.rglob("*.part"))
    small_files()  # room was made
    with runs_here():
        run_plan(plan(), options(tmp_path), quiet())
    assert finals(tmp_path) == finals(finished[0])


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "any words"), True),
        (OSError(errno.EDQUOT, "any words"), True),
        (OSError(errno.EACCES, "No space left on device"), False),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("I/O error: Permission denied (os error 13)"), False),
    ],
)
def test_a_full_disk_is_told_apart_from_other_errors(error, full):
    assert is_disk_full(error) is full
