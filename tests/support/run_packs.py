"""Packs of small runs, and what they have in common with runs made one by one."""

import pytest
import torch
from safetensors.torch import load_file

from nc_tools._support.signals import StopSignal
from nc_tools.experiment.run_pack import PackJob, run_pack
from nc_tools.run_records import read_run
from support.experiment_runs import job_of

TIMED = {"perf/seconds", "perf/side_by_side", "perf/images_per_s", "perf/evaluation_seconds"}
ARMS = ("linear", "etf_la", "etf_dr", "linear_crt", "linear_mixup_drw")


def pack_of(jobs, on_progress=lambda _: None, stop=None):
    return run_pack(PackJob(tuple(jobs)), on_progress, stop or StopSignal())


def jobs_of(root, kind, **more):
    return [job_of(root, kind, arm, seed=number % 2, **more) for number, arm in enumerate(ARMS)]


def assert_same_run(mine, alone):
    """The same folder name, curves and final values up to the rounding of float32 in a few dozen steps."""
    assert mine.run.name == alone.run.name
    one, other = read_run(mine.run), read_run(alone.run)
    assert one.status == other.status == "FINISHED"
    assert {k for k in one.final if k not in TIMED} == {k for k in other.final if k not in TIMED}
    for epoch, value in other.curves()["train/loss"]:
        assert dict(one.curves()["train/loss"])[epoch] == pytest.approx(value, rel=1e-3)
    assert one.curves().keys() == other.curves().keys()
    if (mine.run / "weights.safetensors").exists():
        ours, theirs = load_file(mine.run / "weights.safetensors"), load_file(alone.run / "weights.safetensors")
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert torch.allclose(ours[name].double(), theirs[name].double(), rtol=1e-2, atol=1e-3), name
