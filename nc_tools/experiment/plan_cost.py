"""What a comparison will cost: its runs and image steps, and the time that they take on this machine."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from nc_tools._support.printable import printable
from nc_tools._support.signals import StopSignal
from nc_tools.experiment.build import build_loss, build_model
from nc_tools.experiment.check_plan import check_plan
from nc_tools.experiment.cluster.on_one_node import cost_on_one_node
from nc_tools.experiment.evaluate.epochs import EpochEvaluation, curve_epochs
from nc_tools.experiment.evaluate.final_run import evaluate_final
from nc_tools.experiment.job import Job, JobKind
from nc_tools.experiment.pack_loaders import PackLoaders
from nc_tools.experiment.packing import packing_of
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.run_data import RunData, facts_of, open_data
from nc_tools.experiment.run_identity import identify
from nc_tools.experiment.tuning import tuning_rounds
from nc_tools.run_records import RunRecord
from nc_tools.training import Fitted, fit
from nc_tools.training.in_steps import Steps
from nc_tools.training.run_side_by_side import Ended, run_side_by_side

STEPS = 20
"""Training steps that are timed for each arm, after three that warm up."""
RUNS_MEASURED = 8
"""Largest number of trainings that are timed side by side; more of them take hardly less time each."""


@dataclass(frozen=True)
class StageCost:
    """How much one stage of a comparison costs, such as its tuning.

    Attributes:
        name: Name of the stage.
        runs: Number of runs.
        image_steps: Number of images that they train on in all, each counted once for every epoch.
        seconds: Time of one process that makes all runs, one after the other.
    """

    name: str
    runs: int
    image_steps: int
    seconds: float


@dataclass(frozen=True)
class PlanCost:
    """The stages of a comparison, and what is known beside them.

    Attributes:
        stages: Tuning, hold-out runs and final runs.
        more_trials: Trials that are added each time that the grid of learning rates grows.
        memory_mb: Peak memory of a process on a GPU in MiB, with all runs that were measured in it; None on a CPU.
        packs: Arm -> how many of its runs train side by side in a process.
    """

    stages: tuple[StageCost, ...]
    more_trials: int
    memory_mb: float | None
    packs: Mapping[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Seconds of one process that makes all runs."""
        return sum(stage.seconds for stage in self.stages)


def plan_cost(plan: Plan, options: RunOptions, stop: StopSignal) -> PlanCost:
    """Count the runs of a comparison and measure what they cost: some training steps of each arm, and one evaluation.

    Nothing is written to the output folder but the cache of decoded images.

    Args:
        plan: The comparison, which was checked.
        options: Where and how it would run.
        stop: Ends the measurement between two steps when it is set.

    Raises:
        Killed: If ``stop`` was set.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            measured = _Measurement(plan, options, Path(folder), stop)
            rates = {arm: measured.image_seconds(arm) for arm in plan.arms}
            curve, final = measured.evaluations()
    finally:
        torch.set_num_threads(threads)
    protocol, data = plan.protocol, measured.data(plan.baseline)
    sizes = {"tuning": len(data.subsets.fit), "final": len(data.subsets.train)}
    trials = _trials(plan)
    draws = {arm: protocol.draws if config.has_draws else 1 for arm, config in plan.arms.items()}
    seeds, held = len(protocol.seeds), min(protocol.holdout_draws, protocol.draws)
    curves = curve * len(curve_epochs(max(c.epochs for c in plan.arms.values()), protocol.curve_points))
    counts = (
        ("tuning", {arm: n * len(protocol.tuning_seeds) for arm, n in trials.items()}, sizes["tuning"], 0.0),
        ("hold-out runs", {arm: seeds * min(held, draws[arm]) for arm in plan.arms}, sizes["tuning"], 2 * curves),
        ("final runs", {arm: seeds * draws[arm] for arm in plan.arms}, sizes["final"], curves + final),
    )
    stages = []
    for name, runs, size, evaluation in counts:
        steps = {arm: runs[arm] * _epochs(config) * size for arm, config in plan.arms.items()}
        seconds = sum(steps[arm] * rates[arm] for arm in plan.arms) + sum(runs.values()) * evaluation
        stages.append(StageCost(name, sum(runs.values()), sum(steps.values()), seconds))
    trained = sum(not config.is_closed_form for config in plan.arms.values())
    return PlanCost(tuple(stages), trained * len(protocol.tuning_seeds), measured.memory_mb(), measured.packs)


def print_plan(plan: Plan, options: RunOptions, console: Console) -> None:
    """Check a comparison, and print what it would cost.

    Raises:
        ValueError: If it cannot be run, as by :func:`~nc_tools.experiment.run_plan.run_plan`.
        TypeError: Likewise.
        Killed: After Ctrl-C.
    """
    with StopSignal() as stop, ProgressDisplay(console) as display:
        check_plan(plan, options, display, stop)
        measure = plan_cost if options.cluster is None else cost_on_one_node
        cost = measure(plan, options, stop)
    for line in cost_lines(plan, cost, options):
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def cost_lines(plan: Plan, cost: PlanCost, options: RunOptions) -> list[str]:
    """Return what ``--plan`` prints: a line for each stage, and the time and memory on this machine."""
    time = _duration(cost.seconds / options.workers)
    lines = [f"{'':<14}{'runs':>6}{'image steps':>14}{'time':>10}"]
    lines += [
        f"{s.name:<14}{s.runs:>6,}{_number(s.image_steps):>14}{_duration(s.seconds / options.workers):>10}"
        for s in cost.stages
    ]
    runs, steps = sum(s.runs for s in cost.stages), sum(s.image_steps for s in cost.stages)
    lines.append(f"{'in all':<14}{runs:>6,}{_number(steps):>14}{time:>10}")
    memory = "" if cost.memory_mb is None else f", {cost.memory_mb * 2**20 / 1e9:.1f} GB of GPU memory for each"
    lines.append(
        f"{runs:,} runs, {_number(steps)} image steps, about {time} on {_where(options)}{memory}: measured on {STEPS} "
        f"steps of each arm and one evaluation of {plan.baseline}"
    )
    lines += _pack_lines(cost.packs)
    if plan.protocol.max_extensions:
        lines.append(
            f"{cost.more_trials} more trials each time that an arm's best rate is at the edge of the grid, at most "
            f"{plan.protocol.max_extensions} times"
        )
    return lines


def _where(options: RunOptions) -> str:
    if options.cluster is not None:
        nodes = f"{options.cluster.nodes} nodes" if options.cluster.nodes > 1 else "one node"
        return f"{nodes}, {options.cluster.tasks} tasks at once on {options.device}"
    return f"{options.device} with {f'{options.workers} processes' if options.workers > 1 else 'one process'}"


def _pack_lines(packs: Mapping[str, int]) -> list[str]:
    """Say which arms' times are shares of runs side by side, and not those of a run alone."""
    sizes: dict[int, list[str]] = {}
    for arm, size in packs.items():
        if size > 1:
            sizes.setdefault(size, []).append(arm)
    return [
        f"{', '.join(arms)}: up to {size} runs side by side in a process, so the time of a run is its share, measured "
        f"with {min(size, RUNS_MEASURED)}"
        for size, arms in sizes.items()
    ]


class _Measurement:
    """Times training and evaluation on the data of the first seed."""

    def __init__(self, plan: Plan, options: RunOptions, folder: Path, stop: StopSignal) -> None:
        self.plan = plan
        self.options = options
        self.folder = folder
        self.stop = stop
        self.packs: dict[str, int] = {}
        self.device = torch.device(options.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def data(self, arm: str) -> RunData:
        """Return the data of an arm, with the cache of the comparison."""
        config, seed = self.plan.arms[arm], self.plan.protocol.seeds[0]
        return open_data(config, seed=seed, device=self.device, cache=self.options.out.resolve() / "cache")

    def image_seconds(self, arm: str) -> float:
        """Return the seconds of training for one image of an arm; 0 for a head in closed form.

        If runs of the arm train side by side, it is the share of one of them, measured with a few.
        """
        config = self.plan.arms[arm]
        if config.is_closed_form:
            return 0.0
        data = self.data(arm)
        size = config.training.batch_size * STEPS
        few = data.subsets.train.repeat(math.ceil(size / len(data.subsets.train)))[:size]
        facts = facts_of(data.sources, data.sources.train.labels[data.subsets.train])
        packing = packing_of(self.plan, self.options, dict.fromkeys(self.plan.arms, facts))
        self.packs[arm] = packing.sizes[arm]
        count = min(packing.sizes[arm], RUNS_MEASURED)
        loaders = PackLoaders(count)

        def steps(indices: Tensor) -> Steps[Fitted]:
            model = build_model(config, facts, seed=0, frame_seed=0)
            config.training.place(model, self.device)
            transition = torch.eye(facts.num_classes) if config.loss.leaves_open("transition") else None
            loss = build_loss(config, facts, model.head.feature_dim, transition=transition).to(self.device)
            once, counts = replace(config.training, epochs=1, patience=None), facts.class_counts
            batches = loaders.batches_for(data, loss, indices)
            return fit.steps(
                model, loss, batches, once, config.optim, class_counts=counts, stop=self.stop, note=lambda _reason: None
            )

        for indices in (few[: config.training.batch_size * 3], few):  # the first time warms up
            ended = run_side_by_side([steps(indices) for _ in range(count)])
        return sum(_fitted(end).seconds for end in ended) / (count * len(few))

    def evaluations(self) -> tuple[float, float]:
        """Return the seconds of the baseline's evaluation for a point of its curves and at the end of a final run."""
        arm, config = self.plan.baseline, self.plan.arms[self.plan.baseline]
        data = self.data(arm)
        indices = data.subsets.train
        facts = facts_of(data.sources, data.sources.train.labels[indices])
        job = self._job("final", arm, config)
        model = build_model(config, facts, seed=0, frame_seed=0)
        config.training.place(model, self.device)
        model.eval()
        start = time.perf_counter()
        EpochEvaluation(job, data, facts, indices)(config.epochs, model)
        curve = time.perf_counter() - start
        start = time.perf_counter()
        with RunRecord.create(self.folder, identify(job, facts)) as record:
            record.finish(evaluate_final(job, data, facts, model, indices, record, self.stop))
        return curve, time.perf_counter() - start

    def memory_mb(self) -> float | None:
        """Return the peak GPU memory so far in MiB; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else None

    def _job(self, kind: JobKind, arm: str, config: RunConfig) -> Job:
        protocol = self.plan.protocol
        return Job(
            kind=kind, arm=arm, config=config, seed=protocol.seeds[0], draw=0, root=self.folder, protocol=protocol,
            experiment=self.plan.name, suite=self.plan.suite, device=self.options.device,
        )  # fmt: skip


def _fitted(ended: Ended[Fitted]) -> Fitted:
    """Return the result of a training; its error is raised."""
    if ended.error is not None:
        raise ended.error
    assert ended.value is not None  # noqa: S101 (without an error there is a value)
    return ended.value


def _trials(plan: Plan) -> dict[str, int]:
    """Return the number of tuning trials of each arm if no best rate is at the edge of the grid."""
    counts = dict.fromkeys(plan.arms, 0)
    rounds, scores = tuning_rounds(plan.arms, plan.protocol), None
    try:
        while True:
            settings = next(rounds) if scores is None else rounds.send(scores)
            for arm, _ in settings:
                counts[arm] += 1
            scores = [0.5] * len(settings)  # ties go to the middle of the grid
    except StopIteration:
        return counts


def _epochs(config: RunConfig) -> int:
    """Return the epochs that a run of an arm trains, with those that estimate label noise first."""
    if config.is_closed_form:
        return 0
    return config.epochs + (config.training.epochs if config.loss.leaves_open("transition") else 0)


def _number(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count:,}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
