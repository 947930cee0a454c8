import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.data.imbalance import class_counts, long_tailed, long_tailed_counts, split_holdout

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
    seen = {i for s in range(60) for i in long_tailed(labels, 2, 6, generator=generator(s)).tolist()}
    assert seen == set(range(12))


def test_factor_one_keeps_an_uneven_set_whole():
    labels = torch.tensor([1, 0, 0, 2, 2, 2])
    assert long_tailed(labels, 3, 1).tolist() == list(range(6))


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=12),
    st.floats(1.01, 300),
    st.sampled_from(["exponential", "step"]),
)
def test_the_profile_holds_on_any_set_and_no_class_runs_out(available, factor, profile):
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


def test_a_class_without_a_sample_is_named():
    with pytest.raises(ValueError, match="none is left of lynx"):
        long_tailed_counts(torch.tensor([10, 10, 10]), 100, classes=("ape", "bat", "lynx"))
    with pytest.raises(ValueError, match="none is left of 2:"):
        long_tailed_counts(torch.tensor([10, 10, 0]), 2)
    with pytest.raises(ValueError, match="none is left of 1"):
        long_tailed(torch.tensor([0, 0, 2]), 3, 1)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        long_tailed_counts(torch.tensor([10, 10]), 0.5)
    with pytest.raises(ValueError, match="exponential, step or pareto"):
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
