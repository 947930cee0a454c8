"""Neural collapse against loops in float64, closed forms, and features changed on purpose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.collapse_samples import draw_balanced, draw_classes_with_head, simplex

from nc_tools.metrics import neural_collapse


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


@pytest.mark.parametrize(("n", "d", "k"), [(40, 6, 4), (60, 3, 9), (50, 12, 12), (80, 5, 6), (30, 4, 2), (12, 30, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_loops(n, d, k, dtype):
    x, y, w, b = draw_classes_with_head(n + d, n, d, k)
    values = neural_collapse(x.to(dtype), y, w.to(dtype), b.to(dtype))
    expected = reference(x, y, w, b)
    assert values.keys() == expected.keys()
    # Far from collapse, means are often nearly singular: the tolerance is what float32 features determine.
    assert values == pytest.approx(expected, rel=2e-5 if dtype == torch.float32 else 1e-9)


def test_many_blocks_equal_one(monkeypatch):
    x, y, w, b = draw_classes_with_head(0, 1000, 6, 4)
    one, unbiased = neural_collapse(x, y, w, b), neural_collapse(x, y, w)
    monkeypatch.setattr("nc_tools.metrics.collapse.within_class._BLOCK_CPU", 1)
    monkeypatch.setattr("nc_tools.metrics.collapse.mean_geometry._GRAM_ENTRIES", 1)
    assert neural_collapse(x, y, w, b) == pytest.approx(one, rel=1e-6)
    monkeypatch.setattr("nc_tools.metrics.collapse.within_class._TABLE", 1)  # as with many classes: no K x K table
    assert neural_collapse(x, y, w, b) == pytest.approx(one, rel=1e-6)
    assert neural_collapse(x, y, w) == pytest.approx(unbiased, rel=1e-6)
    assert one["nc4_disagreement"] != unbiased["nc4_disagreement"]


def test_an_exact_simplex_frame_is_fully_collapsed():
    frame = simplex(7, 16)
    y = torch.arange(7).repeat(5)
    x = 3 * frame[y] + 2.0
    bias = -2 * frame.sum(dim=1)
    values = neural_collapse(x, y, frame, bias)
    assert values == pytest.approx(dict.fromkeys(values, 0.0), abs=1e-7)
    single = neural_collapse(x.float(), y, frame.float(), bias.float())
    assert single == pytest.approx(dict.fromkeys(values, 0.0), abs=1e-5)


class TestEachBreakMovesItsOwnMeasures:
    frame, y = simplex(6, 12), torch.arange(6).repeat(4)
    base = neural_collapse(frame[y], y, frame)

    def moved(self, x, weight=None, **kwargs) -> set[str]:
        values = neural_collapse(x, self.y, self.frame if weight is None else weight, **kwargs)
        return {key for key in values if abs(values[key] - self.base[key]) > 1e-6}

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
    x, y, w, _ = draw_classes_with_head(seed, 50, 8, k)
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
    values = neural_collapse(torch.tensor(rows, dtype=torch.float64), torch.tensor(labels))
    averaged = (0.01 + 0.04 + 0.09) / 3 / (2 / 3)
    share = [n / 20 for n in counts]
    mean = share[2] - share[0]
    between = sum(p * (c - 1 - mean) ** 2 for c, p in enumerate(share))
    pooled = (share[0] * 0.01 + share[1] * 0.04 + share[2] * 0.09) / between
    assert values["nc1_trace"] == pytest.approx(averaged)
    assert values["nc1_pinv"] == pytest.approx(averaged / 3)
    assert values["nc1_trace_pooled"] == pytest.approx(pooled)
    assert values["nc1_pinv_pooled"] == pytest.approx(pooled / 3)
    balanced = neural_collapse(*draw_balanced())
    assert balanced["nc1_pinv"] == pytest.approx(balanced["nc1_pinv_pooled"], rel=1e-6)
    assert balanced["nc1_trace"] == pytest.approx(balanced["nc1_trace_pooled"], rel=1e-6)


def test_repeating_a_class_moves_no_class_averaged_value():
    x, y, w, b = draw_classes_with_head(1, 60, 5, 4)
    again = torch.cat([x, x[y == 2], x[y == 2]]), torch.cat([y, y[y == 2], y[y == 2]])
    before, after = neural_collapse(x, y, w, b), neural_collapse(*again, w, b)
    for key in before:
        same = after[key] == pytest.approx(before[key], rel=1e-5)
        assert same == (not key.endswith("_pooled") and key != "nc4_disagreement"), key


def test_absent_classes_are_left_out_and_not_means_at_zero():
    x, y, w, b = draw_classes_with_head(2, 60, 5, 4)
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
    x, y, w, b = draw_classes_with_head(4, 200, 5, 6)
    assert neural_collapse(x, y, w, b) == pytest.approx(neural_collapse(x, y, w, logits=x @ w.T + b), rel=1e-6)
