"""Named random streams are stable and independent."""

import hashlib
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nc_tools.seeds import StreamName, stream, stream_seed

NAMES = get_args(StreamName)
names = st.sampled_from(NAMES)
paths = st.tuples(st.integers(-(2**40), 2**40), names, st.lists(st.integers(-(2**40), 2**40), max_size=3))


def test_the_names_are_those_that_runs_were_recorded_with() -> None:
    assert set(NAMES) == {
        *("subset", "holdout", "init", "head", "frame", "order", "augment", "noise", "transfer", "subsample"),
        *("sampling", "mix", "outliers", "split"),
    }


def test_the_seeds_never_change() -> None:
    """A record names a seed: another hash would make every earlier run unrepeatable."""
    digest = hashlib.sha256(b"7/order/3").digest()
    assert stream_seed(7, "order", 3) == int.from_bytes(digest[:8], "big") // 2
    assert stream_seed(0, "init") == 1519069808562059438


@given(paths, paths)
@settings(max_examples=200, deadline=None)
def test_each_path_has_its_own_seed(a: tuple[int, str, list[int]], b: tuple[int, str, list[int]]) -> None:
    first, second = (stream_seed(seed, name, *keys) for seed, name, keys in (a, b))  # type: ignore[arg-type]
    assert (first == second) == (a == b)
    assert 0 <= first < 2**63


@given(st.integers(0, 2**31), names)
@settings(max_examples=20, deadline=None)
def test_one_path_gives_one_sequence_and_leaves_the_global_generator_alone(seed: int, name: str) -> None:
    state = torch.get_rng_state()
    a, b = (torch.rand(3, generator=stream(seed, name)) for _ in range(2))  # type: ignore[arg-type]
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), state)


def test_streams_of_one_seed_are_uncorrelated() -> None:
    draws = torch.stack([torch.rand(4000, generator=stream(0, name)) for name in NAMES])
    draws = torch.cat([draws, torch.stack([torch.rand(4000, generator=stream(0, "order", epoch)) for epoch in (0, 1)])])
    correlation = torch.corrcoef(draws) - torch.eye(len(draws))
    assert float(correlation.abs().max()) < 4.5 / 4000**0.5


def test_first_numbers_over_seeds_are_uniform() -> None:
    first = [float(torch.rand(1, generator=stream(seed, "init"))) for seed in range(500)]
    assert stats.kstest(first, "uniform").pvalue > 1e-3


def test_a_generator_is_on_the_given_device() -> None:
    assert stream(0, "init").device.type == "cpu"
    with torch.device("meta"):
        assert stream(0, "init").device.type == "cpu"


def test_the_error_for_a_mistyped_stream_lists_all_names() -> None:
    with pytest.raises(ValueError, match=r"must be one of subset, holdout, init, .* mix, outliers, split, got 'inti'"):
        stream(0, "inti")  # type: ignore[arg-type]
