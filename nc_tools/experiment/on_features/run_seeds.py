"""Make a comparison on fixed features: worker processes train its heads side by side, each an equal share of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.experiment.build import build_head, build_loss
from nc_tools.experiment.check_plan import check_same_images
from nc_tools.experiment.job import Job, JobResult
from nc_tools.experiment.on_features.feature_data import FeatureData, open_feature_data
from nc_tools.experiment.on_features.heads_job import HeadsJob, HeadsResult, make_heads
from nc_tools.experiment.on_features.one_seed import OneSeed, seed_results
from nc_tools.experiment.on_features.seed_runs import make_seeds, trial_scores
from nc_tools.experiment.overrides import put
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.experiment.run_plan import locked, rows_before, write_experiment
from nc_tools.experiment.workers import Workers
from nc_tools.models.classifier import Classifier
from nc_tools.run_records import mark_killed
from nc_tools.run_records.json_files import read_json_or_problem, write_json
from nc_tools.run_records.partial_files import remove_partial_files
from nc_tools.training import PostHocStage
from nc_tools.training.optimizers import parameter_groups

_Run = TypeVar("_Run")

_SEEDS_AT_ONCE = 5


def run_seeds(plan: Plan, options: RunOptions, features: Path, console: Console) -> None:
    """Make every run of a comparison on fixed features that is not finished yet.

    Args:
        plan: What to compare; its protocol tunes each seed.
        options: Where and how.
        features: The file of the feature sets.
        console: Where progress is shown.

    Raises:
        ValueError: If an arm cannot be built or differs in its images, no trial of the baseline gave a score, or
            another comparison is writing to the folder.
        Killed: After Ctrl-C or SIGTERM.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    check_heads(plan, features)
    with locked(options.out), StopSignal() as stop, ProgressDisplay(console) as display:
        mark_killed(options.out)
        remove_partial_files(options.out)
        write_experiment(plan, options.out, rows_before(plan, options.out))
        root, seeds = options.out.resolve(), plan.protocol.seeds
        lost = dict.fromkeys(seeds, JobResult(None, "KILLED", error="not begun"))
        with Workers(options.workers, options.threads, make_heads) as workers:
            for group in seed_groups(seeds, options.workers):
                own = _make_group(plan, group, features, root, options, workers, stop, display)
                lost = {seed: result for seed, result in lost.items() if seed not in group} | own
                if stop.requested:
                    break
        rows = [row for seed in seeds for row in _rows(seed_results(root, seed), seed, lost.get(seed), plan.arms)]
        tuning = merge_tuning({seed: read_json_or_problem(seed_results(root, seed))[0] for seed in seeds})
        write_json(options.out / "tuning.json", tuning)
        write_experiment(plan, options.out, rows)
        for note in tuning["notes"]:
            display.note(f"tuning: {note}")
        if stop.requested:
            raise Killed("stopped")
        _check_baseline(plan, tuning)


def _make_group(
    plan: Plan,
    group: tuple[int, ...],
    features: Path,
    root: Path,
    options: RunOptions,
    workers: Workers,
    stop: StopSignal,
    display: ProgressDisplay,
) -> dict[int, JobResult]:
    """Make the runs of some seeds; return those that were lost, as :func:`make_seeds` does. Ends early at a stop."""
    ended = trial_scores(root, plan)
    seeds = [OneSeed(plan, seed, features, root, options.device, ended) for seed in group]
    named = "" if len(group) == len(plan.protocol.seeds) else f"seeds {group[0]} to {group[-1]}, "

    def make(stage: str, runs: Sequence[Job]) -> list[JobResult]:
        jobs = [
            HeadsJob(
                stage=f"{named}{stage}", runs=part, seeds=frozenset(group), features=features,
                scores=ended.folder, metric=ended.metric,
            )
            for part in shares(runs, options.workers)
        ]  # fmt: skip
        if jobs:
            display.stage(f"{named}{stage}", len(jobs))
        results = workers.run(jobs, stop=stop, on_progress=display.progress, on_result=display.result)
        if stop.requested:
            raise Killed("stopped")
        return [
            own
            for job, result in zip(jobs, results, strict=True)
            for own in (result.runs if isinstance(result, HeadsResult) else [result] * len(job.runs))
        ]

    try:
        return make_seeds(seeds, ended, make)
    except Killed as error:
        return {seed: JobResult(None, "KILLED", error=error.reason) for seed in group}


def shares(runs: Sequence[_Run], count: int) -> list[tuple[_Run, ...]]:
    """Divide runs into ``count`` parts of consecutive ones, equal up to one; empty parts are left out.

    Example:
        >>> shares("abcde", 2), shares("a", 2)
        ([('a', 'b'), ('c', 'd', 'e')], [('a',)])
    """
    bounds = [round(i * len(runs) / count) for i in range(count + 1)]
    return [tuple(runs[a:b]) for a, b in itertools.pairwise(bounds) if b > a]


def check_heads(plan: Plan, features: Path) -> None:
    """Check that every arm can be built and trained on fixed features, with every value of its tuned parameter.

    Raises:
        ValueError: If not; the message names the arm.
    """
    for name, config in plan.arms.items():
        if config.second_stage is not None and not isinstance(config.second_stage, PostHocStage):
            raise ValueError(
                f"arm {name}: {type(config.second_stage).__name__} trains a classifier again, which is of no use on "
                f"fixed features: train the head with that loss or sampling at once"
            )
        if config.loss.leaves_open("transition"):
            loss_name = config.loss.cls.__name__
            raise ValueError(
                f"arm {name}: {loss_name} needs a transition matrix, and runs on fixed features estimate none: "
                f"give it, as in spec({loss_name}, transition=...)"
            )
        data = _data_of(plan, name, features)
        facts, width = data.facts(data.subsets.fit), data.train.shape[0]
        for variant in (config, *(put(config, config.tuned.path, value) for value in config.tuned.values)):
            try:
                head = build_head(variant, facts, width, generator=torch.Generator(), frame_seed=0)
                loss = build_loss(variant, facts, width)
                data.batches_for(loss, data.subsets.fit)
                if not variant.is_closed_form:
                    parameter_groups(Classifier(torch.nn.Identity(), head), variant.optim, loss)
                for part in (variant.start, variant.second_stage):
                    if part is not None:
                        part.check(head)
            except (ValueError, TypeError) as error:
                raise type(error)(f"arm {name}: {error}") from error


def _data_of(plan: Plan, name: str, features: Path) -> FeatureData:
    """Return the data of an arm, which differ from those of the baseline in training labels only.

    Raises:
        ValueError: If they differ in more, or the files of labels do not fit.
    """
    config, baseline = plan.arms[name], plan.arms[plan.baseline]
    if (config.model, config.training.batch_size) != (baseline.model, baseline.training.batch_size):
        raise ValueError(f"arm {name} has other features or batch size than {plan.baseline}: use the same")
    try:
        check_same_images([baseline.data, config.data])
        return open_feature_data(config, features, seed=plan.protocol.seeds[0], device=torch.device("cpu"))
    except ValueError as error:
        raise ValueError(f"arm {name}: {error}") from error


def merge_tuning(seeds: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the contents of tuning.json for a comparison whose seeds were tuned one by one.

    Trials have the number of their seed, and those that won are marked.

    Args:
        seeds: Seed -> what its process has written.
    """
    trials: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}
    grid: set[float] = set()
    notes: dict[str, list[int]] = {}
    for seed, stored in seeds.items():
        tuning = stored.get("tuning") or {}
        own = tuning.get("chosen") or {}
        for_seed = tuning.get("trials") or ()
        trials += [{**trial, "seed": seed, "chosen": _won(trial, own.get(trial["arm"]))} for trial in for_seed]
        chosen[str(seed)] = own
        grid |= set(tuning.get("grid") or ())
        for note in tuning.get("notes") or ():
            notes.setdefault(note, []).append(seed)
    texts = [f"{note} (seed {', '.join(map(str, which))})" for note, which in notes.items()]
    return {"trials": trials, "chosen_by_seed": chosen, "notes": texts, "grid": sorted(grid)}


def _won(trial: Mapping[str, Any], chosen: Mapping[str, Any] | None) -> bool:
    settings = (trial["lr"], trial["value"])
    return chosen is not None and (chosen.get("lr"), chosen.get(trial["parameter"])) == settings


def _rows(path: Path, seed: int, lost: JobResult | None, arms: Iterable[str]) -> list[dict[str, Any]]:
    """Return the list of a seed's final runs; an arm that has none is listed with the reason."""
    rows: list[dict[str, Any]] = [] if lost else read_json_or_problem(path)[0].get("runs") or []
    status, error = (lost.status, lost.error) if lost else ("FAILED", "no tuning trial gave a score")
    listed = {row["arm"] for row in rows}
    absent = {"seed": seed, "draw": 0, "run_id": "", "status": status, "error": error}
    return [*rows, *({"arm": arm, **absent} for arm in arms if arm not in listed)]


def seed_groups(seeds: Sequence[int], workers: int) -> list[tuple[int, ...]]:
    """Divide seeds into groups that go through all stages together, of at most five for each worker.

    Example:
        >>> seed_groups(range(5), 2), len(seed_groups(range(30), 2))
        ([(0, 1, 2, 3, 4)], 3)
    """
    return shares(seeds, math.ceil(len(seeds) / (_SEEDS_AT_ONCE * workers)))


def _check_baseline(plan: Plan, tuning: Mapping[str, Any]) -> None:
    if any(plan.baseline in chosen for chosen in tuning["chosen_by_seed"].values()):
        return
    raise ValueError(
        f"no tuning trial of {plan.baseline!r} gave a score at the learning rates {tuning['grid']}: its loss diverged, "
        f"or the runs failed as printed above"
    )
