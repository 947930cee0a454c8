"""Runs that SIGKILL ends before any one change of a file: resumed, they end as if nothing had happened."""

import json
from dataclasses import replace

import pytest
from support.experiment_runs import make
from support.killed_process import killed_before

from nc_tools.data import DataConfig, SymmetricNoise
from nc_tools.experiment import ModelConfig, Protocol, RunConfig
from nc_tools.experiment.job import Job
from nc_tools.heads import LinearHead
from nc_tools.losses import CrossEntropyLoss, ForwardCorrectionLoss
from nc_tools.run_records import read_run
from nc_tools.run_records.partial_files import remove_partial_files
from nc_tools.specs import spec
from nc_tools.training import OptimConfig, RetrainClassifier, TauNormalize, TrainConfig
from nc_tools.transfer import FineTuning

PROTOCOL = Protocol(curve_points=2)
SHORT = FineTuning(rates=(0.01,), training=TrainConfig(epochs=1, batch_size=64))
BASE = RunConfig(
    data=DataConfig(imbalance=10),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(width=4),
    training=TrainConfig(epochs=2, batch_size=64, checkpoint_seconds=0.0),
    optim=OptimConfig(lr=0.1),
)
RUNS = {
    "plain": (BASE, PROTOCOL),
    "label noise, estimated first": (
        replace(BASE, data=DataConfig(noise=SymmetricNoise(0.3)), loss=spec(ForwardCorrectionLoss)),
        replace(PROTOCOL, check_transition=False),
    ),
    "second stage that trains": (replace(BASE, second_stage=RetrainClassifier(share=0.5)), PROTOCOL),
    "second stage that computes": (replace(BASE, second_stage=TauNormalize()), PROTOCOL),
    "OOD, transfer and fine-tuning": (
        replace(BASE, data=DataConfig(held_out_classes=3, ood_far="scrambled")),
        replace(PROTOCOL, transfer_samples=60, fine_tuning=SHORT, rank_layers=True),
    ),
}
TIMED = {"perf/seconds", "perf/images_per_s", "perf/evaluation_seconds"}
MOST_CHANGES = 80

# One thread, as in the forked process.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def job_of(root, name, kind, **more):
    config, protocol = RUNS[name]
    return Job(
        kind=kind, arm="a", config=config, seed=0, draw=0, root=root, experiment="t", suite="s", protocol=protocol,
        device="cpu", resume=True, **more,
    )  # fmt: skip


def contents(run):
    """Every file of a run's folder, without what differs between two runs of one configuration: times and paths."""
    files = {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}
    for name in ("run.json", "status.json", "final.json", "metrics.jsonl"):
        del files[name]
    stored = read_run(run)
    final = {key: value for key, value in stored.final.items() if key not in TIMED}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return files, final, [(line["step"], line["values"]) for line in lines], stored.status


def killed_everywhere(root, tmp_path, name, kind, **more):
    """Kill a run before each of its changes of a file and resume it each time; compare with one left alone."""
    expected = contents(make(job_of(root, name, kind, **more))[0].run)
    for number in range(MOST_CHANGES):
        job = job_of(tmp_path / str(number), name, kind, **more)
        killed = killed_before(number, lambda job=job: make(job))
        remove_partial_files(job.root)  # as a comparison does when it starts
        assert contents(make(job)[0].run) == expected, f"killed before change {number}"
        if not killed:
            return number
    pytest.fail(f"a run made more than {MOST_CHANGES} changes")


def each_run():
    cases = [(kind, name) for name in RUNS for kind in ("holdout", "final")]
    return [pytest.param(*case, marks=[] if case == ("final", "plain") else pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(("kind", "name"), each_run())
def test_a_run_killed_before_any_change_of_a_file_ends_with_the_same_files(tmp_path, tmp_path_factory, kind, name):
    root = tmp_path_factory.mktemp("whole")
    more = {"cache": root / "cache"}  # the digits are read once
    holdout = make(job_of(root, name, "holdout", **more))[0].run
    if kind == "final":
        more["holdout_run"] = holdout
    assert killed_everywhere(root, tmp_path, name, kind, **more) >= 12
