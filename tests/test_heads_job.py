"""Runs on fixed features are divided among processes; what one of them loses."""

from dataclasses import replace

import pytest
from rich.console import Console
from support.head_plans import arms_of, base_of, embeddings, plan_of, run_plan_of

from nc_tools._support.signals import StopSignal
from nc_tools.experiment.job import JobResult
from nc_tools.experiment.on_features.head_samples import data_seed
from nc_tools.experiment.on_features.heads_job import HeadsJob, make_heads
from nc_tools.experiment.on_features.one_seed import OneSeed
from nc_tools.experiment.on_features.run_seeds import run_seeds
from nc_tools.experiment.on_features.seed_runs import make_seeds, trial_scores
from nc_tools.experiment.plan import RunOptions
from nc_tools.heads import CosineHead
from nc_tools.run_records import read_runs
from nc_tools.specs import spec


def test_a_process_that_dies_costs_only_the_seeds_of_its_runs(tmp_path):
    """One process had half of the second seed's trials; the first seed is compared all the same."""
    path = embeddings(tmp_path)
    base = base_of(path)
    plan = plan_of({"linear": base, "cosine": replace(base, head=spec(CosineHead))})
    ended = trial_scores(tmp_path, plan)
    seeds = [OneSeed(plan, seed, path, tmp_path, "cpu", ended) for seed in (0, 1)]
    died, made = JobResult(None, "KILLED", error="its process died (exit code -9)"), []

    def make(stage, runs):
        whole, half = runs, ()
        if stage == "tuning, round 1":
            whole, half = runs[:6], runs[6:]
            assert {data_seed(job) for job in half} == {1}
        job = HeadsJob(
            stage=stage, runs=tuple(whole), seeds=frozenset((0, 1)), features=path, scores=ended.folder,
            metric=ended.metric,
        )  # fmt: skip
        made.append((stage, len(whole)))
        return [*make_heads(job, print, StopSignal()).runs, *(died for _ in half)]

    assert make_seeds(seeds, ended, make) == {1: died}
    assert {(run.identity.arm, run.identity.seed) for run in read_runs(tmp_path)} == {("linear", 0), ("cosine", 0)}
    assert made[-2:] == [("hold-out runs", 2), ("final runs", 2)]


@pytest.mark.slow
def test_two_processes_make_the_runs_of_one(tmp_path):
    """Three seeds for two processes: the arms of the second seed are divided."""
    path = embeddings(tmp_path)
    arms = {name: arm for name, arm in arms_of(base_of(path)).items() if name in ("linear", "etf", "means")}
    plan = plan_of(arms, seeds=(0, 1, 2))
    options = RunOptions(out=tmp_path / "two", device="cpu", workers=2, threads=1)
    run_seeds(plan, options, path, Console(quiet=True))
    run_plan_of(plan, path, tmp_path / "one")
    two, one = ({run.identity.run_id: run for run in read_runs(tmp_path / name)} for name in ("two", "one"))
    assert two.keys() == one.keys()
    for name, run in two.items():
        # Not sets of classes whose sizes jump with the last digit of a probability.
        values, expected = (
            {k: v for k, v in r.final.items() if k.startswith(("test/gen/", "test/cal/", "test/collapse/"))}
            for r in (run, one[name])
        )
        assert len(values) > 20
        assert values == pytest.approx(expected, abs=1e-4, nan_ok=True)
