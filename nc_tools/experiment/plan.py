"""A comparison from beginning to end: check, tune, hold-out runs, final runs, report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from rich.console import Console

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.comparison.metric_info import check_metric_key
from nc_tools.experiment.build import DataFacts, build_loss, build_model, check_outliers, facts_of, open_data
from nc_tools.experiment.evaluate.transfer_set import check_transfer
from nc_tools.experiment.job import Job, JobResult, Kind
from nc_tools.experiment.overrides import put
from nc_tools.experiment.progress_display import Display
from nc_tools.experiment.run import identify
from nc_tools.experiment.run_config import Protocol, RunConfig
from nc_tools.experiment.serialize import encode
from nc_tools.experiment.tuning import Score, Tuned, mean_over_seeds, tune
from nc_tools.experiment.type_check import check_kinds
from nc_tools.experiment.workers import Workers
from nc_tools.losses.loss_term import LossTerm
from nc_tools.run_records import mark_killed
from nc_tools.run_records.json_files import write_json
from nc_tools.training.mixed_loss import check_mixing
from nc_tools.training.optimizers import make_optimizer


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where and how a comparison runs; a result depends on it by rounding and precision alone.

    Attributes:
        out: The output folder.
        device: Such as "cpu" or "cuda:0".
        workers: Runs side by side.
        threads: CPU threads of each.
        resume: Go on from checkpoints of unfinished runs.
        tracking_uri: Where MLflow shows the runs; None for a store in the output folder.
    """

    out: Path
    device: str
    workers: int
    threads: int
    resume: bool = False
    tracking_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is compared.

    Attributes:
        name: Of the comparison, and of its MLflow experiment.
        question: One sentence or more, shown above the report.
        arms: Arms by name; the first is the baseline.
        protocol: The rules that all share.
    """

    name: str
    question: str
    arms: Mapping[str, RunConfig]
    protocol: Protocol

    @property
    def baseline(self) -> str:
        """The arm that the others are paired against."""
        return next(iter(self.arms))

    @property
    def suite(self) -> str:
        """A hash of all that is compared, which tells this comparison from another in the same folder."""
        text = json.dumps([self.name, encode(dict(self.arms)), encode(self.protocol)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_plan(plan: Plan, options: Options, console: Console) -> None:
    """Make every run of a comparison that was not made before, and leave their records.

    Args:
        plan: What to compare.
        options: Where and how.
        console: Where progress is shown.

    Raises:
        ValueError: If arms differ in their data, an arm cannot be built from them, no trial of the baseline gave a
            score, or another comparison is writing to the folder.
        Killed: After Ctrl-C or SIGTERM, when every run in progress has been written down.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    with _alone(options.out), StopSignal() as stop, Display(console) as display:
        mark_killed(options.out)
        facts = _check(plan, options, display, stop)
        _write_experiment(plan, options.out, [])
        with Workers(options.workers, options.threads) as workers:
            _Comparison(plan, options, facts, workers, display, stop).make()


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the output folder; the lock goes with the process, however it ends."""
    lock = FileLock(out / ".comparison.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"one comparison at a time may write to {out}, and another is doing so: wait for it, or give another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check(plan: Plan, options: Options, display: Display, stop: StopSignal) -> DataFacts:
    """Read the data and build every arm once, so that what cannot work is said before hours of training."""

    def told(done: int, total: int) -> None:
        if stop.requested:
            raise Killed
        display.reading(done, total)

    device = torch.device("cpu")
    check_metric_key(plan.protocol.primary)
    configs = {config.data for config in plan.arms.values()}
    if len(configs) != 1:
        raise ValueError("all arms of a comparison must have the same data, but they differ: make two comparisons")
    first = plan.arms[plan.baseline]
    data = open_data(first, seed=plan.protocol.seeds[0], device=device, cache=options.out / "cache", told=told)
    if data.sources.skipped:
        names = ", ".join(data.sources.skipped[:5])
        display.note(f"{len(data.sources.skipped)} unreadable images left out: {names}")
    check_transfer(plan.protocol, data.sources)
    facts = facts_of(data.sources, data.sources.train.labels[data.subsets.train])
    display.note(
        f"{first.data.source}: {len(data.subsets.train)} training images of {facts.num_classes} classes "
        f"({max(facts.class_counts)} to {min(facts.class_counts)} each), {len(data.sources.test)} test images, "
        f"{facts.in_channels} x {facts.image_size} x {facts.image_size}"
    )
    exposed = []
    for name, config in plan.arms.items():
        try:
            check_kinds(config)
            losses = _build_all(config, facts)
        except (ValueError, TypeError) as error:
            raise type(error)(f"arm {name}: {error}") from error
        exposed += [name] if any(loss.needs_outliers for loss in losses) else []
    if first.data.outliers is not None:
        use = f"trained against by {', '.join(exposed)}" if exposed else "not used: no arm's loss trains against them"
        display.note(f"outliers ({first.data.outliers}): {use}")
    return facts


def _build_all(config: RunConfig, facts: DataFacts) -> list[LossTerm]:
    """Build an arm as it is and with every value of its knob; return the losses."""
    variants = [put(config, config.tuned.path, value) for value in config.tuned.values]
    builds = config.tuned.path.partition(".")[0] in ("head", "loss", "model")
    losses = []
    for variant in [config, *variants] if builds else [config]:
        model = build_model(variant, facts, seed=0, draw=0)
        loss = build_loss(variant, facts, model.head.feature_dim)
        check_outliers(variant, loss)
        check_mixing(variant.training.mixing, loss, model.head)
        make_optimizer(model, variant.optim, loss)
        if variant.optim.sam is not None:
            variant.optim.sam.ascent_loss(loss, facts.class_counts)
        if variant.second_stage is not None:
            variant.second_stage.check(model.head)
        losses.append(loss)
    return losses


class _Comparison:
    """The stages of a comparison, over one set of workers."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        facts: DataFacts,
        workers: Workers,
        display: Display,
        stop: StopSignal,
    ) -> None:
        self.plan = plan
        self.options = options
        self.facts = facts
        self.workers = workers
        self.display = display
        self.stop = stop
        self.lost: list[str] = []
        self.rounds = 0

    def make(self) -> None:
        tuned = tune(self.plan.arms, self.plan.protocol, self._trials)
        tuned.notes += self.lost
        write_json(self.options.out / "tuning.json", tuned.to_json())
        for note in tuned.notes:
            self.display.note(f"tuning: {note}")
        if self.plan.baseline not in tuned.configs:
            raise ValueError(
                f"no trial of the baseline {self.plan.baseline} gave a score at the rates {tuned.grid}: "
                + (self.lost[0] if self.lost else "all diverged, try lower ones with --set protocol.rates=...")
            )
        finals = self._jobs("final", tuned, self.plan.protocol.draws)
        held = self._jobs("holdout", tuned, min(self.plan.protocol.holdout_draws, self.plan.protocol.draws))
        results = dict(zip(((j.arm, j.seed, j.draw) for j in held), self._run("hold-out runs", held), strict=True))
        self._final(finals, results)

    def _final(self, jobs: Sequence[Job], held: Mapping[tuple[str, int, int], JobResult]) -> None:
        """Make the final runs; those whose hold-out run an accident ended are listed, and made with the next try."""
        rows: list[dict[str, Any]] = []
        ready: list[tuple[Job, dict[str, Any]]] = []
        for job in jobs:
            draw = max(d for arm, seed, d in held if (arm, seed) == (job.arm, job.seed) and d <= job.draw)
            holdout = held[job.arm, job.seed, draw]
            row = self._row(job)
            rows.append(row)
            if holdout.status == "FINISHED" or holdout.diverged:
                run = holdout.run if holdout.status == "FINISHED" else None
                ready.append((replace(job, holdout_run=run), row))
            else:
                row |= {"status": "KILLED", "error": f"its hold-out run did not end: {holdout.error}"}
        _write_experiment(self.plan, self.options.out, rows)
        results = self._run("final runs", [job for job, _ in ready])
        for (_, row), result in zip(ready, results, strict=True):
            row |= {"status": result.status, "error": result.error}
        _write_experiment(self.plan, self.options.out, rows)

    def _row(self, job: Job) -> dict[str, Any]:
        run_id = identify(job, self.facts).run_id
        planned = {"status": "PLANNED", "error": None}
        return {"arm": job.arm, "seed": job.seed, "draw": job.draw, "run_id": run_id, **planned}

    def _jobs(self, kind: Kind, tuned: Tuned, draws: int) -> list[Job]:
        """Plan runs seed by seed, so that whole seeds are there when time runs out."""
        return [
            self._job(kind, arm, config, seed, draw)
            for seed in self.plan.protocol.seeds
            for arm, config in tuned.configs.items()
            for draw in range(draws if config.has_draws else 1)
        ]

    def _trials(self, settings: Sequence[tuple[str, RunConfig]]) -> list[Score]:
        seeds = self.plan.protocol.tuning_seeds
        jobs = [self._job("tuning", arm, config, seed, 0) for arm, config in settings for seed in seeds]
        self.rounds += 1
        results = self._run(f"tuning, round {self.rounds}", jobs)
        # A trial that an accident ended counts like a diverged one: the reader must know that the arm lost it.
        self.lost += [
            f"{job.arm}: a trial at rate {job.config.optim.lr} was lost ({result.error})"
            for job, result in zip(jobs, results, strict=True)
            if result.unexpected
        ]
        return mean_over_seeds([r.score if r.status == "FINISHED" else None for r in results], len(seeds))

    def _run(self, stage: str, jobs: Sequence[Job]) -> list[JobResult]:
        self.display.stage(stage, len(jobs))
        results = self.workers.run(
            jobs, stop=self.stop, on_progress=self.display.progress, on_result=self.display.result
        )
        if self.stop.requested:
            raise Killed("stopped")
        return results

    def _job(self, kind: Kind, arm: str, config: RunConfig, seed: int, draw: int) -> Job:
        return Job(
            kind=kind,
            arm=arm,
            config=config,
            seed=seed,
            draw=draw,
            root=self.options.out.resolve(),
            experiment=self.plan.name,
            suite=self.plan.suite,
            protocol=self.plan.protocol,
            device=self.options.device,
            resume=self.options.resume,
        )


def _write_experiment(plan: Plan, out: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Write what the comparison is, and which runs are its own: a folder may hold those of others too."""
    told = {
        "schema": 1,
        "name": plan.name,
        "question": plan.question,
        "baseline": plan.baseline,
        "arms": list(plan.arms),
        "primary": plan.protocol.primary,
        "suite": plan.suite,
        "protocol": {k: v for k, v in encode(plan.protocol).items() if k != "dataclass"},
        "runs": list(runs),
    }
    write_json(out / "experiment.json", told)
