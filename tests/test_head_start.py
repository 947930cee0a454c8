"""Heads that are computed: against formulas, scikit-learn and optimality conditions; inside runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid
from support.experiment_runs import make

from nc_tools.data import DataConfig
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, load_run
from nc_tools.experiment.job import Job
from nc_tools.heads import CosineHead, ETFHead, LinearHead, ProxyHead, default_scale
from nc_tools.losses import CrossEntropyLoss
from nc_tools.run_records import read_run
from nc_tools.specs import spec
from nc_tools.training import (
    ClassMeanStart,
    KMeansStart,
    LeastSquaresStart,
    LogisticStart,
    StartSamples,
    TrainConfig,
)

N, D, K = 60, 5, 3


def samples(num_classes=K, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % num_classes
    centers = 2 * torch.randn(num_classes, D, generator=generator)
    features = centers[labels] + torch.randn(N, D, generator=generator)
    return StartSamples(features, labels, num_classes)


@pytest.mark.parametrize("confident", [False, True])
def test_least_squares_is_ridge_regression(confident):
    own, head = samples(), LinearHead(D, K)
    LeastSquaresStart(ridge=0.3, confident=confident).apply(head, own, torch.Generator().manual_seed(1))
    target = default_scale(K) if confident else 1.0
    penalty = 0.3 * float(own.features.double().square().mean()) * N
    expected = Ridge(alpha=penalty).fit(own.features.double().numpy(), target * np.eye(K)[own.labels.numpy()])
    assert np.allclose(head.weight.detach().numpy(), expected.coef_, atol=1e-4)
    assert np.allclose(head.bias.detach().numpy(), expected.intercept_, atol=1e-4)


def test_moments_are_computed_once_for_all_ridges():
    own = samples()
    heads = [LinearHead(D, K) for _ in range(2)]
    for head, ridge in zip(heads, (1e-3, 10.0), strict=True):
        LeastSquaresStart(ridge=ridge).apply(head, own, torch.Generator().manual_seed(1))
    fresh = LinearHead(D, K)
    LeastSquaresStart(ridge=10.0).apply(fresh, samples(), torch.Generator().manual_seed(1))
    assert torch.allclose(heads[1].weight, fresh.weight, atol=1e-6)
    assert not torch.allclose(heads[0].weight, fresh.weight, atol=1e-2)


@pytest.mark.parametrize("head", [LinearHead(D, K), CosineHead(D, K)])
def test_class_means_predict_the_nearest_mean_of_unit_features(head):
    own = samples()
    ClassMeanStart().apply(head, own, torch.Generator().manual_seed(1))
    unit = torch.nn.functional.normalize(own.features).numpy()
    means = NearestCentroid().fit(unit, own.labels.numpy()).centroids_
    expected = (unit @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)
    assert head(own.features).argmax(1).tolist() == expected.tolist()


def test_k_means_centers_are_unit_means_of_the_samples_nearest_to_them():
    own, head = samples(), ProxyHead(D, K, num_proxies=2)
    KMeansStart().apply(head, own, torch.Generator().manual_seed(1))
    unit = torch.nn.functional.normalize(own.features)
    for k in range(K):
        mine = unit[own.labels == k]
        nearest = (mine @ head.proxies[k].T).argmax(1)
        for m in range(2):
            center = torch.nn.functional.normalize(mine[nearest == m].mean(0), dim=0)
            assert torch.allclose(head.proxies[k, m], center, atol=1e-5)


def test_one_center_per_class_is_the_class_mean():
    own = samples()
    proxies, cosine = ProxyHead(D, K, num_proxies=1), CosineHead(D, K)
    KMeansStart().apply(proxies, own, torch.Generator().manual_seed(1))
    ClassMeanStart().apply(cosine, own, torch.Generator().manual_seed(1))
    assert torch.allclose(proxies(own.features), cosine(own.features), atol=1e-5)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_logistic_regression_is_at_the_minimum_of_its_objective(num_classes):
    own, head = samples(num_classes), LinearHead(D, num_classes).double()
    LogisticStart(penalty=0.05, iterations=2000).apply(head, own, torch.Generator().manual_seed(1))

    def objective(weight):
        logits = own.features.double() @ weight.T + head.bias.detach()
        # For two classes scikit-learn penalizes the difference of the rows.
        rows = weight if num_classes > 2 else (weight[1] - weight[0])[None]
        return torch.nn.functional.cross_entropy(logits, own.labels) + 0.05 / 2 * rows.square().sum()

    weight = head.weight.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(weight), weight)
    assert gradient.abs().max() < 1e-3
    assert (head(own.features.double()).argmax(1) == own.labels).double().mean() > 0.8


def test_a_class_without_samples_never_wins():
    own = samples()
    head = LinearHead(D, K + 1)
    LogisticStart().apply(head, replace(own, num_classes=K + 1), torch.Generator().manual_seed(1))
    assert int((head(own.features).argmax(1) == K).sum()) == 0


@pytest.mark.parametrize(
    ("start", "head", "needed"),
    [
        (LeastSquaresStart(), CosineHead(D, K), "a LinearHead"),
        (ClassMeanStart(), ETFHead(D, K), "a LinearHead or a CosineHead"),
        (KMeansStart(), LinearHead(D, K), "a ProxyHead"),
        (LogisticStart(), LinearHead(D, K, bias=False), "a LinearHead with bias=True"),
    ],
)
def test_a_head_that_a_start_cannot_set_is_refused(start, head, needed):
    with pytest.raises(ValueError, match=f"sets the values of {needed}, got {type(head).__name__}: use {needed}"):
        start.check(head)


def test_settings_are_checked():
    for wrong in ({"ridge": 0.0}, {"ridge": float("nan")}):
        with pytest.raises(ValueError, match="ridge must be positive"):
            LeastSquaresStart(**wrong)
    with pytest.raises(ValueError, match="penalty must be positive"):
        LogisticStart(penalty=-1.0)
    with pytest.raises(ValueError, match=r"training.epochs=0 trains nothing"):
        RunConfig(head=spec(LinearHead), loss=spec(CrossEntropyLoss), training=TrainConfig(epochs=0))


BASE = RunConfig(
    data=DataConfig(),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(width=16),
    training=TrainConfig(epochs=0, batch_size=64),
    start=LeastSquaresStart(ridge=1e-3),
)


def job_of(root, kind, config, **more):
    return Job(
        kind=kind, arm="ls", config=config, seed=0, draw=0, root=root, experiment="t", suite="s",
        protocol=Protocol(curve_points=2), device="cpu", **more,
    )  # fmt: skip


def test_a_closed_form_run_is_recorded_as_one_epoch_and_loads(tmp_path):
    holdout, _ = make(job_of(tmp_path, "holdout", BASE))
    final, progress = make(job_of(tmp_path, "final", BASE, holdout_run=holdout.run))
    run = read_run(final.run)
    assert run.final["test/gen/accuracy"] > 0.5, "a ridge classifier on the features of a random network"
    assert run.final["best/epoch"] == 1
    assert {step for curve in run.curves().values() for step, _ in curve} == {1}
    assert [(p.done, p.total) for p in progress] == [(1, 1)]
    assert json.loads((final.run / "run.json").read_text())["config"]["start"]["ridge"] == 1e-3
    trained = load_run(final.run)
    assert trained.config == BASE
    assert torch.isfinite(trained.model.head.weight).all()


def test_a_computed_start_is_trained_on(tmp_path):
    training = replace(BASE.training, epochs=2)
    trained = replace(BASE, head=spec(CosineHead), start=ClassMeanStart(), training=training)
    plain = replace(trained, start=None)
    losses = []
    for config in (trained, plain):
        result, _ = make(job_of(tmp_path, "holdout", config))
        losses.append(dict(read_run(result.run).curves()["train/loss"])[1])
    assert losses[0] < losses[1] - 0.2, losses
