"""Every score and every measure has the same value for the same features in float32 and in float64.

The functions are found through the package's own lists. A message of these tests says what to add for a new one.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from support.hard_features import REGIMES, Sample
from torch import Tensor

import nc_tools.metrics
from nc_tools.class_moments import ClassMoments
from nc_tools.metrics import collapse_from_moments, neural_collapse, variability_collapse_index
from nc_tools.ood import RMDS, SCORES, Mahalanobis, UndefinedScoreError, separation

pytestmark = pytest.mark.slow

# Functions that read neither features nor logits of a set, and why.
NO_FEATURES = {
    "checked_transition": "reads a matrix",
    "counted_transition": "reads labels",
    "geometric_complexity": "differentiates a function, in the arithmetic of that function",
    "layer_alignment": "runs a model, in the arithmetic of that model",
    "precision_at": "reads an order",
    "rank_by_collapse": "takes a mapping of features; its numbers are those of neural_collapse",
    "rank_correlation": "reads numbers",
    "class_coverage": "reads sets of classes",
    "set_measures": "reads sets of classes",
    "seli_geometry": "reads counts",
    "stable_ranks": "reads a model",
    "transition_error": "reads matrices",
    "transition_problem": "reads a matrix",
}
MEASURES = [
    name
    for name in nc_tools.metrics.__all__
    if inspect.isfunction(getattr(nc_tools.metrics, name)) and name not in NO_FEATURES
]
SAMPLES = {name: make() for name, make in REGIMES.items()}


def arguments(name: str, sample: Sample, dtype: torch.dtype) -> dict[str, Any]:
    """The arguments of a measure, by the names of its parameters."""
    x, y = sample.features.to(dtype), sample.labels
    k, generator = len(sample.weight), torch.Generator().manual_seed(1)
    means = torch.stack([x[y == c].double().mean(0) for c in range(k)]).float().to(dtype)
    targets = sample.features.double()[:, :2] + torch.randn(len(x), 2, generator=generator, dtype=torch.float64)
    given = y.clone()
    given[: len(y) // 4] = (given[: len(y) // 4] + 1) % k
    supply: dict[str, Any] = {
        "features": x,
        "inputs": x,
        "labels": y,
        "logits": sample.logits(x),
        "weight": sample.weight.to(dtype),
        "bias": sample.bias.to(dtype),
        "matrix": x,
        "means": means,
        "counts": y.bincount(minlength=k),
        "class_counts": torch.arange(k) * 20 + 5,
        "train_counts": torch.arange(k) * 20 + 5,
        "targets": targets.float().to(dtype),
        "gradients": torch.randn(len(x), k, generator=generator).to(dtype),
        "groups": torch.arange(len(y)) % 2,
        "tags": torch.nn.functional.one_hot(y, k).bool() | (torch.arange(len(y)) % 7 == 0)[:, None],
        "outliers": sample.outliers.to(dtype),
        "given_labels": given,
        "true_labels": y,
        "train_features": x,
        "train_labels": y,
        "test_features": sample.queries.to(dtype),
        "test_labels": sample.query_labels,
        "generator": generator,
        "moments": moments(x, y, k),
        "seed": 0,
        "shots": 1,
        "draws": 3,
        "method": "aps",
        "thresholds": torch.full((k,), 0.9, dtype=torch.float64),
    }
    if name == "moment_alignment":
        supply["weight"] = sample.weight.to(dtype)
    if name == "regression_collapse":
        supply["weight"] = sample.weight[:2].to(dtype)
    parameters = inspect.signature(getattr(nc_tools.metrics, name)).parameters
    optional = {"weight", "logits", "bias", "means", "counts"}
    optional -= {"bias", "weight"} if "logits" in parameters else set()  # the logits say what the head decides
    return {
        key: supply[key]
        for key, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty or key in optional
    }


def moments(x: Tensor, y: Tensor, k: int) -> ClassMoments:
    collected = ClassMoments(k, x.shape[1], class_counts=y.bincount(minlength=k))
    for start in range(0, len(x), 37):
        collected.update(x[start : start + 37], y[start : start + 37])
    return collected


def numbers(value: object) -> dict[str, float]:
    """All numbers of a result, by name."""
    if isinstance(value, Tensor):
        return {str(i): float(v) for i, v in enumerate(value.double().flatten())}
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {f"{key}/{name}": number for key, part in value.items() for name, number in numbers(part).items()}
    if isinstance(value, list | tuple):
        return numbers(dict(enumerate(value)))
    return {} if value is None or isinstance(value, str) else {"": float(value)}


def test_every_measure_is_tested_here() -> None:
    known = {"features", "logits", "weight", "means", "matrix", "moments", "inputs", "train_features"}
    missing = [n for n in MEASURES if not known & set(inspect.signature(getattr(nc_tools.metrics, n)).parameters)]
    assert not missing, f"add the parameters of {missing} to arguments(), or say in NO_FEATURES why they have none"


@pytest.mark.parametrize("regime", SAMPLES)
@pytest.mark.parametrize("name", MEASURES)
def test_measures(name: str, regime: str) -> None:
    function, sample = getattr(nc_tools.metrics, name), SAMPLES[regime]
    results = []
    for dtype in (torch.float32, torch.float64):
        try:
            results.append(numbers(function(**arguments(name, sample, dtype))))
        except ValueError as error:
            results.append({str(error): 0.0})
    single, double = results
    assert single.keys() == double.keys()
    assert single == pytest.approx(double, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("regime", SAMPLES)
@pytest.mark.parametrize("cls", SCORES, ids=lambda cls: cls.name)
def test_scores(cls: type, regime: str) -> None:
    sample = SAMPLES[regime]
    both = torch.cat([sample.queries, sample.outliers])
    results = []
    for dtype in (torch.float32, torch.float64):
        x, queries = sample.features.to(dtype), both.to(dtype)
        head = (sample.weight.to(dtype), sample.bias.to(dtype))
        try:
            score = cls().fit(x, sample.logits(x), sample.labels, *head)
        except UndefinedScoreError as error:
            results.append(str(error))
        else:
            results.append(score.score_samples(queries, sample.logits(queries)))
    single, double = results
    if isinstance(double, str):
        assert single == double
    else:
        torch.testing.assert_close(single, double, rtol=1e-9, atol=1e-12)


# The values themselves, against singular values of the data instead of eigenvalues of a covariance.


def exact(sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, y = sample.features.double().numpy(), sample.labels.numpy()
    means = np.stack([x[y == c].mean(axis=0) for c in range(len(sample.weight))])
    return x, y, means, x - means[y]


def lengths(rows: np.ndarray, about: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis lengths of ``about`` (M, D) for the covariance rows^T rows / N, by singular values."""
    scale = np.where(rows.std(axis=0) > 0, np.sqrt((rows**2).mean(axis=0)), 1.0)
    _, singular, right = np.linalg.svd(rows / scale, full_matrices=False)
    kept = singular > 1e-6 * singular[0]
    return ((about / scale @ right[kept].T / singular[kept]) ** 2).sum(axis=-1) * len(rows)


FULL_RANK = [name for name in REGIMES if name not in ("N < D", "dead features")]


@pytest.mark.parametrize("regime", FULL_RANK)
def test_mahalanobis_and_rmds_are_those_of_singular_values(regime: str) -> None:
    sample = SAMPLES[regime]
    x, _, means, residuals = exact(sample)
    both = torch.cat([sample.queries, sample.outliers])
    samples = both.double().numpy()
    to_classes = lengths(residuals, samples[:, None] - means).min(axis=1)
    to_all = lengths(x - x.mean(axis=0), samples - x.mean(axis=0))
    logits = sample.logits(sample.features), sample.logits(both)
    for cls, expected in ((Mahalanobis, -to_classes), (RMDS, to_all - to_classes)):
        values = cls().fit(sample.features, logits[0], sample.labels).score_samples(both, logits[1])
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-3)


def test_rmds_takes_the_same_directions_in_both_terms() -> None:
    """A step along the class means that leaves the samples' own directions does not count in one term alone."""
    sample = SAMPLES["N < D"]
    logits = sample.logits(sample.features)
    score = RMDS().fit(sample.features, logits, sample.labels)
    _, _, means, residuals = exact(sample)
    inside = np.linalg.svd(residuals, full_matrices=False)[2][: len(residuals) - 5]
    step = means[1] - means[0]
    step = torch.tensor(step - step @ inside.T @ inside)
    x = sample.queries.double()
    moved = score.score_samples(x + step, sample.logits(x))
    torch.testing.assert_close(moved, score.score_samples(x, sample.logits(x)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("regime", REGIMES)
def test_neural_collapse_is_that_of_singular_values(regime: str) -> None:
    sample = SAMPLES[regime]
    _, y, means, residuals = exact(sample)
    k = len(means)
    centered = means - means.mean(axis=0)
    _, singular, right = np.linalg.svd(centered, full_matrices=False)
    rank = min(k - 1, means.shape[1])
    along = residuals @ right[:rank].T / singular[:rank]
    mean_of = lambda values: np.mean([values[y == c].mean() for c in range(k)])  # noqa: E731
    expected = {
        "nc1_pinv": mean_of((along**2).sum(axis=1)),
        "nc1_trace": mean_of((residuals**2).sum(axis=1)) / (centered**2).sum(axis=1).mean(),
    }
    values = neural_collapse(sample.features, sample.labels)
    assert {key: values[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    streamed = collapse_from_moments(moments(sample.features, sample.labels, k))
    assert {key: streamed[key] for key in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("regime", REGIMES)
def test_the_variability_index_is_that_of_singular_values(regime: str) -> None:
    sample = SAMPLES[regime]
    _, y, means, residuals = exact(sample)
    k, centered = len(means), means - means.mean(axis=0)
    counts = np.bincount(y)
    stacked = np.concatenate([residuals / np.sqrt(k * counts[y])[:, None], centered / math.sqrt(k)])
    share = lengths(stacked, centered).sum() / len(stacked) / k
    expected = 1 - share / min(means.shape[1], k - 1)
    value = variability_collapse_index(sample.features, sample.labels)["vci"]
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_the_variability_index_does_not_change_under_linear_maps() -> None:
    sample = SAMPLES["plain"]
    plain = variability_collapse_index(sample.features, sample.labels)["vci"]
    for regime in ("one feature x 1000",):
        value = variability_collapse_index(SAMPLES[regime].features, sample.labels)["vci"]
        assert value == pytest.approx(plain, rel=1e-3)


def test_near_outliers_are_told_apart_by_directions_that_vary_little() -> None:
    """Outliers that differ in the half of the directions with the smallest deviations."""
    generator = torch.Generator().manual_seed(0)
    deviations = 1 / torch.arange(1, 513)
    train, inside, outside = (deviations * torch.randn(n, 512, generator=generator) for n in (3000, 200, 200))
    outside[:, 256:] *= 2
    logits = torch.zeros(3000, 2)
    score = Mahalanobis().fit(train, logits, torch.arange(3000) % 2)
    values = [score.score_samples(part, logits[:200]) for part in (inside, outside)]
    assert separation(*values)["auroc"] > 0.999
