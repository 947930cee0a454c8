"""Compare single trained models image by image, and make the reliability diagram of each arm."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nc_tools.comparison.arm_models import ArmReliability, Disagreement
from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.image_predictions import Predictions, Reliability, read_predictions
from nc_tools.comparison.image_values import ImageValues, has_image_values
from nc_tools.comparison.pairing import Cells, first_draws
from nc_tools.comparison.statistics import mcnemar

_MOST_CONFUSED_CLASSES = 2000

PredictionsByArm = Mapping[str, Mapping[int, Predictions]]
"""arm -> seed -> predictions."""


def read_all_predictions(
    cells: Cells, metric: str
) -> tuple[PredictionsByArm, dict[str, dict[tuple[int, int], ImageValues]], list[tuple[str, str]]]:
    """Read the test predictions of the runs.

    Files of further draws are read only if the metric is a mean over images.

    Args:
        cells: The runs of each arm.
        metric: The primary metric, whose values by image are read.

    Returns:
        The predictions of one run per arm and seed, that of the first draw; the primary metric by image of every run,
        arm -> (seed, draw) -> values, where it is a mean over images; and (run, problem) for each file that cannot be
        read.
    """
    by_arm: dict[str, dict[int, Predictions]] = {}
    images: dict[str, dict[tuple[int, int], ImageValues]] = {}
    truths: dict[str, NDArray[np.int32]] = {}
    problems = []
    first = {id(run) for of_arm in cells.values() for run in first_draws(of_arm).values()}
    wanted: list[tuple[str, tuple[int, int], ComparedRun]] = []
    for arm, of_arm in cells.items():
        for key, run in of_arm.items():
            if run.images is not None:
                images.setdefault(arm, {})[key] = run.images
            if run.predictions is not None and (has_image_values(metric) or id(run) in first):
                wanted.append((arm, key, run))
    # Most of the time is spent in NumPy, which lets other threads run.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        read = pool.map(lambda run: _read(run, metric), (run for _, _, run in wanted))
        for (arm, key, run), predictions in zip(wanted, read, strict=True):
            if isinstance(predictions, ValueError):
                problems.append((run.run_id or arm, str(predictions)))
                continue
            if predictions.primary is not None:
                images.setdefault(arm, {})[key] = predictions.primary
            if id(run) in first:
                # Runs with equal labels share one copy of them.
                truth = truths.setdefault(predictions.labels, predictions.truth)
                by_arm.setdefault(arm, {})[key[0]] = replace(predictions, truth=truth)
    return by_arm, images, problems


def _read(run: ComparedRun, metric: str) -> Predictions | ValueError:
    assert run.predictions is not None  # noqa: S101 (only such runs are read)
    try:
        return read_predictions(run.predictions, metric)
    except ValueError as error:
        return error


def disagreement(arm: str, seed: int, predictions: Predictions, reference: Predictions) -> Disagreement:
    """Compare an arm's and the baseline's trained model image by image with McNemar's test.

    Raises:
        ValueError: If they were not tested on the same images in the same order.
    """
    if predictions.labels != reference.labels:
        raise ValueError(f"{arm}, seed {seed}: tested on other images than the baseline, so images cannot be paired")
    only_arm = int((predictions.correct & ~reference.correct).sum())
    only_reference = int((reference.correct & ~predictions.correct).sum())
    p = mcnemar(only_reference, only_arm)
    return Disagreement(arm, seed, len(predictions.correct), only_reference, only_arm, p)


def all_disagreements(
    arms: Sequence[str], baseline: str, predictions: PredictionsByArm
) -> tuple[tuple[Disagreement, ...], list[str]]:
    """Compare the models of each arm and the baseline, at each common seed, with McNemar's test.

    Returns:
        The tests, and a sentence for each pair of models that were tested on different images.
    """
    tests, unpaired = [], []
    reference = predictions.get(baseline, {})
    for arm in arms:
        for seed in sorted(predictions.get(arm, {}).keys() & reference.keys()):
            if arm == baseline:
                continue
            try:
                tests.append(disagreement(arm, seed, predictions[arm][seed], reference[seed]))
            except ValueError as error:
                unpaired.append(str(error))
    return tuple(tests), unpaired


def reliability_by_arm(predictions: PredictionsByArm) -> dict[str, ArmReliability]:
    """Return the reliability diagram of each arm, summed over its seeds."""
    by_arm = {}
    for arm, runs in predictions.items():
        before = _sum([run.before for run in runs.values()])
        scaled = [run.after for run in runs.values() if run.after is not None]
        by_arm[arm] = ArmReliability(before, _sum(scaled) if len(scaled) == len(runs) else None, len(runs))
    return by_arm


def confusion_by_arm(predictions: PredictionsByArm, arms: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Return how often each arm predicts each class, summed over its seeds: (K, K), rows are true classes.

    Left out are arms without predictions, arms whose runs differ in K, and arms with K above 2,000.
    """
    by_arm = {}
    for arm in arms:
        runs = list(predictions.get(arm, {}).values())
        sizes = {run.num_classes for run in runs}
        if len(sizes) != 1 or (size := sizes.pop()) > _MOST_CONFUSED_CLASSES:
            continue
        counts = np.zeros(size * size, dtype=np.int64)
        for run in runs:
            inside = (run.truth >= 0) & (run.truth < size)
            counts += np.bincount(run.truth[inside] * size + run.guesses[inside], minlength=size * size)
        by_arm[arm] = counts.reshape(size, size)
    return by_arm


def _sum(parts: Sequence[Reliability]) -> Reliability:
    return sum(parts[1:], parts[0])
