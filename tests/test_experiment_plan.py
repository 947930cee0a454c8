"""Which runs a comparison plans, in which order, and what becomes of them when an earlier run was lost."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from nc_tools._support.signals import StopSignal
from nc_tools.data import DataConfig
from nc_tools.experiment import Protocol, RunConfig
from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.job import Job, JobResult
from nc_tools.experiment.packing import Packing
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.experiment.run_identity import identify
from nc_tools.experiment.run_pack import RunPackResult
from nc_tools.experiment.run_plan import _Stages
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss, FocalLoss
from nc_tools.specs import spec

FACTS = DataFacts(1, 8, 3, (5, 3, 2), ("a", "b", "c"), (0.5,), (0.5,), "fingerprint")
LINEAR = RunConfig(data=DataConfig(), head=spec(LinearHead), loss=spec(CrossEntropyLoss))
ARMS = {"linear": LINEAR, "etf": replace(LINEAR, head=spec(ETFHead))}


class Recording:
    """Workers that record their jobs; hold-out runs named in ``lost`` fail."""

    def __init__(self, lost: tuple[tuple[str, int], ...] = (), *, diverged: bool = False) -> None:
        self.lost, self.diverged, self.jobs = lost, diverged, []

    def run(self, packs, **_):
        self.jobs += [job for pack in packs for job in pack.jobs]
        return [RunPackResult(None, "FINISHED", of_runs=tuple(map(self.result, pack.jobs))) for pack in packs]

    def result(self, job: Job) -> JobResult:
        if job.kind == "holdout" and (job.arm, job.seed) in self.lost:
            return JobResult(None, "FAILED", error="gone", diverged=self.diverged)
        return JobResult(Path(f"{job.kind}-{job.arm}-{job.seed}-{job.draw}"), "FINISHED", score=0.5)

    def of(self, kind: str) -> list[Job]:
        return [job for job in self.jobs if job.kind == kind]


def made(tmp_path: Path, workers: Recording, **rules: int) -> list[dict]:
    protocol = Protocol(seeds=(0, 1), rates=(0.01, 0.1, 1.0), max_extensions=0, **rules)
    plan = Plan(name="p", question="q", arms=ARMS, protocol=protocol)
    options = RunOptions(out=tmp_path, device="cpu", workers=1, threads=1)
    packing, display = Packing(dict.fromkeys(ARMS, 3)), ProgressDisplay(Console(quiet=True))
    with StopSignal() as stop:
        _Stages(plan, options, dict.fromkeys(ARMS, FACTS), packing, workers, display, stop).run()
    return json.loads((tmp_path / "experiment.json").read_text())["runs"]


def test_seeds_come_one_after_the_other_and_only_frames_have_draws(tmp_path):
    workers = Recording()
    rows = made(tmp_path, workers, draws=3)
    named = [(job.seed, job.arm, job.draw) for job in workers.of("final")]
    one_seed = [("linear", 0), ("etf", 0), ("etf", 1), ("etf", 2)]
    assert named == [(seed, *rest) for seed in (0, 1) for rest in one_seed]
    assert [(row["seed"], row["arm"], row["draw"]) for row in rows] == named
    assert all(row["status"] == "FINISHED" for row in rows)
    assert {job.seed for job in workers.of("tuning")} == {1000}


@pytest.mark.parametrize(("holdout_draws", "taken"), [(1, [0, 0, 0]), (2, [0, 1, 1]), (3, [0, 1, 2]), (9, [0, 1, 2])])
def test_finals_take_the_hold_out_run_of_their_draw_or_of_the_last_before_it(tmp_path, holdout_draws, taken):
    workers = Recording()
    made(tmp_path, workers, draws=3, holdout_draws=holdout_draws)
    finals = [job for job in workers.of("final") if job.arm == "etf" and job.seed == 1]
    assert [str(job.holdout_run) for job in finals] == [f"holdout-etf-1-{draw}" for draw in taken]


def test_finals_of_a_lost_hold_out_run_are_listed_and_not_made(tmp_path):
    workers = Recording(lost=(("etf", 1),))
    rows = made(tmp_path, workers, draws=2)
    assert ("etf", 1) not in {(job.arm, job.seed) for job in workers.of("final")}
    killed = [row for row in rows if row["status"] == "KILLED"]
    assert [(row["arm"], row["seed"], row["draw"]) for row in killed] == [("etf", 1, 0), ("etf", 1, 1)]
    assert killed[0]["error"] == "its hold-out run did not finish: gone"


def test_a_diverged_hold_out_run_leaves_its_finals_without_temperature(tmp_path):
    workers = Recording(lost=(("etf", 1),), diverged=True)
    rows = made(tmp_path, workers, draws=1)
    assert all(row["status"] == "FINISHED" for row in rows)
    assert [job.holdout_run for job in workers.of("final") if (job.arm, job.seed) == ("etf", 1)] == [None]


def test_a_runs_name_tells_all_that_decides_its_numbers():
    def name(kind="final", config=LINEAR, **rules):
        job = Job(
            kind=kind, arm="a", config=config, seed=0, draw=0, root=Path(), experiment="e", suite="s",
            protocol=Protocol(**rules), device="cpu",
        )  # fmt: skip
        return identify(job, FACTS).run_id

    bfloat16 = replace(LINEAR, training=replace(LINEAR.training, precision="bfloat16"))
    names = [name(), name(curve_points=4), name(curve_samples=9), name(transfer_samples=9), name(config=bfloat16)]
    assert len(set(names)) == len(names)
    assert name("tuning", curve_points=4) == name("tuning")


def test_a_reference_has_the_loss_of_its_arm():
    base = RunConfig(head=spec(LinearHead), loss=spec(CrossEntropyLoss))
    arms = {"linear": base, "etf": replace(base, head=spec(ETFHead)), "focal": replace(base, loss=spec(FocalLoss))}
    Plan(name="p", question="q", arms=arms, protocol=Protocol(references={"etf": "linear", "absent": "linear"}))
    with pytest.raises(ValueError, match=r"got focal with FocalLoss and linear with CrossEntropyLoss in protocol"):
        Plan(name="p", question="q", arms=arms, protocol=Protocol(references={"focal": "linear"}))
