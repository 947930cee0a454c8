"""Make a comparison on fixed features: each worker process makes all runs of some seeds, side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.experiment.build import build_head, build_loss
from nc_tools.experiment.check_plan import check_same_images
from nc_tools.experiment.job import JobResult
from nc_tools.experiment.on_features.feature_data import FeatureData, open_feature_data
from nc_tools.experiment.on_features.one_seed import seed_results
from nc_tools.experiment.on_features.seed_runs import SeedsJob, run_seeds_job
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
        root, groups = options.out.resolve(), seed_groups(plan.protocol.seeds, options.workers)
        jobs = [
            SeedsJob(plan=plan, seeds=group, features=features, root=root, device=options.device) for group in groups
        ]
        display.stage("groups of seeds", len(jobs))
        with Workers(min(options.workers, len(jobs)), options.threads, run_seeds_job) as workers:
            results = workers.run(jobs, stop=stop, on_progress=display.progress, on_result=display.result)
        rows = [
            row
            for job, result in zip(jobs, results, strict=True)
            for seed in job.seeds
            for row in _rows(seed_results(root, seed), seed, result, plan.arms)
        ]
        seeds = plan.protocol.seeds
        tuning = merge_tuning({seed: read_json_or_problem(seed_results(root, seed))[0] for seed in seeds})
        write_json(options.out / "tuning.json", tuning)
        write_experiment(plan, options.out, rows)
        for note in tuning["notes"]:
            display.note(f"tuning: {note}")
        if stop.requested:
            raise Killed("stopped")
        _check_baseline(plan, tuning)


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


def _rows(path: Path, seed: int, result: JobResult, arms: Iterable[str]) -> list[dict[str, Any]]:
    """Return the list of a seed's final runs; an arm that has none is listed with the reason."""
    finished = result.status == "FINISHED"
    rows: list[dict[str, Any]] = read_json_or_problem(path)[0].get("runs") or [] if finished else []
    status, error = ("FAILED", "no tuning trial gave a score") if finished else (result.status, result.error)
    listed = {row["arm"] for row in rows}
    absent = {"seed": seed, "draw": 0, "run_id": "", "status": status, "error": error}
    return [*rows, *({"arm": arm, **absent} for arm in arms if arm not in listed)]


def seed_groups(seeds: Sequence[int], workers: int) -> list[tuple[int, ...]]:
    """Divide seeds into as many groups as processes, or into more, so that no group has more than five seeds.

    Example:
        >>> seed_groups(range(5), 2), len(seed_groups(range(30), 2))
        ([(0, 1), (2, 3, 4)], 6)
    """
    count = max(min(workers, len(seeds)), math.ceil(len(seeds) / _SEEDS_AT_ONCE))
    bounds = [round(i * len(seeds) / count) for i in range(count + 1)]
    return [tuple(seeds[a:b]) for a, b in itertools.pairwise(bounds)]


def _check_baseline(plan: Plan, tuning: Mapping[str, Any]) -> None:
    if any(plan.baseline in chosen for chosen in tuning["chosen_by_seed"].values()):
        return
    raise ValueError(
        f"no tuning trial of {plan.baseline!r} gave a score at the learning rates {tuning['grid']}: its loss diverged, "
        f"or the runs failed as printed above"
    )
