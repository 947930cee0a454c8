import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.data.data_config import DataConfig
from nc_tools.data.imbalance import class_counts, long_tailed, split_holdout, subset_of_counts
from nc_tools.data.load_data import load_data
from nc_tools.data.subsets import make_subsets
from nc_tools.data.tail_profile import limiting_class, long_tailed_counts, own_counts

PUBLISHED = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
TOTALS = {10: 20431, 50: 13996, 100: 12406, 200: 11203}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ldam_by_hand(labels, imb_factor, kind):
    """The published choice, by hand: counts first, then one shuffle per class from one legacy generator."""
    state = np.random.RandomState(0)
    number = len(set(labels.tolist()))
    largest = len(labels) / number
    chosen = []
    for k in range(number):
        if kind == "exp":
            keep = int(largest * imb_factor ** (k / (number - 1.0)))
        else:
            keep = int(largest) if k < number // 2 else int(largest * imb_factor)
        members = np.where(labels == k)[0]
        state.shuffle(members)
        chosen.extend(members[:keep].tolist())
    return chosen


@pytest.fixture(scope="module")
def cifar_like():
    return torch.from_numpy(np.random.default_rng(7).permutation(np.repeat(np.arange(10), 5000)))


@pytest.mark.parametrize("factor", TOTALS)
def test_cifar_counts_are_the_published_ones(factor):
    counts = long_tailed_counts(torch.full((10,), 5000), factor)
    assert int(counts.sum()) == TOTALS[factor]
    if factor == 100:
        assert counts.tolist() == PUBLISHED


@pytest.mark.parametrize(("profile", "kind"), [("exponential", "exp"), ("step", "step")])
@pytest.mark.parametrize("factor", [10, 100])
def test_ldam_makes_the_published_choice_and_leaves_the_global_state_alone(cifar_like, factor, profile, kind):
    before = np.random.get_state()[1].copy()
    chosen = long_tailed(cifar_like, 10, factor, profile, "ldam", generator(3))
    assert chosen.tolist() == ldam_by_hand(cifar_like.numpy(), 1 / factor, kind)
    assert np.array_equal(before, np.random.get_state()[1])


def test_step_keeps_the_middle_class_of_an_odd_number():
    assert long_tailed_counts(torch.full((5,), 100), 10, "step").tolist() == [100, 100, 10, 10, 10]


def test_seeded_subsets_have_the_counts_and_differ_between_seeds(cifar_like):
    first, again, other = (long_tailed(cifar_like, 10, 100, generator=generator(s)) for s in (0, 0, 1))
    assert class_counts(cifar_like[first], 10).tolist() == PUBLISHED
    assert first.tolist() == again.tolist() != other.tolist()
    assert len(set(first.tolist())) == len(first)
    assert cifar_like[first].tolist() == sorted(cifar_like[first].tolist())


def test_seeded_subsets_reach_every_sample():
    labels = torch.arange(2).repeat_interleave(6)
    samples = {i for s in range(60) for i in long_tailed(labels, 2, 6, generator=generator(s)).tolist()}
    assert samples == set(range(12))


def test_factor_one_keeps_all_of_an_uneven_set():
    labels = torch.tensor([1, 0, 0, 2, 2, 2])
    assert long_tailed(labels, 3, 1).tolist() == list(range(6))


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=12),
    st.floats(1.01, 300),
    st.sampled_from(["exponential", "step"]),
)
def test_the_profile_holds_on_any_set_and_no_class_runs_out(available, factor, profile):
    available = sorted(available, reverse=True)  # so that the rank of a class is its index
    try:
        kept = long_tailed_counts(torch.tensor(available), factor, profile).tolist()
    except ValueError:
        assert min(available) < factor  # a refusal needs a reason
        return
    number = len(available)
    share = [factor ** -(k / max(1, number - 1)) for k in range(number)]
    if profile == "step":
        share = [1.0 if k < number // 2 else 1 / factor for k in range(number)]
    assert all(1 <= k <= n for k, n in zip(kept, available, strict=True))
    largest = kept[0] if share[0] == 1 else None
    if largest is not None:
        assert all(abs(k - largest * s) < 1 + 1e-6 for k, s in zip(kept, share, strict=True))
        # One more sample in the first class would make some class run out.
        assert any(int((largest + 1) * s + 1e-9) > n for s, n in zip(share, available, strict=True))


@given(st.lists(st.integers(1, 400), min_size=2, max_size=12, unique=True), st.floats(1, 300), st.randoms())
def test_the_order_of_the_classes_never_matters(available, factor, random):
    order = list(range(len(available)))
    random.shuffle(order)
    try:
        kept = long_tailed_counts(torch.tensor(available), factor).tolist()
    except ValueError:
        with pytest.raises(ValueError, match="none is left"):
            long_tailed_counts(torch.tensor([available[k] for k in order]), factor)
        return
    assert long_tailed_counts(torch.tensor([available[k] for k in order]), factor).tolist() == [kept[k] for k in order]


# Sizes of a real kind, 1,205 images; the profile by hand: 200 = 250 x 100^(-1/18) at most for the second largest class.
NATURAL = (120, 45, 250, 80, 200, 30, 150, 60, 90, 220)


def test_a_natural_set_keeps_its_large_and_its_small_classes():
    kept = long_tailed_counts(torch.tensor(NATURAL), 100).tolist()
    assert [kept[k] for k in (2, 9, 4, 6, 0, 8, 3, 7, 1, 5)] == [int(250 * 100 ** (-k / 9)) for k in range(10)]
    rising = long_tailed_counts(torch.tensor(sorted(NATURAL)), 10).tolist()
    assert rising == sorted(rising)
    assert (rising[0], rising[-1]) == (25, 250)


def test_the_order_of_the_classes_can_be_asked_for():
    assert long_tailed_counts(torch.tensor([100, 200]), 10, order="class").tolist() == [100, 10]
    assert long_tailed_counts(torch.tensor([100, 200]), 10).tolist() == [20, 200]
    config = DataConfig(imbalance=10, tail_order="class")
    assert make_subsets(load_data(config), config, seed=0).counts.tolist() == [89, 68, 53, 41, 31, 24, 19, 14, 11, 8]
    with pytest.raises(ValueError, match="tail_order must be one of frequency, class, got 'size'"):
        DataConfig(tail_order="size")
    with pytest.raises(ValueError, match="order must be 'frequency' or 'class', got 'size'"):
        long_tailed_counts(torch.tensor([100, 200]), 10, order="size")


def test_the_class_that_limits_is_found():
    assert limiting_class(torch.tensor(NATURAL), 100) == 2
    assert limiting_class(torch.tensor([1000, 900, 3]), 10) == 2
    more = [1000, 900, 4]
    assert sum(long_tailed_counts(torch.tensor(more), 10)) > sum(long_tailed_counts(torch.tensor([1000, 900, 3]), 10))


def test_a_class_without_a_sample_is_named_with_an_imbalance_that_works():
    with pytest.raises(
        ValueError, match="none is left of cow, because ape has only 50 images: lower the imbalance to 50,"
    ):
        long_tailed_counts(torch.tensor([50, 20]), 100, classes=("ape", "cow"))
    assert long_tailed_counts(torch.tensor([50, 20]), 50).tolist() == [50, 1]
    with pytest.raises(ValueError, match="none is left"):
        long_tailed_counts(torch.tensor([50, 20]), 51)


def test_a_class_without_a_sample_is_named():
    with pytest.raises(ValueError, match="none is left of lynx"):
        long_tailed_counts(torch.tensor([10, 10, 10]), 100, classes=("ape", "bat", "lynx"))
    with pytest.raises(ValueError, match="there is none of 2: add images"):
        long_tailed_counts(torch.tensor([10, 10, 0]), 2)
    with pytest.raises(ValueError, match="there is none of 1"):
        long_tailed(torch.tensor([0, 0, 2]), 3, 1)


def test_bad_arguments_raise():
    with pytest.raises(ValueError, match="at least 1"):
        long_tailed_counts(torch.tensor([10, 10]), 0.5)
    with pytest.raises(ValueError, match="'exponential', 'step' or 'pareto'"):
        long_tailed_counts(torch.tensor([10, 10]), 2, "linear")
    with pytest.raises(ValueError, match="generator"):
        long_tailed(torch.tensor([0, 0, 1, 1]), 2, 2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_holdout(torch.tensor([0, 1]), 1.0, generator())


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=120), st.floats(0.01, 0.99), st.integers(0, 9))
def test_the_holdout_is_stratified(values, fraction, seed):
    labels = torch.tensor(values)
    train, holdout = split_holdout(labels, fraction, generator(seed))
    assert sorted(train.tolist() + holdout.tolist()) == list(range(len(values)))
    assert train.tolist() == sorted(train.tolist())
    for k in set(values):
        total, kept = values.count(k), int((labels[train] == k).sum())
        assert kept >= 1
        assert total - kept >= (total >= 2)
        assert abs((total - kept) - total * fraction) <= 0.5 + 1e-4 or kept == 1 or total - kept == 1


def test_the_holdout_is_drawn_and_not_the_first_samples():
    labels = torch.zeros(50, dtype=torch.int64)
    drawn = {tuple(split_holdout(labels, 0.2, generator(s))[1].tolist()) for s in range(5)}
    assert len(drawn) == 5
    assert split_holdout(labels, 0.2, generator(1))[1].tolist() == split_holdout(labels, 0.2, generator(1))[1].tolist()


@pytest.mark.parametrize(("number", "factor", "alpha"), [(10, 100, 6.0), (50, 20, 1.5), (2, 10, 6.0)])
def test_pareto_counts_are_the_quantiles_written_out(number, factor, alpha):
    quantiles = [(1 - (1 - (k + 0.5) / (number - 0.5))) ** (-1 / alpha) - 1 for k in range(number)]
    falls = [x / quantiles[0] for x in quantiles]
    expected = [int(1000 * (t + (1 - t) / factor)) for t in falls]
    kept = long_tailed_counts(torch.full((number,), 1000), factor, "pareto", pareto_alpha=alpha).tolist()
    assert kept == expected
    assert (kept[0], kept[-1]) == (1000, 1000 // factor)
    assert kept == sorted(kept, reverse=True)


def test_pareto_is_close_to_the_published_list_of_imagenet():
    """ImageNet-LT: 1000 classes of 1280 to 5 images, 115,846 in all; 385, 479 and 136 many, medium and few."""
    kept = long_tailed_counts(torch.full((1000,), 1280), 256, "pareto").tolist()
    many, few = sum(n > 100 for n in kept), sum(n < 20 for n in kept)
    assert (kept[0], kept[-1]) == (1280, 5)
    assert sum(kept) == pytest.approx(115_846, rel=0.1)
    assert (many, few) == (349, 163)
    assert many == pytest.approx(385, rel=0.1)
    # An exponential tail of the same factor has many more classes in its middle.
    assert sum(n > 100 for n in long_tailed_counts(torch.full((1000,), 1280), 256).tolist()) > 450


def test_pareto_follows_its_exponent_and_bad_ones_raise():
    totals = [int(long_tailed_counts(torch.full((100,), 500), 50, "pareto", pareto_alpha=a).sum()) for a in (1.0, 6.0)]
    assert totals[0] < totals[1]
    assert long_tailed_counts(torch.tensor([7]), 1, "pareto").tolist() == [7]
    with pytest.raises(ValueError, match="pareto_alpha must be positive and finite"):
        long_tailed_counts(torch.tensor([9, 9]), 2, "pareto", pareto_alpha=0.0)
    with pytest.raises(ValueError, match="pareto_alpha must be positive and finite"):
        DataConfig(pareto_alpha=-1.0)
    config = DataConfig(imbalance=10, profile="pareto", pareto_alpha=2.0)
    sources = load_data(config)
    available = class_counts(sources.train.labels, 10)
    expected = long_tailed_counts(available, 10, "pareto", pareto_alpha=2.0)
    assert make_subsets(sources, config, seed=0).counts.tolist() == expected.tolist()
    assert expected.tolist() != long_tailed_counts(available, 10, "pareto").tolist()


@pytest.mark.parametrize("protocol", ["seeded", "ldam"])
def test_own_counts_are_kept_exactly(protocol):
    counts = (5, 60, 1, 7, 7, 7, 20, 80, 3, 2)
    config = DataConfig(class_counts=counts, protocol=protocol)
    sources = load_data(config)
    subsets = [make_subsets(sources, config, seed) for seed in (0, 0, 1)]
    for subset in subsets:
        assert tuple(subset.counts.tolist()) == counts
        assert len(set(subset.train.tolist())) == sum(counts)
    assert subsets[0].train.tolist() == subsets[1].train.tolist()
    assert (subsets[0].train.tolist() == subsets[2].train.tolist()) == (protocol == "ldam")


def test_bad_own_counts_raise():
    for counts, message in (
        ((5, 0), "whole numbers of at least 1, got 0 at position 1"),
        ((5, -1), "got -1 at position 1"),
        ((5, 2.5), "got 2.5 at position 1"),
        ((True, 5), "got True at position 0"),
        ((5,), "each of at least 2 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            DataConfig(class_counts=counts)
        with pytest.raises(ValueError, match=message):
            own_counts(torch.tensor([9, 9]), counts)
    with pytest.raises(ValueError, match="class_counts has 9 samples for the class bat, but only 8 are available"):
        own_counts(torch.tensor([8, 8]), (8, 9), ("ape", "bat"))
    with pytest.raises(ValueError, match="one number for each of the 3 classes, got 2"):
        own_counts(torch.tensor([8, 8, 8]), (8, 8))
    with pytest.raises(
        ValueError,
        match="class_counts and imbalance both set the size of the classes, got class_counts and imbalance 2",
    ):
        DataConfig(class_counts=(5, 5), imbalance=2.0)
    with pytest.raises(ValueError, match="generator"):
        subset_of_counts(torch.tensor([0, 1]), torch.tensor([1, 1]))


def test_counts_from_the_command_line():
    from nc_tools.experiment.overrides import parse_setting, put

    path, value = parse_setting("class_counts=(9, 3, 1)")
    assert put(DataConfig(), path, value).class_counts == (9, 3, 1)
    assert put(DataConfig(), "profile", "pareto").profile == "pareto"
