"""What holds for every out-of-distribution score, and the input that all of them reject."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ood_samples import CLASSES, WIDTH, fitted, generator, make, queries

from nc_tools.heads import LinearHead
from nc_tools.ood import (
    FDBD,
    GEN,
    GROOD,
    KNN,
    MSP,
    NCI,
    NECO,
    RMDS,
    SCORES,
    Energy,
    Mahalanobis,
    MaxLogit,
    UndefinedScoreError,
    ViM,
    separation,
)
from nc_tools.ood.training_set import TrainingSet


def collapsed(n, seed, size=1.0, beyond=0.0):
    """Features near a simplex, ReLU not applied, with a head that has collapsed onto it; outliers lie beyond it."""
    g = generator(seed)
    frame = torch.eye(CLASSES, WIDTH) - torch.eye(CLASSES, WIDTH).mean(0)
    labels = torch.randint(CLASSES, (n,), generator=g)
    features = 6 * size * frame[labels] + 0.4 * torch.randn(n, WIDTH, generator=g)
    features[:, -1] += beyond
    return features, features @ (3 * frame).T, labels, 3 * frame, None


@pytest.mark.parametrize("cls", SCORES, ids=lambda cls: cls.name)
def test_more_like_the_training_set_is_higher(cls):
    score = cls().fit(*collapsed(400, 0))
    inside = score.score_samples(*collapsed(100, 1)[:2])
    outside = score.score_samples(*collapsed(100, 2, size=0.3, beyond=3.0)[:2])
    assert separation(inside, outside)["auroc"] > 0.9


@pytest.mark.parametrize("cls", SCORES, ids=lambda cls: cls.name)
def test_scores_of_features_alone_say_so(cls):
    features, logits, labels, weight, bias = collapsed(200, 0)
    x, z = collapsed(50, 1)[:2]
    other = torch.randn(logits.shape, generator=generator(3)), torch.randn(z.shape, generator=generator(4))
    alone = torch.equal(
        cls().fit(features, logits, labels, weight, bias).score_samples(x, z),
        cls().fit(features, other[0], labels, 2 + weight.flip(0), bias).score_samples(x, other[1]),
    )
    assert alone == cls.reads_features_alone


@pytest.mark.parametrize("cls", SCORES, ids=lambda cls: cls.name)
def test_blocks_and_types_do_not_matter(cls, monkeypatch):
    score = fitted(cls())
    x, z = queries()
    expected = score.score_samples(x, z)
    assert expected.shape == (30,)
    assert expected.dtype == torch.float64
    monkeypatch.setattr("nc_tools.ood.ood_score._ENTRIES", 7 * max(score._values_per_sample(), WIDTH))
    torch.testing.assert_close(score.score_samples(x, z), expected, rtol=1e-9, atol=1e-9)
    single = [part if part is None or part.dtype == torch.int64 else part.float() for part in make()]
    values = cls().fit(*single).score_samples(x.float(), z.float())
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, expected, rtol=2e-3, atol=2e-4)  # the rounding of the samples themselves
    mixed = cls().fit(*single).score_samples(x, z)
    torch.testing.assert_close(mixed, expected, rtol=2e-3, atol=2e-4)
    half = cls().fit(*single).score_samples(x.bfloat16(), z.bfloat16())
    assert half.dtype == torch.float64
    assert bool(half.isfinite().all())


@pytest.mark.parametrize("cls", SCORES, ids=lambda cls: cls.name)
def test_heads_without_a_bias_and_frozen_frames_work(cls):
    features, logits, labels, weight, _ = make(bias=False)
    frame = torch.nn.Module()
    frame.register_buffer("weight", weight)
    values = cls().fit(features, logits, labels, frame.weight, None).score_samples(*queries(bias=False))
    assert bool(values.isfinite().all())
    assert not values.requires_grad
    trained = LinearHead(WIDTH, CLASSES).double()
    values = cls().fit(features, logits, labels, trained.weight, trained.bias).score_samples(features, logits)
    assert not values.requires_grad


@pytest.mark.parametrize("cls", SCORES, ids=lambda cls: cls.name)
def test_a_score_fits_on_what_it_states_and_nothing_else(cls):
    features, logits, labels, weight, bias = make()
    plain = cls().fit(features, logits, labels, weight, bias).score_samples(*queries())
    other = {
        "features": features.flip(1) * 1.7,
        "logits": logits + 9 + 3 * torch.randn(logits.shape, generator=generator(2), dtype=logits.dtype),
        "labels": labels.flip(0),
        "weight": weight * 2 + torch.randn(weight.shape, generator=generator(3), dtype=weight.dtype),
        "bias": bias - 1,
    }
    given_parts = {"features": features, "logits": logits, "labels": labels, "weight": weight, "bias": bias}
    for name in other:
        values = cls().fit(**(given_parts | {name: other[name]})).score_samples(*queries())
        changed = not torch.allclose(values, plain, rtol=1e-9, atol=1e-9)
        if cls is NECO and name == "labels":  # their number alone
            assert not changed
            continue
        assert changed == (name in cls.fits_on), name


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.floats(0.1, 10))
def test_no_score_depends_on_the_unit_of_the_features(seed, factor):
    features, logits, labels, weight, bias = make(seed=seed)
    x, z = queries()
    for cls in (KNN, Mahalanobis, RMDS, ViM, NECO, FDBD):
        plain = cls().fit(features, logits, labels, weight, bias).score_samples(x, z)
        scaled = cls().fit(features * factor, logits, labels, weight / factor, bias).score_samples(x * factor, z)
        torch.testing.assert_close(scaled, plain, rtol=1e-6, atol=1e-6)


def test_far_from_the_origin_float32_loses_little():
    features, logits, labels, *_ = make()
    x, z = queries()
    for cls in (Mahalanobis, RMDS, NECO):
        plain = cls().fit(features, logits, labels).score_samples(x, z)
        values = cls().fit((features + 100).float(), logits.float(), labels).score_samples((x + 100).float(), z.float())
        torch.testing.assert_close(values.double(), plain, rtol=1e-3, atol=1e-3)


# Bad input


def parts(**changes):
    given_parts = dict(zip(("features", "logits", "labels", "weight", "bias"), make(), strict=True))
    return given_parts | changes


BAD = {
    "NaN in features": (lambda f: {"features": f["features"].index_fill(0, torch.tensor([3, 8]), math.nan)},
                        "features must be finite, but 2 of 90 training samples"),
    "inf in logits": (lambda f: {"logits": f["logits"].index_fill(0, torch.tensor([1]), math.inf)},
                      "logits must be finite, but 1 of 90 training samples"),
    "labels out of range": (lambda f: {"labels": f["labels"] + 1}, r"labels must lie in \[0, 4\), but \d+ of 90"),
    "width of weight": (lambda f: {"weight": f["weight"][:, 1:]}, r"weight must have .* which its weight multiplies"),
    "rows of weight": (lambda f: {"weight": f["weight"][1:]}, r"weight must have the shape \(K, D\) = \(4, 7\)"),
    "size of bias": (lambda f: {"bias": f["bias"][1:]}, r"bias must have the shape \(K,\) = \(4,\), got \(3,\)"),
    "bias without weight": (lambda _: {"weight": None}, "bias needs a weight"),
    "logits of other samples": (lambda f: {"logits": f["logits"][1:]}, "of the same samples"),
    "no sample": (lambda f: {k: f[k][:0] for k in ("features", "logits", "labels")}, "training set without samples"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_wrong_training_sets_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        KNN().fit(**parts(**change(parts())))


def test_wrong_types_are_rejected():
    with pytest.raises(TypeError, match="features must be floating-point"):
        KNN().fit(**parts(features=torch.zeros(90, WIDTH, dtype=torch.int64)))
    with pytest.raises(TypeError, match="logits must be floating-point"):
        KNN().fit(**parts(logits=torch.zeros(90, CLASSES, dtype=torch.int64)))
    with pytest.raises(TypeError, match="labels must be integer"):
        KNN().fit(**parts(labels=torch.zeros(90)))


def test_wrong_samples_are_rejected():
    x, z = queries()
    score = fitted(KNN())
    with pytest.raises(ValueError, match="must be fitted before"):
        KNN().score_samples(x, z)
    with pytest.raises(ValueError, match="fitted on 7 features and 4 classes"):
        score.score_samples(x[:, 1:], z)
    with pytest.raises(ValueError, match="fitted on 7 features and 4 classes"):
        score.score_samples(x, z[:, 1:])
    with pytest.raises(ValueError, match="at least one sample"):
        score.score_samples(x[:0], z[:0])
    with pytest.raises(ValueError, match="features must be finite, but 1 of 30 samples"):
        score.score_samples(x.index_fill(0, torch.tensor([4]), math.nan), z)


@pytest.mark.parametrize(
    ("make_score", "message"),
    [
        (lambda: KNN(0), "at least 1, got 0"),
        (lambda: Energy(0.0), "temperature must be positive"),
        (lambda: GEN(gamma=1.0), "gamma must lie between 0 and 1"),
        (lambda: GEN(gamma=0.0), "gamma must lie between 0 and 1"),
        (lambda: GEN(largest=0), "largest is a number of classes"),
        (lambda: ViM(-1), "must not be negative"),
        (lambda: NECO(0), "at least 1, got 0"),
        (lambda: NCI(-1.0), "alpha must be finite and not negative"),
        (lambda: GROOD(most=0), "most must be a whole number .* at least 1, got 0"),
        (lambda: GROOD(most=2.5), r"whole number .* at least 1, got 2\.5"),
    ],
)
def test_wrong_settings_are_rejected(make_score, message):
    with pytest.raises(ValueError, match=message):
        make_score()


def test_outliers_for_grood_are_checked():
    with pytest.raises(TypeError, match=r"outliers must be a tensor of features .* got list"):
        GROOD([[0.0] * 7])
    with pytest.raises(ValueError, match=r"outliers must be features \(M, 7\)"):
        fitted(GROOD(torch.zeros(3, 5)))
    with pytest.raises(ValueError, match="of at least one image"):
        fitted(GROOD(torch.zeros(0, 7)))
    with pytest.raises(ValueError, match="outliers must be finite, but 1 of 3"):
        fitted(GROOD(torch.tensor([[0.0] * 7, [math.nan] * 7, [1.0] * 7])))


UNDEFINED = {
    "constant features, Mahalanobis": (Mahalanobis(), {"features": torch.ones(90, WIDTH)}, "constant or every class"),
    "constant features, RMDS": (RMDS(), {"features": torch.ones(90, WIDTH)}, "RMDS cannot be fitted"),
    "constant features, NECO": (NECO(), {"features": torch.ones(90, WIDTH)}, "constant features"),
    "as many directions as features": (NECO(7), {}, "dims from 1 to 6, got constant features or dims=7"),
    "no direction left": (ViM(7), {}, "set dims to at most 6"),
    "negative logits": (ViM(2), {"logits": -make()[1].abs()}, "both must be positive"),
    "no residual": (ViM(2), {"features": torch.zeros(90, WIDTH).index_fill(1, torch.tensor([0]), 2.0), "bias": None},
                    "both must be positive"),
    "no class vectors, NCI": (NCI(), {"weight": None, "bias": None}, "NCI needs class vectors"),
    "no class vectors, fDBD": (FDBD(), {"weight": None, "bias": None}, "fDBD needs class vectors"),
    "one class, GROOD": (GROOD(), {"labels": torch.zeros(90, dtype=torch.int64)}, "of at least two classes, got 1"),
    "one class, NECO": (NECO(), {"labels": torch.zeros(90, dtype=torch.int64)}, "dims=0 \\(1 classes\\)"),
    "nothing right": (GROOD(), {"logits": torch.eye(4).double()[torch.full((90,), 2)]}, "correctly, got none"),
}  # fmt: skip


@pytest.mark.parametrize(("score", "changes", "message"), UNDEFINED.values(), ids=UNDEFINED)
def test_undefined_scores_raise_an_error(score, changes, message):
    with pytest.raises(UndefinedScoreError, match=message):
        score.fit(**parts(**changes))


def test_one_class_and_one_sample_a_class():
    one = parts(logits=torch.zeros(90, 1), labels=torch.zeros(90, dtype=torch.int64), weight=None, bias=None)
    for score in (MSP(), MaxLogit(), Energy(), GEN()):
        with pytest.raises(UndefinedScoreError, match="at least two classes, got one"):
            score.fit(**one)
    alone = parts(**{k: parts()[k][:3] for k in ("features", "logits")}, labels=torch.tensor([0, 1, 3]))
    with pytest.raises(UndefinedScoreError, match="every class has one sample"):
        Mahalanobis().fit(**alone)  # four classes, three samples
    assert bool(KNN().fit(**alone).score_samples(*queries()).isfinite().all())


def test_a_sample_on_the_mean_or_at_the_origin_gives_no_nan():
    features, logits, labels, weight, _ = make(bias=False)
    features = features - features.mean(0)
    x = torch.zeros(2, WIDTH, dtype=torch.float64)
    z = torch.zeros(2, CLASSES, dtype=torch.float64)
    for cls in SCORES:
        score = cls().fit(features, logits, labels, weight)
        assert bool(score.score_samples(x, z).isfinite().all()), cls
        if cls in (NCI, FDBD, NECO):
            assert bool(score.score_samples(score._mean.repeat(2, 1), z).isfinite().all()), cls


def test_moments_are_computed_once_for_all_scores(monkeypatch):
    train = TrainingSet.checked(*make())
    calls = []
    plain = TrainingSet._moments.func
    monkeypatch.setattr(TrainingSet._moments, "func", lambda self: calls.append(1) or plain(self))
    for cls in SCORES:
        cls().fit_training_set(train)
    assert len(calls) == 1
