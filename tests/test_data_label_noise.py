"""Synthetic label noise: transition rates, which labels change, and bad options."""

import math
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, truncnorm

from nc_tools.data import (
    CIFAR10_CONFUSIONS,
    AsymmetricNoise,
    DataConfig,
    ImageSet,
    InstanceNoise,
    MatrixNoise,
    PairNoise,
    SymmetricNoise,
    load_data,
    make_subsets,
    with_noise,
)
from nc_tools.data.instance_noise import truncated_normal
from nc_tools.data.synthetic_noise import relabel
from nc_tools.experiment.deserialize import decode
from nc_tools.experiment.overrides import put
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.serialize import encode
from nc_tools.heads import LinearHead
from nc_tools.losses import CrossEntropyLoss
from nc_tools.specs import spec

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EXAMPLES = (SymmetricNoise(0.4), PairNoise(0.3), InstanceNoise(0.3), MatrixNoise(((0.9, 0.1), (0.3, 0.7))))


def images_of(labels, classes, side=4, channels=1):
    pixels = torch.randint(
        256, (len(labels), channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    return ImageSet(pixels, torch.as_tensor(labels), tuple(classes), "test")


def names(count):
    return tuple(f"c{k}" for k in range(count))


def interval(total, share):
    """Return the range that a binomial count leaves once in a hundred million draws."""
    low, high = binom.interval(1 - 1e-8, total, share)
    return (0 if math.isnan(low) else low), (0 if math.isnan(high) else high)


def assert_rates(true, noisy, expected):
    """Compare every cell of the counted transition matrix with its probability."""
    for i, row in enumerate(expected):
        labels = noisy[true == i].tolist()
        for j, share in enumerate(row):
            low, high = interval(len(labels), share)
            assert low <= labels.count(j) <= high, (i, j, share)


@given(st.integers(2, 12), st.floats(0, 0.99), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_symmetric_noise_in_every_cell(number, rate, seed):
    labels = torch.arange(number).repeat(300)
    noisy = with_noise(images_of(labels, names(number), side=1), SymmetricNoise(rate), seed)
    expected = [[1 - rate if i == j else rate / (number - 1) for j in range(number)] for i in range(number)]
    assert_rates(labels, noisy.labels, expected)
    assert torch.equal(noisy.clean_labels, labels)


@given(st.integers(2, 12), st.floats(0, 0.99), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_pair_noise_goes_to_the_next_class_only(number, rate, seed):
    labels = torch.arange(number).repeat(300)
    noisy = with_noise(images_of(labels, names(number), side=1), PairNoise(rate), seed).labels
    expected = [[0.0] * number for _ in range(number)]
    for i in range(number):
        expected[i][i] += 1 - rate
        expected[i][(i + 1) % number] += rate
    assert_rates(labels, noisy, expected)


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=4, max_size=4), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_any_matrix_in_every_cell(raw, seed):
    matrix = tuple(tuple(x / sum(row) for x in row) if sum(row) > 1e-3 else (1.0, 0.0, 0.0, 0.0) for row in raw)
    labels = torch.arange(4).repeat(300)
    noisy = with_noise(images_of(labels, names(4), side=1), MatrixNoise(matrix), seed).labels
    assert_rates(labels, noisy, matrix)


@pytest.mark.parametrize("noise", [SymmetricNoise(0.37), PairNoise(0.6), AsymmetricNoise(0.4)])
def test_rows_of_every_transition_sum_to_one(noise):
    matrix = noise.transition(CIFAR10)
    assert matrix.dtype == torch.float64
    assert (matrix >= 0).all()
    assert (matrix.sum(1) - 1).abs().max() < 1e-12


def test_the_confusions_of_cifar10():
    labels = torch.arange(10).repeat(500)
    noisy = with_noise(images_of(labels, CIFAR10, side=1), AsymmetricNoise(0.4), 0).labels
    table = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
    assert dict(CIFAR10_CONFUSIONS) == table
    for i, name in enumerate(CIFAR10):
        names_given = {CIFAR10[k] for k in noisy[labels == i].tolist()}
        assert names_given == ({name, table[name]} if name in table else {name})
        changed = int((noisy[labels == i] != i).sum())
        low, high = interval(500, 0.4 if name in table else 0.0)
        assert low <= changed <= high


def test_a_number_just_below_one_never_reaches_a_class_of_probability_zero():
    """Ten times .1 is .9999999999999999: the remainder must not go to the last class."""
    matrix = torch.eye(11, dtype=torch.float64)
    matrix[0] = torch.tensor([0.1] * 10 + [0.0], dtype=torch.float64) * (1 - 1e-3)  # a sum well below one
    labels = relabel(torch.zeros(20_000, dtype=torch.int64), matrix, torch.Generator().manual_seed(0))
    assert int(labels.max()) == 9


def test_labels_depend_on_the_seed_and_not_on_other_samples():
    images = load_data(DataConfig()).train
    for noise in (SymmetricNoise(0.4), PairNoise(0.3)):
        one, same, other = (with_noise(images, noise, seed).labels for seed in (0, 0, 1))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        # The labels of the first samples do not depend on the rest of the set.
        half = with_noise(images.subset(torch.arange(400)), noise, 0).labels
        assert torch.equal(half, one[:400])


@given(st.floats(0, 0.95), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_instance_noise_has_the_mean_of_its_truncated_normal(rate, seed):
    labels = torch.arange(3).repeat(600)
    noisy = with_noise(images_of(labels, names(3)), InstanceNoise(rate), seed).labels
    mean = truncnorm(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1).mean()
    low, high = interval(len(labels), mean)
    assert low <= int((noisy != labels).sum()) <= high


def test_the_truncated_normal_is_scipys():
    values = truncated_normal(0.1, 0.1, 20_000, torch.Generator().manual_seed(0))
    theirs = truncnorm(-1.0, 9.0, loc=0.1, scale=0.1)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert float(values.quantile(share)) == pytest.approx(theirs.ppf(share), abs=0.004)


def test_instance_noise_depends_on_the_image_and_its_class():
    """Copies of one image flip, when they flip, nearly always to one class; the same pixels elsewhere to another."""
    one = torch.randint(256, (1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    other = 255 - one
    pixels = torch.cat([one.expand(400, -1, -1, -1), other.expand(400, -1, -1, -1), one.expand(400, -1, -1, -1)])
    labels = torch.tensor([0] * 800 + [1] * 400)
    noisy = with_noise(ImageSet(pixels, labels, names(8), "copies"), InstanceNoise(0.5), 0).labels
    targets = []
    for part in noisy.split(400):
        wrong = [int(k) for k in part if int(k) != (0 if len(targets) < 2 else 1)]
        assert 120 < len(wrong) < 280
        top = statistics.mode(wrong)
        assert wrong.count(top) > 0.95 * len(wrong)
        targets.append(top)
    assert len(set(targets)) > 1


def test_instance_noise_reads_large_images_at_a_small_size():
    labels = torch.arange(3).repeat(40)
    noisy = with_noise(images_of(labels, names(3), side=70, channels=3), InstanceNoise(0.4), 0)
    assert 20 < int((noisy.labels != labels).sum()) < 80


def test_the_long_tail_is_cut_by_true_labels_and_the_holdout_by_noisy_ones():
    sources = load_data(DataConfig())
    config = DataConfig(imbalance=10, noise=SymmetricNoise(0.4))
    noisy = replace(sources, train=with_noise(sources.train, config.noise, 3))
    ours = make_subsets(noisy, config, 3, sources.train.labels)
    clean = make_subsets(sources, config, 3)
    assert torch.equal(ours.train, clean.train)
    assert ours.counts.tolist() == torch.bincount(noisy.train.labels[ours.train], minlength=10).tolist()
    assert ours.counts.tolist() != clean.counts.tolist()
    held = torch.bincount(noisy.train.labels[ours.holdout], minlength=10)
    assert all(abs(h - 0.2 * n) <= 0.5 for h, n in zip(held.tolist(), ours.counts.tolist(), strict=True))


def test_a_configuration_with_noise_is_hashable_and_can_be_encoded():
    for noise in (*EXAMPLES, AsymmetricNoise(0.2), AsymmetricNoise(0.2, (("3", "8"),))):
        config = RunConfig(head=spec(LinearHead), loss=spec(CrossEntropyLoss), data=DataConfig(noise=noise))
        assert hash(config.data) == hash(decode(encode(config.data), DataConfig))
        assert decode(encode(config)) == config


def test_noise_is_set_from_the_command_line():
    data = DataConfig(noise=SymmetricNoise(0.4))
    assert put(data, "noise.rate", 0.2).noise == SymmetricNoise(0.2)
    assert put(data, "noise", "PairNoise(0.3)").noise == PairNoise(0.3)
    assert put(data, "noise", "AsymmetricNoise(0.3, to=(('3', '8'),))").noise == AsymmetricNoise(0.3, (("3", "8"),))
    assert put(data, "noise", None).noise is None
    with pytest.raises(ValueError, match="there is no 'PairNois'; did you mean 'PairNoise'"):
        put(data, "noise", "PairNois(0.3)")
    with pytest.raises(ValueError, match="noise must be"):
        put(data, "noise", "lots")
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\), got 40: did you mean 0.4"):
        put(data, "noise", "SymmetricNoise(40)")


@pytest.mark.parametrize("kind", [SymmetricNoise, PairNoise, AsymmetricNoise, InstanceNoise])
@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, math.nan])
def test_a_rate_outside_its_range_raises(kind, rate):
    with pytest.raises(ValueError, match=r"noise rate is a share of labels and must lie in \[0, 1\)"):
        kind(rate)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MatrixNoise(((0.9, 0.2), (0.0, 1.0))), "row 0 sums to 1.1"),
        (lambda: MatrixNoise(((0.9, 0.1), (1.0,))), "must be square"),
        (lambda: MatrixNoise(((1.1, -0.1), (0.0, 1.0))), r"probabilities in \[0, 1\]"),
        (lambda: MatrixNoise(((0.9, 0.1), (0.0, 1.0))).transition(names(3)), r"must have the shape \(3, 3\)"),
        (lambda: AsymmetricNoise(0.2, ()), "at least one pair"),
        (lambda: AsymmetricNoise(0.2, (("a", "a"),)), "another class"),
        (lambda: AsymmetricNoise(0.2, (("a", "b"), ("a", "c"))), "each true class once"),
        (
            lambda: AsymmetricNoise(0.2).transition([*CIFAR10[:9], "lorry"]),
            "names the class 'truck', which the data do not have",
        ),
        (lambda: AsymmetricNoise(0.2, (("cta", "dog"),)).transition(CIFAR10), "did you mean 'cat'"),
        (lambda: InstanceNoise(0.2, spread=0.0), "standard deviation"),
        (
            lambda: DataConfig("imagefolder:x", labels="a.csv:b", noise=PairNoise(0.1)),
            "from a file or from synthetic noise, got labels a.csv:b",
        ),
        (lambda: images_of([0, 1], names(2)).__class__(
            torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 1]), names(2), "x", torch.tensor([0, 7])
        ), "labels must lie in 0..1"),
    ],
)  # fmt: skip
def test_bad_noise_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()
