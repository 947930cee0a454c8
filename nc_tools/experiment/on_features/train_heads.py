"""Train the heads of several runs: side by side where that is possible, one after the other elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from nc_tools._support.signals import StopSignal
from nc_tools.experiment.on_features.head_run import HeadRun
from nc_tools.experiment.on_features.recall_counter import RecallCounter
from nc_tools.models.classifier import Classifier
from nc_tools.records import Collected
from nc_tools.training import NonFiniteLossError, PostHocStage, fit
from nc_tools.training.packed import Pack, PackMember, fit_pack, pack_key, why_not_packed

OnEpoch = Callable[[str, int, int], None]
"""Called after an epoch of a pack, with its name ("pack 2 of 3"), the number of epochs done and that of all epochs."""
OnTrained = Callable[[Sequence[HeadRun]], None]
"""Called with the runs of a pack when their heads are ready, before the next pack is trained."""
_LOGITS_AT_ONCE = 2**24  # logits that are computed at once


def train_heads(
    runs: Sequence[HeadRun], *, stop: StopSignal, on_epoch: OnEpoch, on_trained: OnTrained | None = None
) -> None:
    """Train the heads of new runs, in place; a run whose loss is not finite keeps the error.

    Runs with equal training settings and numbers of samples train side by side, whatever their heads, seeds, losses and
    rates.

    Args:
        runs: New runs, of any seeds and arms.
        stop: When set, training ends with ``Killed``.
        on_epoch: Called after every epoch.
        on_trained: Called after every pack; heads in closed form are one.
    """
    computed = [run for run in runs if run.job.config.is_closed_form]
    for run in computed:
        run.note(1, _holdout_scores([run])[0])
    _complete(computed, on_trained)
    packs: dict[object, list[tuple[HeadRun, PackMember]]] = {}
    alone: list[tuple[HeadRun, PackMember]] = []
    for run in runs:
        if run.job.config.is_closed_form:
            continue
        training, member = run.job.config.training, run.member()
        if why_not_packed(member, training) is None:
            # With the number of samples, so that the batches of all members are equally large at every step.
            length = repr(replace(training, patience=None))
            key = (pack_key(member), length, len(run.samples.indices), run.samples.scored)
            packs.setdefault(key, []).append((run, member))
        else:
            alone.append((run, member))
    total = len(alone) + len(packs)
    for number, (run, member) in enumerate(alone, start=1):
        _train_alone(run, member, stop, partial(on_epoch, f"pack {number} of {total}"))
        _complete([run], on_trained)
    for number, pack in enumerate(packs.values(), start=len(alone) + 1):
        own, members = zip(*pack, strict=True)
        _train_pack(own, members, stop, partial(on_epoch, f"pack {number} of {total}"))
        _complete(own, on_trained)


def _complete(runs: Sequence[HeadRun], on_trained: OnTrained | None) -> None:
    """Make the heads of a pack ready once their training has ended."""
    for run in runs:
        if run.error is None:
            run.restore_best()
            _second_stage(run)
            run.model.eval()
    if on_trained is not None and runs:
        on_trained(runs)


def _train_pack(
    runs: Sequence[HeadRun], members: Sequence[PackMember], stop: StopSignal, on_epoch: Callable[[int, int], None]
) -> None:
    training = runs[0].job.config.training
    by_model = {id(member.model): run for run, member in zip(runs, members, strict=True)}

    def epoch_end(epoch: int, pack: Pack, values: Sequence[dict[str, float]]) -> list[int]:
        present = [by_model[id(member.model)] for member in pack.members]
        scored = any(run.is_scored_at(epoch) for run in present)
        scores = _holdout_scores(present, pack) if scored else [{} for _ in present]
        for run, own, score in zip(present, values, scores, strict=True):
            run.note(epoch, {**own, **score})
        on_epoch(epoch, training.epochs)
        return [place for place, run in enumerate(present) if run.ends(epoch)]

    recorded = runs[0].job.kind != "tuning"  # of a trial only the score is kept
    results = fit_pack(members, training, accuracy=recorded, epoch_end=epoch_end, stop=stop)
    for run, result in zip(runs, results, strict=True):
        run.seconds += result.seconds
        run.side_by_side = len(runs)
        run.error = result.error


def _train_alone(run: HeadRun, member: PackMember, stop: StopSignal, on_epoch: Callable[[int, int], None]) -> None:
    training = run.job.config.training

    def epoch_end(epoch: int, values: dict[str, float], _: Classifier) -> bool:
        run.note(epoch, values | (_holdout_scores([run])[0] if run.is_scored_at(epoch) else {}))
        on_epoch(epoch, training.epochs)
        return run.ends(epoch)

    # The features of a loader that has scaled them need no scaling again.
    model = Classifier(torch.nn.Identity(), run.model.head) if member.applied else run.model
    try:
        fitted = fit(
            model, member.loss, member.batches, training, member.optim, seed=run.job.seed,
            class_counts=run.samples.facts.class_counts, epoch_end=epoch_end, stop=stop,
        )  # fmt: skip
    except NonFiniteLossError as error:
        run.error = error
    else:
        run.model = Classifier(run.samples.scaling, fitted.model.head)
        run.seconds += fitted.seconds


def _second_stage(run: HeadRun) -> None:
    """Change the trained head as the arm's second stage computes it; recorded as one more epoch."""
    stage, started = run.job.config.second_stage, time.perf_counter()
    if not isinstance(stage, PostHocStage):
        return  # check_heads refuses stages that train
    stage.apply(run.model.head, lambda: _collected(run))
    run.seconds += time.perf_counter() - started
    run.note(run.job.config.epochs, _holdout_scores([run])[0])


def _collected(run: HeadRun) -> Collected:
    start = run.samples.start
    outputs = run.model.head.outputs(start.features)
    return Collected(start.features, outputs.embedded, outputs.logits, start.labels)


@torch.no_grad()
def _holdout_scores(runs: Sequence[HeadRun], pack: Pack | None = None) -> list[dict[str, float]]:
    """Return the scores of runs on their hold-outs, computed at once with a pack; empty for runs that are not scored.

    Args:
        runs: All scored, or all not.
        pack: The pack that they train in, if its heads can be computed at once.
    """
    if not runs[0].samples.scored:
        return [{} for _ in runs]
    data = runs[0].samples.data
    if pack is None or len({len(run.samples.holdout[1]) for run in runs}) > 1:
        if len(runs) > 1:
            return [_holdout_scores([run])[0] for run in runs]
        pack = None
    size, classes = len(runs[0].samples.holdout[1]), data.train.num_classes
    counter, at_once = RecallCounter(len(runs), classes, data.device), max(1, _LOGITS_AT_ONCE // (len(runs) * classes))
    labels = torch.stack([run.samples.holdout[1] for run in runs])
    streams = runs[:1] if pack is None else [_run_of(stream, runs) for stream in pack.streams]
    for first in range(0, size, at_once):
        inputs = [run.samples.holdout[0][first : first + at_once] for run in streams]
        logits = runs[0].model(inputs[0]).unsqueeze(0) if pack is None else pack.logits(inputs)
        counter.add(logits, labels[:, first : first + at_once])
    return counter.metrics()


def _run_of(member: PackMember, runs: Sequence[HeadRun]) -> HeadRun:
    return next(run for run in runs if run.model is member.model)
