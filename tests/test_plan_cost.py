"""The cost of a comparison, as --plan prints it, beside what the comparison then did."""

import io

import pytest
from rich.console import Console
from support.experiment_runs import config_of

from nc_tools._support.signals import StopSignal
from nc_tools.experiment import Protocol
from nc_tools.experiment.cluster.ray_connection import Cluster
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.plan_cost import PlanCost, StageCost, cost_lines, plan_cost, print_plan
from nc_tools.experiment.run_plan import run_plan
from nc_tools.run_records import scan


def plan(**more):
    rules = {"seeds": (0, 1), "draws": 2, "rates": (0.03, 0.1, 0.3), "max_extensions": 0, "curve_points": 2}
    protocol = Protocol(**rules | more)
    arms = {arm: config_of(arm) for arm in ("linear", "etf")}
    return Plan(name="test", question="Why?", arms=arms, protocol=protocol)


@pytest.mark.slow
def test_a_plan_has_the_runs_and_image_steps_that_the_comparison_then_makes(tmp_path):
    options = RunOptions(out=tmp_path, device="cpu", workers=1, threads=1)
    cost = plan_cost(plan(), options, StopSignal())
    assert not (tmp_path / "runs").exists()
    run_plan(plan(), options, Console(file=io.StringIO()))
    runs = scan(tmp_path).runs
    for kind, stage in zip(("tuning", "holdout", "final"), cost.stages, strict=True):
        made = [run for run in runs if run.identity.kind == kind]
        assert stage.runs == len(made)
        steps = sum(run.final["perf/seconds"] * run.final["perf/images_per_s"] for run in made)
        assert stage.image_steps == pytest.approx(steps)
        assert stage.seconds > 0


@pytest.mark.slow
def test_the_printed_plan_divides_by_the_processes_and_trains_nothing(tmp_path):
    out = io.StringIO()
    options = RunOptions(out=tmp_path / "out", device="cpu", workers=4, threads=1)
    print_plan(plan(max_extensions=2), options, Console(file=out, width=100))
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("data digits")
    table = [line for line in lines if line.startswith(("tuning", "hold-out runs", "final runs", "in all"))]
    assert [int(line[14:20]) for line in table] == [10, 4, 6, 20]
    assert lines[-1].startswith("2 more trials each time that an arm's best rate is at the edge of the grid")
    assert not (tmp_path / "out" / "runs").exists()


def test_the_seconds_of_a_plan_are_those_of_one_process():
    cost = PlanCost((StageCost("tuning", 3, 200_000, 100.0), StageCost("final runs", 2, 90, 20.0)), 3, 2500.0)
    lines = cost_lines(plan(), cost, RunOptions(out=None, device="cuda:0", workers=4, threads=1))
    assert [" ".join(line.split()) for line in lines] == [
        "runs image steps time",
        "tuning 3 0.2 M 25 s",
        "final runs 2 90 5 s",
        "in all 5 0.2 M 30 s",
        "5 runs, 0.2 M image steps, about 30 s on cuda:0 with 4 processes, 2.6 GB of GPU memory for each: measured on "
        "20 steps of each arm and one evaluation of linear",
    ]


def test_a_plan_names_the_cluster_and_the_arms_whose_times_are_shares():
    stages = (StageCost("final runs", 33, 81_879_600, 5760.0),)
    cost = PlanCost(stages, 0, None, {"linear": 24, "etf": 24, "sam": 1, "wide": 4})
    cluster = Cluster(nodes=2, tasks=8, device="cuda", cpus=4, gpus=0.5)
    options = RunOptions(out=None, device="cuda", workers=8, threads=4, cluster=cluster)
    assert cost_lines(plan(), cost, options)[3:] == [
        "33 runs, 81.9 M image steps, about 12 min on 2 nodes, 8 tasks at once on cuda: measured on 20 steps of each "
        "arm and one evaluation of linear",
        "linear, etf: up to 24 runs side by side in a process, so the time of a run is its share, measured with 8",
        "wide: up to 4 runs side by side in a process, so the time of a run is its share, measured with 4",
    ]
