"""Minority collapse, SELI, dilation and subgroups against loops in float64 and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.collapse_samples import cosine, draw_classes, means_of, simplex

from nc_tools.metrics import (
    cosine_collapse,
    dilation,
    hyperspherical_uniformity,
    minority_collapse,
    neural_collapse,
    outlier_orthogonality,
    seli_distance,
    seli_geometry,
    subgroup_collapse,
    uniform_duality,
    variability_collapse_index,
)


class TestMinority:
    def test_equals_the_loops(self):
        _, _, w = draw_classes(5, k=7, d=5)
        counts = [90, 5, 40, 5, 300, 70, 8]
        rare, common = [1, 3], [4, 0, 5, 2, 6]
        values = minority_collapse(w, counts)
        norm = [math.sqrt(float(row @ row)) for row in w]
        one = cosine(w[1].tolist(), w[3].tolist())
        pairs = [cosine(w[i].tolist(), w[j].tolist()) for i in common for j in common if i != j]
        cross = [cosine(w[i].tolist(), w[j].tolist()) for i in common for j in rare]
        expected = {
            "minority_cosine": one,
            "minority_cosine_max": one,
            "minority_angle_min": math.degrees(math.acos(one)),
            "majority_cosine": np.mean(pairs),
            "cross_cosine": np.mean(cross),
            "minority_norm_ratio": np.mean([norm[i] for i in rare]) / np.mean([norm[i] for i in common]),
        }
        assert values == pytest.approx(expected)
        assert minority_collapse(w, counts, 4)["minority_cosine_max"] >= one

    def test_a_simplex_has_none(self):
        values = minority_collapse(simplex(6, 8), [9, 8, 7, 3, 2, 1])
        assert values["minority_cosine_max"] == pytest.approx(-0.2)
        assert values["minority_norm_ratio"] == pytest.approx(1)
        assert values["cross_cosine"] == pytest.approx(-0.2)

    def test_merged_rows(self):
        rows = simplex(6, 8).clone()
        rows[4:] = rows[4:].mean(0)
        values = minority_collapse(rows, [9, 8, 7, 3, 2, 1])
        assert values["minority_cosine_max"] == pytest.approx(1)
        assert values["minority_angle_min"] == pytest.approx(0, abs=1e-4)

    def test_what_is_not_defined(self):
        assert minority_collapse(torch.eye(5), [3] * 5) == {}
        assert minority_collapse(torch.eye(2), [3, 1]) == {}
        with pytest.raises(ValueError, match="between 2 and K - 1 = 4"):
            minority_collapse(torch.eye(5), [5, 4, 3, 2, 1], 5)
        with pytest.raises(ValueError, match="each of 5 rows"):
            minority_collapse(torch.eye(5), [1, 2])


class TestSELI:
    @pytest.mark.parametrize(
        ("ratio", "majority", "minority", "cross", "norms"),
        [(10, -0.4590, 0.0794, -0.3821, 0.7079), (100, -0.4757, 0.5607, -0.4523, 0.5796)],
    )
    def test_the_published_geometry_of_two_rare_classes_of_four(self, ratio, majority, minority, cross, norms):
        gram = seli_geometry([ratio, ratio, 1, 1]).weight_gram
        length = gram.diagonal().sqrt()
        cosine = gram / length[:, None] / length
        values = [cosine[0, 1], cosine[2, 3], cosine[0, 2], length[2] / length[0]]
        assert [float(value) for value in values] == pytest.approx([majority, minority, cross, norms], abs=6e-5)

    def test_equals_the_singular_value_decomposition_of_the_labels(self):
        counts = [7, 3, 2, 5]
        y = np.repeat(np.arange(4), counts)
        encoded = np.eye(4)[:, y] - 1 / 4
        left, singular, right = np.linalg.svd(encoded, full_matrices=False)
        left, singular, right = left[:, :3], singular[:3], right[:3]
        features = np.sqrt(singular)[:, None] * right
        means = np.stack([features[:, y == k].mean(1) for k in range(4)])
        values = seli_geometry(counts)
        np.testing.assert_allclose(values.weight_gram, left * singular @ left.T, atol=1e-12)
        np.testing.assert_allclose(values.mean_gram, means @ means.T, atol=1e-12)

    def test_distance_is_zero_there_and_positive_for_the_simplex(self):
        counts = [100, 100, 1, 1]
        gram = seli_geometry(counts).weight_gram
        values, vectors = torch.linalg.eigh(gram)
        rows = vectors * values.clamp(min=0).sqrt()
        turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
        distances = seli_distance(counts, weight=3 * rows @ turn)
        assert distances["seli_weight"] == pytest.approx(0, abs=1e-7)
        assert distances["etf_weight"] > 0.5
        other = seli_distance(counts, weight=simplex(4, 6))
        assert other["etf_weight"] == pytest.approx(0, abs=1e-7)
        assert other["seli_weight"] == pytest.approx(distances["etf_weight"])

    def test_balanced_is_the_simplex_and_agrees_with_the_gram_form_of_nc2(self):
        x, y, _ = draw_classes(6)
        values = seli_distance([5] * 4, means=means_of(x, y))
        assert values["seli_means"] == pytest.approx(values["etf_means"])
        assert values["etf_means"] == pytest.approx(neural_collapse(x, y)["nc2_gram"])

    def test_absent_classes_and_bad_input(self):
        assert torch.equal(seli_geometry([4, 0, 2]).weight_gram, seli_geometry([4, 2]).weight_gram)
        with pytest.raises(ValueError, match="weight=, means="):
            seli_distance([1, 2])
        with pytest.raises(ValueError, match="at least 2"):
            seli_geometry([3, 0])
        with pytest.raises(ValueError, match="each of 2 class counts"):
            seli_distance([1, 2], weight=torch.eye(3))


class TestDilation:
    def test_is_the_trace_ratio_under_true_labels(self):
        x, y, _ = draw_classes(7)
        assert dilation(x, y)["dilation"] == neural_collapse(x, y)["nc1_trace"]
        clean = means_of(x, y)[y] + 0.1 * (x - means_of(x, y)[y])
        assert dilation(x, y, reference=clean)["dilation_ratio"] == pytest.approx(100)

    def test_is_not_defined_for_constant_features(self):
        assert dilation(torch.ones(6, 2), torch.arange(3).repeat(2)) == {}


class TestSubgroups:
    def test_equals_the_loops(self):
        x, y, w = draw_classes(8, n=80)
        groups = torch.randint(0, 3, (80,), generator=torch.Generator().manual_seed(1))
        groups[:12] = torch.arange(12) // 4
        y[:12] = torch.arange(12) % 4
        means = means_of(x, y)
        between = float(((means - means.mean(0)) ** 2).sum(1).mean())
        values = subgroup_collapse(x, y, groups, w, names=["a", "b", "c"])
        shares = []
        for k in range(4):
            variance = float(((x[y == k] - means[k]) ** 2).sum(1).mean())
            moved = 0.0
            for g in range(3):
                rows = x[(y == k) & (groups == g)]
                moved += len(rows) / int((y == k).sum()) * float(((rows.mean(0) - means[k]) ** 2).sum())
            shares.append(moved / variance)
        assert values["subgroup_share"] == pytest.approx(np.mean(shares))
        for g, name in enumerate("abc"):
            spreads = [float(((x[(y == k) & (groups == g)] - means[k]) ** 2).sum(1).mean()) for k in range(4)]
            assert values[f"{name}/spread_about_class"] == pytest.approx(np.mean(spreads) / between)
            inside = neural_collapse(x[groups == g], y[groups == g], w, num_classes=4)
            assert {key: values[f"{name}/{key}"] for key in inside} == pytest.approx(inside)

    def test_a_subgroup_with_one_class_has_its_spread_alone(self):
        x, y, _ = draw_classes(9)
        groups = torch.zeros(60, dtype=torch.long)
        groups[(y == 0).nonzero()[:3]] = 1
        values = subgroup_collapse(x, y, groups)
        assert {key for key in values if key.startswith("1/")} == {"1/spread_about_class"}

    def test_bad_input(self):
        x, y, _ = draw_classes(9)
        with pytest.raises(ValueError, match=r"\[0, 2\), but 60"):
            subgroup_collapse(x, y, y * 0 + 5, names=["a", "b"])
        with pytest.raises(TypeError, match="integer"):
            subgroup_collapse(x, y, y.double())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), scale=st.floats(1e-2, 1e2), k=st.integers(3, 7))
def test_rotation_scale_and_order_change_nothing(seed, scale, k):
    x, y, w = draw_classes(seed, n=50, d=8, k=k)
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=generator))
    order = torch.randperm(50, generator=generator)
    counts = y.bincount()

    def everything(x, y, w):
        means = means_of(x, y)
        return {
            **hyperspherical_uniformity(means),
            **uniform_duality(means, w),
            **cosine_collapse(x, y),
            **variability_collapse_index(x, y),
            **minority_collapse(w, counts),
            **seli_distance(counts, weight=w, means=means),
            **subgroup_collapse(x, y, y * 0),
            **outlier_orthogonality(means, x[y == 0]),
        }

    before, after = everything(x, y, w), everything(scale * (x @ turn)[order], y[order], w @ turn)
    for values in (before, after):
        values.pop("0/nc0", None)
    assert after == pytest.approx(before, rel=1e-6, abs=1e-9)
