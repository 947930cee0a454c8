"""One pass over any batching and any order of merging is two passes in float64."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.two_processes import in_two_processes

from nc_tools._support.class_sums import _add_bags, class_sums
from nc_tools.class_moments import ClassMoments
from nc_tools.metrics import collapse_from_moments, neural_collapse


def by_hand(x: np.ndarray, y: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Moments of each class by loops in float64."""
    d = x.shape[1]
    counts = np.array([(y == c).sum() for c in range(k)])
    means, variances = np.zeros((k, d)), np.zeros(k)
    pooled, averaged, present = np.zeros((d, d)), np.zeros((d, d)), 0
    for c in range(k):
        rows = x[y == c]
        if not len(rows):
            continue
        present += 1
        means[c] = rows.sum(axis=0) / len(rows)
        scatter = sum(np.outer(row - means[c], row - means[c]) for row in rows)
        variances[c] = np.trace(scatter) / len(rows)
        pooled += scatter / len(x)
        averaged += scatter / len(rows)
    return {
        "counts": counts,
        "means": means,
        "variances": variances,
        "pooled": pooled,
        "averaged": averaged / present,
    }


def check(moments: ClassMoments, expected: dict[str, np.ndarray], atol: float = 1e-5) -> None:
    np.testing.assert_array_equal(moments.counts.numpy(), expected["counts"])
    np.testing.assert_allclose(moments.means.numpy(), expected["means"], atol=atol)
    np.testing.assert_allclose(moments.variances.numpy(), expected["variances"], atol=atol, rtol=atol)
    np.testing.assert_allclose(moments.within_pooled().numpy(), expected["pooled"], atol=atol, rtol=atol)
    if moments.has_class_averaged:
        np.testing.assert_allclose(moments.within_class_averaged().numpy(), expected["averaged"], atol=atol, rtol=atol)


def draw(seed: int, n: int = 60, d: int = 4, k: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, k, (n,), generator=generator)
    means = 3 * torch.randn(k, d, generator=generator)
    return means[y] + torch.randn(n, d, generator=generator), y


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    order=st.randoms(use_true_random=False),
    k=st.sampled_from([2, 5, 40, 90]),
    given_counts=st.booleans(),
)
def test_any_batching_and_any_merge_order_is_two_passes(seed, cuts, order, k, given_counts):
    x, y = draw(seed, k=k)
    expected = by_hand(x.double().numpy(), y.numpy(), k)
    counts = expected["counts"] if given_counts else None
    edges = sorted({0, 60, *cuts})
    parts = []
    for start, stop in pairwise(edges):
        part = ClassMoments(k, 4, class_counts=counts)
        middle = (start + stop) // 2
        part.update(x[start:middle], y[start:middle])
        part.update(x[middle:stop], y[middle:stop])
        parts.append(part)
    order.shuffle(parts)
    while len(parts) > 1:
        parts[0].merge(parts.pop())
        order.shuffle(parts)
    assert parts[0].has_class_averaged or not given_counts
    check(parts[0], expected)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_float32_far_from_the_origin_keeps_its_digits(offset):
    x, y = draw(0, n=40_000, d=6, k=3)
    x = x + offset
    exact = ClassMoments(3, 6)
    exact.update(x.double(), y)
    moments = ClassMoments(3, 6)
    for block in range(0, len(x), 256):
        moments.update(x[block : block + 256], y[block : block + 256])
    torch.testing.assert_close(moments.means, exact.means, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(moments.within_pooled(), exact.within_pooled(), rtol=1e-4, atol=2e-4)
    _, sums = class_sums(x, y, 3)
    torch.testing.assert_close(sums / exact.counts[:, None], exact.means, rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize("k", [1, 7, 500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_sums_equal_a_loop(k, dtype):
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(700, 3, generator=generator).to(dtype)
    y = torch.randint(0, k, (700,), generator=generator)
    counts, sums = class_sums(x, y, k)
    for c in range(k):
        assert counts[c] == (y == c).sum()
        torch.testing.assert_close(sums[c], x[y == c].double().sum(dim=0), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("samples", "k"), [(700, 5), (700, 2000), (1, 3)])
def test_the_sums_of_a_gpu_are_those_of_a_cpu(samples, k):
    generator = torch.Generator().manual_seed(k)
    x, y = torch.randn(samples, 3, generator=generator).double(), torch.randint(0, k, (samples,), generator=generator)
    expected, sums = torch.ones(2, k, 3, dtype=torch.float64)
    expected.index_put_((y,), x, accumulate=True)
    _add_bags(sums, x, y)
    torch.testing.assert_close(sums, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(class_sums(x, y, k)[1] + 1, expected, atol=1e-12, rtol=1e-12)


def test_sums_of_no_samples_are_zero():
    counts, sums = class_sums(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 4)
    assert counts.tolist() == [0, 0, 0, 0]
    assert sums.shape == (4, 3)
    assert float(sums.abs().sum()) == 0


def test_autocast_and_fast_products_of_the_caller_change_nothing():
    x, y = draw(1)
    plain, inside = ClassMoments(5, 4), ClassMoments(5, 4)
    plain.update(x, y)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside.update(x, y)
            assert torch.equal(inside.within_pooled(), plain.within_pooled())
            assert neural_collapse(x, y) == pytest.approx(neural_collapse(x, y), rel=1e-12)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_half_precision_is_measured_in_float32():
    x, y = draw(2)
    half, single = ClassMoments(5, 4), ClassMoments(5, 4)
    half.update(x.bfloat16(), y)
    single.update(x.bfloat16().float(), y)
    assert torch.equal(half.within_pooled(), single.within_pooled())


def test_merging_leaves_the_other_as_it_was():
    x, y = draw(3)
    first, second = ClassMoments(5, 4), ClassMoments(5, 4)
    first.update(x[:20], y[:20])
    second.update(x[20:], y[20:])
    before = second.within_pooled().clone(), second.means.clone()
    first.merge(second)
    assert torch.equal(before[0], second.within_pooled())
    assert torch.equal(before[1], second.means)


def test_without_scatter_the_variances_are_the_same():
    x, y = draw(4)
    light, full = ClassMoments(5, 4, scatter=False), ClassMoments(5, 4)
    light.update(x, y)
    full.update(x, y)
    assert torch.equal(light.variances, full.variances)
    with pytest.raises(ValueError, match="scatter=True"):
        light.within_pooled()
    assert "nc1_pinv" not in collapse_from_moments(light)
    assert collapse_from_moments(light)["cdnv"] == collapse_from_moments(full)["cdnv"]


def test_the_class_averaged_form_needs_counts_only_if_class_sizes_differ():
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    even = ClassMoments(3, 2)
    even.update(x, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert torch.equal(even.within_class_averaged(), even.within_pooled())
    uneven = ClassMoments(3, 2)
    uneven.update(x, torch.tensor([0, 0, 0, 1, 1, 2]))
    with pytest.raises(ValueError, match="class_counts="):
        uneven.within_class_averaged()
    wrong = ClassMoments(3, 2, class_counts=[3, 2, 2])
    wrong.update(x, torch.tensor([0, 0, 0, 1, 1, 2]))
    with pytest.raises(ValueError, match="class_counts differ"):
        wrong.within_class_averaged()


def test_from_moments_equals_the_two_pass_form():
    x, y = draw(5, n=300, d=8, k=6)
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    moments = ClassMoments(6, 8, class_counts=y.bincount(minlength=6))
    for part in range(0, 300, 70):
        moments.update(x[part : part + 70], y[part : part + 70])
    direct = neural_collapse(x, y, weight)
    del direct["nc4_disagreement"]
    assert collapse_from_moments(moments, weight) == pytest.approx(direct, rel=2e-5)


@pytest.mark.parametrize("counted", [True, False])
def test_a_loop_in_inference_mode_may_be_read_and_continued_outside(counted):
    x, y = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    plain, moments = (ClassMoments(3, 4, class_counts=[20] * 3 if counted else None) for _ in range(2))
    for part in (slice(0, 30), slice(30, 60)):
        plain.update(x[part], y[part])
    with torch.inference_mode():
        moments.update(x[:30].clone(), y[:30].clone())
    moments.update(x[30:], y[30:])
    assert torch.equal(moments.within_class_averaged(), plain.within_class_averaged())
    assert torch.equal(moments.means, plain.means)
    with torch.inference_mode():
        moments.merge(plain)
    moments.update(x, y)
    assert moments.counts.tolist() == [60] * 3


def test_only_moments_are_merged():
    with pytest.raises(TypeError, match="only ClassMoments can be merged into ClassMoments, got int"):
        ClassMoments(2, 3).merge(3)


def test_wrong_input_raises_an_error_when_a_result_is_read():
    moments = ClassMoments(3, 2)
    x = torch.zeros(4, 2)
    x[1, 0], x[2, 1] = float("nan"), float("inf")
    moments.update(x, torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="2 samples hold NaN or inf"):
        _ = moments.counts
    moments = ClassMoments(3, 2)
    moments.update(torch.zeros(4, 2), torch.tensor([0, 3, -1, 0]))
    with pytest.raises(ValueError, match=r"\[0, 3\), but 2"):
        _ = moments.means
    with pytest.raises(ValueError, match="feature_dim=2, got 5"):
        moments.update(torch.zeros(4, 5), torch.tensor([0, 1, 1, 0]))
    with pytest.raises(TypeError, match="integer"):
        moments.update(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        moments.update(torch.zeros(4, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match="each of the 3 classes"):
        ClassMoments(3, 2, class_counts=[1, 2])
    with pytest.raises(ValueError, match="at least 1"):
        ClassMoments(0, 2)
    for other in (
        ClassMoments(3, 3),
        ClassMoments(3, 2, scatter=False),
        ClassMoments(3, 2, class_counts=[1, 1, 1]),
    ):
        with pytest.raises(ValueError, match="same num_classes"):
            ClassMoments(3, 2).merge(other)


def _worker(rank: int, folder: str) -> None:
    x, y = draw(6)
    moments = ClassMoments(5, 4, class_counts=y.bincount(minlength=5))
    moments.update(x[rank::2], y[rank::2])
    moments.all_reduce()
    np.savez(Path(folder) / f"{rank}.npz", a=moments.within_class_averaged(), m=moments.means, v=moments.variances)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    in_two_processes(_worker, str(tmp_path))
    x, y = draw(6)
    expected = by_hand(x.double().numpy(), y.numpy(), 5)
    for rank in range(2):
        saved = np.load(tmp_path / f"{rank}.npz")
        np.testing.assert_allclose(saved["a"], expected["averaged"], atol=1e-5)
        np.testing.assert_allclose(saved["m"], expected["means"], atol=1e-5)
        np.testing.assert_allclose(saved["v"], expected["variances"], atol=1e-5)
