"""Neural collapse against loops in float64, closed forms, and features broken on purpose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.metrics import neural_collapse
from nc_tools.metrics.collapse.mean_geometry import whitened_directions


def reference(x, y, w=None, b=None) -> dict[str, float]:
    """Every quantity by loops over samples and classes, from the definitions."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y)
    present = sorted(set(y.tolist()))
    k, (n, d) = len(present), x.shape
    mu = {c: sum(x[i] for i in range(n) if y[i] == c) / sum(y == c) for c in present}
    total = {c: int(sum(y == c)) for c in present}
    center = sum(mu.values()) / k
    all_mean = sum(x) / n
    sw, sb, swp, sbp = (np.zeros((d, d)) for _ in range(4))
    v = dict.fromkeys(present, 0.0)
    for i in range(n):
        r = x[i] - mu[y[i]]
        sw += np.outer(r, r) / total[y[i]] / k
        swp += np.outer(r, r) / n
        v[y[i]] += float(r @ r) / total[y[i]]
    for c in present:
        sb += np.outer(mu[c] - center, mu[c] - center) / k
        sbp += total[c] / n * np.outer(mu[c] - all_mean, mu[c] - all_mean)

    def pinv(matrix):
        values, vectors = np.linalg.eigh(matrix)
        keep = np.argsort(values)[::-1][: min(k - 1, d)]
        return sum(np.outer(vectors[:, j], vectors[:, j]) / values[j] for j in keep)

    c = [mu[a] - center for a in present]
    norms = [math.sqrt(a @ a) for a in c]
    mean_norm = sum(norms) / k
    gram = np.array([[a @ e for e in c] for a in c])
    etf = (np.eye(k) - 1 / k) / math.sqrt(k - 1)
    pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
    out = {
        "nc1_pinv": np.trace(sw @ pinv(sb)) / k,
        "nc1_pinv_pooled": np.trace(swp @ pinv(sbp)) / k,
        "nc1_trace": np.trace(sw) / np.trace(sb),
        "nc1_trace_pooled": np.trace(swp) / np.trace(sbp),
        "cdnv": sum(
            (v[present[i]] + v[present[j]]) / 2 / ((c[i] - c[j]) @ (c[i] - c[j])) for i, j in pairs
        ) / len(pairs),
        "nc2_equinorm": math.sqrt(sum((a - mean_norm) ** 2 for a in norms) / k) / mean_norm,
        "nc2_equiangular": sum(
            abs(gram[i, j] / norms[i] / norms[j] + 1 / (k - 1)) for i, j in pairs
        ) / len(pairs),
        "nc2_gram": np.sqrt(((gram / np.sqrt((gram**2).sum()) - etf) ** 2).sum()),
    }  # fmt: skip
    if w is not None:
        w = np.asarray(w, dtype=np.float64)
        rows, frame = w[present], np.array(c)
        out["nc0"] = sum(float(column.sum()) ** 2 for column in w.T) / d
        gap = rows / math.sqrt((rows**2).sum()) - frame / math.sqrt((frame**2).sum())
        out["nc3_distance"] = math.sqrt((gap**2).sum())
        out["nc3_cosine"] = sum(1 - rows[i] @ c[i] / norms[i] / math.sqrt(rows[i] @ rows[i]) for i in range(k)) / k
        wrong = 0
        for i in range(n):
            scores = w @ x[i] + (0 if b is None else np.asarray(b, dtype=np.float64))
            nearest = min(present, key=lambda a: float((x[i] - mu[a]) @ (x[i] - mu[a])))
            wrong += int(np.argmax(scores)) != nearest
        out["nc4_disagreement"] = wrong / n
    return out


def toy(seed, n, d, k, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(k), torch.randint(0, k, (n - k,), generator=generator)])
    means = torch.randn(k, d, generator=generator)
    x = means[y] + spread * torch.randn(n, d, generator=generator)
    return x, y, torch.randn(k, d, generator=generator), torch.randn(k, generator=generator)


def etf(k: int, d: int) -> torch.Tensor:
    frame = torch.eye(k, dtype=torch.float64) - 1 / k
    rotation, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(9)))
    return frame @ rotation[:k] * math.sqrt(k / (k - 1))


@pytest.mark.parametrize(("n", "d", "k"), [(40, 6, 4), (60, 3, 9), (50, 12, 12), (80, 5, 6), (30, 4, 2), (12, 30, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_loops(n, d, k, dtype):
    x, y, w, b = toy(n + d, n, d, k)
    found = neural_collapse(x.to(dtype), y, w.to(dtype), b.to(dtype))
    expected = reference(x, y, w, b)
    assert found.keys() == expected.keys()
    # Far from collapse nearly singular means are ordinary; what float32 features determine is asked for.
    assert found == pytest.approx(expected, rel=2e-5 if dtype == torch.float32 else 1e-9)


def test_many_blocks_equal_one(monkeypatch):
    x, y, w, b = toy(0, 1000, 6, 4)
    one, unbiased = neural_collapse(x, y, w, b), neural_collapse(x, y, w)
    monkeypatch.setattr("nc_tools.metrics.collapse.within_class._BLOCK_CPU", 1)
    monkeypatch.setattr("nc_tools.metrics.collapse.mean_geometry._GRAM_ENTRIES", 1)
    assert neural_collapse(x, y, w, b) == pytest.approx(one, rel=1e-6)
    monkeypatch.setattr("nc_tools.metrics.collapse.within_class._TABLE", 1)  # as with many classes: no K x K table
    assert neural_collapse(x, y, w, b) == pytest.approx(one, rel=1e-6)
    assert neural_collapse(x, y, w) == pytest.approx(unbiased, rel=1e-6)
    assert one["nc4_disagreement"] != unbiased["nc4_disagreement"]


def test_an_exact_simplex_frame_is_fully_collapsed():
    frame = etf(7, 16)
    y = torch.arange(7).repeat(5)
    x = 3 * frame[y] + 2.0
    bias = -2 * frame.sum(dim=1)
    found = neural_collapse(x, y, frame, bias)
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-7)
    single = neural_collapse(x.float(), y, frame.float(), bias.float())
    assert single == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-5)


class TestEachBreakMovesItsOwnMeasures:
    frame, y = etf(6, 12), torch.arange(6).repeat(4)
    base = neural_collapse(frame[y], y, frame)

    def moved(self, x, weight=None, **kwargs) -> set[str]:
        found = neural_collapse(x, self.y, self.frame if weight is None else weight, **kwargs)
        return {key for key in found if abs(found[key] - self.base[key]) > 1e-6}

    def test_noise_within_classes(self):
        noise = 0.05 * torch.randn(6, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x = self.frame[self.y] + torch.cat([noise, -noise, noise, -noise])
        assert self.moved(x) == {"nc1_pinv", "nc1_trace", "nc1_pinv_pooled", "nc1_trace_pooled", "cdnv"}

    def test_noise_across_the_span_of_the_means_is_invisible_to_the_pseudo_inverse(self):
        outside = torch.linalg.svd(self.frame).Vh[-1]
        x = self.frame[self.y] + 0.1 * torch.tensor([1.0, -1.0]).repeat_interleave(6).repeat(2)[:, None] * outside
        assert self.moved(x) == {"nc1_trace", "nc1_trace_pooled", "cdnv"}

    def test_a_longer_mean(self):
        scale = torch.ones(6, 1, dtype=torch.float64)
        scale[0] = 1.2
        moved = self.moved((self.frame * scale)[self.y])
        assert {"nc2_equinorm", "nc2_gram", "nc3_distance"} <= moved
        assert not moved & {"nc0", "nc1_pinv", "nc1_trace", "cdnv"}

    def test_a_turned_head(self):
        turned = self.frame.roll(1, dims=0)
        assert self.moved(self.frame[self.y], turned) == {"nc3_distance", "nc3_cosine", "nc4_disagreement"}

    def test_a_longer_head_moves_no_angle(self):
        assert self.moved(self.frame[self.y], 5 * self.frame) == set()

    def test_a_common_direction_in_the_head(self):
        assert "nc0" in self.moved(self.frame[self.y], self.frame + 0.1)

    def test_logits_decide_nc4_alone(self):
        logits = torch.nn.functional.one_hot((self.y + 1) % 6, 6).float()
        assert self.moved(self.frame[self.y], logits=logits) == {"nc4_disagreement"}


def test_bias_enters_the_disagreement():
    x, y = torch.tensor([[-1.0], [-0.9], [1.0], [0.9]]), torch.tensor([0, 0, 1, 1])
    weight = torch.tensor([[-1.0], [1.0]])
    assert neural_collapse(x, y, weight)["nc4_disagreement"] == 0.0
    assert neural_collapse(x, y, weight, torch.tensor([10.0, 0.0]))["nc4_disagreement"] == 0.5


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-2, 1e2), shift=st.floats(-3, 3), k=st.integers(2, 9))
def test_rotation_scale_shift_and_order_change_nothing(seed, scale, shift, k):
    x, y, w, _ = toy(seed, 50, 8, k)
    x, w = x.double(), w.double()
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=generator))
    order = torch.randperm(50, generator=generator)
    before = neural_collapse(x, y, w)
    after = neural_collapse((scale * (x + shift) @ turn)[order], y[order], w @ turn)
    for key in ("nc0", "nc4_disagreement"):  # the head sees the shift, and NC0 the axes
        del before[key], after[key]
    assert after == pytest.approx(before, rel=1e-6)


def test_imbalance_moves_the_pooled_forms_alone_as_predicted():
    # Means -1, 0 and 1 on a line, variances s_k = .01, .04, .09; counts 2, 6, 12.
    deviations, counts = (0.1, 0.2, 0.3), (2, 6, 12)
    rows, labels = [], []
    for c, (s, n) in enumerate(zip(deviations, counts, strict=True)):
        rows += [[c - 1 + s * (-1) ** i] for i in range(n)]
        labels += [c] * n
    found = neural_collapse(torch.tensor(rows, dtype=torch.float64), torch.tensor(labels))
    averaged = (0.01 + 0.04 + 0.09) / 3 / (2 / 3)
    share = [n / 20 for n in counts]
    mean = share[2] - share[0]
    between = sum(p * (c - 1 - mean) ** 2 for c, p in enumerate(share))
    pooled = (share[0] * 0.01 + share[1] * 0.04 + share[2] * 0.09) / between
    assert found["nc1_trace"] == pytest.approx(averaged)
    assert found["nc1_pinv"] == pytest.approx(averaged / 3)
    assert found["nc1_trace_pooled"] == pytest.approx(pooled)
    assert found["nc1_pinv_pooled"] == pytest.approx(pooled / 3)
    balanced = neural_collapse(*toy_balanced())
    assert balanced["nc1_pinv"] == pytest.approx(balanced["nc1_pinv_pooled"], rel=1e-6)
    assert balanced["nc1_trace"] == pytest.approx(balanced["nc1_trace_pooled"], rel=1e-6)


def toy_balanced():
    x, _, _, _ = toy(3, 40, 6, 4)
    return x, torch.arange(4).repeat(10)


def test_repeating_a_class_moves_no_class_averaged_value():
    x, y, w, b = toy(1, 60, 5, 4)
    again = torch.cat([x, x[y == 2], x[y == 2]]), torch.cat([y, y[y == 2], y[y == 2]])
    before, after = neural_collapse(x, y, w, b), neural_collapse(*again, w, b)
    for key in before:
        same = after[key] == pytest.approx(before[key], rel=1e-5)
        assert same == (not key.endswith("_pooled") and key != "nc4_disagreement"), key


def test_absent_classes_are_left_out_and_not_means_at_zero():
    x, y, w, b = toy(2, 60, 5, 4)
    place = torch.tensor([1, 2, 5, 6])
    wide = torch.full((8, 5), 0.3)
    wide[place] = w
    some = neural_collapse(x, place[y], wide, num_classes=8)
    few = neural_collapse(x, y, w)
    for key in set(few) - {"nc0", "nc4_disagreement"}:
        assert some[key] == pytest.approx(few[key], rel=1e-6), key
    logits = torch.full((60, 8), -100.0)
    logits[:, place] = x @ w.T + b
    same = neural_collapse(x, place[y], logits=logits)["nc4_disagreement"]
    assert same == neural_collapse(x, y, w, b)["nc4_disagreement"]


def test_logits_and_the_affine_head_agree():
    x, y, w, b = toy(4, 200, 5, 6)
    assert neural_collapse(x, y, w, b) == pytest.approx(neural_collapse(x, y, w, logits=x @ w.T + b), rel=1e-6)


def test_a_collapsed_set_keeps_its_digits_in_float32():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(10).repeat(50)
    x = (torch.randn(10, 64, generator=generator)[y] + 1e-3 * torch.randn(500, 64, generator=generator)) + 5
    found, exact = neural_collapse(x, y), neural_collapse(x.double(), y)
    assert exact["nc1_trace"] < 1e-5
    assert found == pytest.approx(exact, rel=1e-4)


def test_a_direction_of_rounding_error_is_cut():
    # Three classes whose means lie on a line but for 1e-9: an uncut pseudo-inverse divides by 1e-18.
    y = torch.arange(3).repeat(20)
    line = torch.tensor([[-1.0, 0.0], [0.0, 1e-9], [1.0, 0.0]], dtype=torch.float64)
    noise = 0.1 * torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = line[y] + torch.cat([noise, -noise])
    assert neural_collapse(x, y)["nc1_pinv"] < 0.1


@pytest.mark.parametrize(("k", "d"), [(5, 9), (9, 4), (5, 5), (2, 1)])
def test_whitened_directions_are_the_factor_of_the_pseudo_inverse(k, d):
    means = torch.randn(k, d, dtype=torch.float64, generator=torch.Generator().manual_seed(k * d))
    centered = means - means.mean(0)
    columns, singular = whitened_directions(centered, torch.tensor(0.0, dtype=torch.float64))
    assert columns.shape == (d, min(k - 1, d))
    torch.testing.assert_close(columns @ columns.T, torch.linalg.pinv(centered.T @ centered, rtol=1e-10))
    torch.testing.assert_close(singular.flip(0), torch.linalg.svdvals(centered)[: len(singular)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    x, y, w, b = toy(5, 100, 5, 4)
    found = neural_collapse(x.to(dtype), y, w.to(dtype), b.to(dtype))
    assert found == pytest.approx(
        neural_collapse(*(t.to(dtype).float() if t.is_floating_point() else t for t in (x, y, w, b)))
    )


def test_quantities_that_are_not_defined_have_no_key():
    one_each = neural_collapse(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.arange(4))
    assert set(one_each) == {"nc2_equinorm", "nc2_equiangular", "nc2_gram"}
    constant = neural_collapse(torch.ones(6, 3), torch.arange(3).repeat(2), torch.eye(3))
    assert set(constant) == {"nc0", "nc4_disagreement"}
    nearly = neural_collapse(torch.full((3000, 7), 0.3), torch.arange(3).repeat(1000))
    assert nearly == {}
    zero_head = neural_collapse(*toy_balanced(), torch.zeros(4, 6))
    assert "nc3_distance" not in zero_head
    assert zero_head["nc0"] == 0.0


def test_a_class_of_one_sample_counts_with_no_spread():
    x = torch.tensor([[0.0], [2.0], [5.0]])
    found = neural_collapse(x, torch.tensor([0, 0, 1]))
    assert found["nc1_trace"] == pytest.approx((1.0 + 0.0) / 2 / 4)


def test_gradients_and_inputs_are_left_alone():
    x, y, w, _ = toy(6, 40, 4, 3)
    x.requires_grad_()
    before = x.detach().clone()
    neural_collapse(x, y, w.requires_grad_())
    assert torch.equal(x.detach(), before)
    assert x.grad is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(20, dtype=torch.long)}, "at least 2, got 1"),
        ({"labels": torch.arange(20) - 1}, "but 1 of them"),
        ({"labels": torch.arange(19)}, r"\(20,\)"),
        ({"features": torch.full((20, 4), math.nan)}, "20 of 20 samples hold NaN"),
        ({"features": torch.zeros(20, 4, 1)}, r"\(N, D\)"),
        ({"weight": torch.full((5, 4), math.inf)}, "weight must be finite, but 5 of 5 rows"),
        ({"logits": torch.full((20, 5), math.nan)}, "logits must be finite, but 20 of 20 rows"),
        ({"weight": torch.zeros(5, 7)}, "enter the head's product"),
        ({"weight": torch.zeros(5, 4), "bias": torch.zeros(4)}, "one number for each"),
        ({"bias": torch.zeros(5)}, "come with a weight"),
        ({"weight": torch.zeros(5, 4), "num_classes": 6}, "num_classes 6, weight 5"),
        ({"logits": torch.zeros(3, 5)}, r"\(20, K\)"),
        ({"weight": torch.zeros(3, 4)}, r"\[0, 3\), but 8"),
    ],
)
def test_bad_input_says_what_must_be_so(change, message):
    good = {"features": torch.randn(20, 4), "labels": torch.arange(20) % 5}
    with pytest.raises(ValueError, match=message):
        neural_collapse(**(good | change))


def test_what_is_no_tensor_is_told():
    for wrong in ({"features": [[1.0, 2.0]]}, {"labels": [0, 1]}):
        good = {"features": torch.randn(2, 2), "labels": torch.arange(2)}
        with pytest.raises(TypeError, match=r"must be a tensor, got list. .*torch\.as_tensor"):
            neural_collapse(**(good | wrong))


def test_bad_types():
    with pytest.raises(TypeError, match="integer class indices"):
        neural_collapse(torch.randn(4, 2), torch.zeros(4))
    with pytest.raises(TypeError, match="floating-point"):
        neural_collapse(torch.ones(4, 2, dtype=torch.long), torch.arange(4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_on_a_gpu():
    x, y, w, b = toy(7, 5000, 64, 12)
    there = neural_collapse(x.cuda(), y.cuda(), w.cuda(), b.cuda())
    assert there == pytest.approx(neural_collapse(x, y, w, b), rel=1e-4, abs=1e-3)
