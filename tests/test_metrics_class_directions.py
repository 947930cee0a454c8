"""Directions of class means and samples (uniformity, duality, NC5, cosines, VCI) against loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.collapse_samples import cosine, draw_classes, means_of, relative_deviation, simplex

from nc_tools.metrics import (
    cosine_collapse,
    hyperspherical_uniformity,
    neural_collapse,
    outlier_orthogonality,
    uniform_duality,
    variability_collapse_index,
)


class TestUniformity:
    @pytest.mark.parametrize(("k", "d"), [(4, 6), (7, 3), (2, 3)])
    def test_equals_the_loops(self, k, d):
        means = torch.randn(k, d, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        centered = (means - means.mean(0)).numpy()
        units = [row / math.sqrt(row @ row) for row in centered]
        energy = [-math.log(math.dist(units[i], units[j])) for i in range(k) for j in range(i)]
        values = hyperspherical_uniformity(means)
        assert values["gnc2_energy"] == pytest.approx(sum(energy) / len(energy))
        assert values["gnc2"] == pytest.approx(relative_deviation(energy), abs=1e-9)

    def test_a_simplex_is_perfectly_even(self):
        values = hyperspherical_uniformity(simplex(6, 9) * 3 + 2)
        assert values == pytest.approx({"gnc2": 0.0, "gnc2_energy": math.log(math.sqrt(5 / 12))}, abs=1e-9)

    def test_blocks_change_nothing(self, monkeypatch):
        means = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
        at_once = hyperspherical_uniformity(means)
        monkeypatch.setattr("nc_tools.metrics.collapse.mean_geometry._GRAM_ENTRIES", 1)
        assert hyperspherical_uniformity(means) == pytest.approx(at_once)

    def test_absent_classes_are_left_out(self):
        means = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        wide = torch.cat([means, torch.zeros(1, 4)])
        counts = torch.tensor([1, 2, 3, 4, 5, 0])
        assert hyperspherical_uniformity(wide, counts) == pytest.approx(hyperspherical_uniformity(means))

    def test_coinciding_classes_and_bad_input(self):
        assert hyperspherical_uniformity(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])) == {}
        assert hyperspherical_uniformity(torch.full((3, 4), 0.3)) == {}
        with pytest.raises(ValueError, match="at least 2 classes with samples, got 1"):
            hyperspherical_uniformity(torch.ones(3, 2), torch.tensor([0, 4, 0]))
        with pytest.raises(ValueError, match="1 of 3 hold NaN"):
            hyperspherical_uniformity(torch.tensor([[1.0], [math.nan], [2.0]]))
        with pytest.raises(ValueError, match=r"shape \(3,\)"):
            hyperspherical_uniformity(torch.ones(3, 2), torch.tensor([1, 1]))
        with pytest.raises(TypeError, match="floating-point"):
            hyperspherical_uniformity(torch.ones(3, 2, dtype=torch.long))


class TestDuality:
    def test_equals_the_loops(self):
        x, y, w = draw_classes(0)
        means = means_of(x, y)
        centered = means - means.mean(0)
        cosines = [cosine(w[k].tolist(), centered[k].tolist()) for k in range(4)]
        assert uniform_duality(means, w)["nc3_uniform"] == pytest.approx(relative_deviation(cosines))

    def test_is_blind_to_a_common_misalignment_and_sees_an_uneven_one(self):
        frame = simplex(5, 8)
        outside = torch.linalg.svd(frame).Vh[-1]
        assert uniform_duality(frame, frame + 0.7 * outside)["nc3_uniform"] == pytest.approx(0, abs=1e-9)
        uneven = frame.clone()
        uneven[0] += 2 * outside
        assert uniform_duality(frame, uneven)["nc3_uniform"] > 0.1

    def test_shapes(self):
        with pytest.raises(ValueError, match="shape of the class means"):
            uniform_duality(torch.eye(3), torch.eye(4))
        assert uniform_duality(torch.eye(3), torch.zeros(3, 3)) == {}


class TestOutliers:
    def test_equals_the_loops(self):
        x, y, _ = draw_classes(1)
        means, other = means_of(x, y), torch.randn(11, 6, dtype=torch.float64) + 0.3
        center = (sum(other) / 11).tolist()
        expected = sum(abs(cosine(row.tolist(), center)) for row in means) / 4
        assert outlier_orthogonality(means, other) == pytest.approx({"nc5": expected})

    def test_orthogonal_and_parallel(self):
        means = torch.eye(4)[:2]
        assert outlier_orthogonality(means, torch.eye(4)[2:] * 7)["nc5"] == 0.0
        assert outlier_orthogonality(torch.eye(4)[:1].repeat(2, 1), -torch.eye(4)[:1])["nc5"] == pytest.approx(1)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="M >= 1"):
            outlier_orthogonality(torch.eye(3), torch.zeros(0, 3))
        with pytest.raises(ValueError, match=r"\(M, 3\)"):
            outlier_orthogonality(torch.eye(3), torch.zeros(2, 4))
        with pytest.raises(ValueError, match="1 of 2 samples hold NaN"):
            outlier_orthogonality(torch.eye(2), torch.tensor([[math.inf, 0.0], [0.0, 1.0]]))


class TestCosines:
    def test_equals_pairs(self):
        x, y, _ = draw_classes(2, n=30)
        means = means_of(x, y)
        u = (x - means.mean(0)).tolist()
        n = len(u)
        within, between = [], []
        for k in range(4):
            own = [i for i in range(n) if y[i] == k]
            within.append(np.mean([cosine(u[i], u[j]) for i in own for j in own if i != j]))
            other_classes = [[j for j in range(n) if y[j] == m] for m in range(4) if m != k]
            between += [np.mean([cosine(u[i], u[j]) for i in own for j in other]) for other in other_classes]
        expected = {"cosine_within": np.mean(within), "cosine_between": np.mean(between)}
        assert cosine_collapse(x, y) == pytest.approx(expected)

    def test_a_collapsed_simplex_and_its_norms(self):
        y = torch.arange(5).repeat(4)
        scales = torch.rand(20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
        scales = (scales.view(4, 5) / scales.view(4, 5).mean(0)).view(20, 1)  # every class keeps its mean
        values = cosine_collapse(simplex(5, 7)[y] * scales, y)
        assert values == pytest.approx({"cosine_within": 1.0, "cosine_between": -0.25})

    def test_what_is_not_defined(self):
        assert "cosine_within" not in cosine_collapse(torch.eye(3), torch.arange(3))
        with pytest.raises(ValueError, match=r"\[0, 2\), but 3"):
            cosine_collapse(torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 2, 0]), 2)
        with pytest.raises(ValueError, match="at least one sample"):
            cosine_collapse(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


class TestVariability:
    def test_equals_the_pseudo_inverse(self):
        x, y, _ = draw_classes(3)
        within, between = np.zeros((6, 6)), np.zeros((6, 6))
        means = means_of(x, y).numpy()
        for k in range(4):
            rows = x[y == k].numpy() - means[k]
            within += sum(np.outer(r, r) for r in rows) / len(rows) / 4
            c = means[k] - means.mean(0)
            between += np.outer(c, c) / 4
        expected = 1 - np.trace(np.linalg.pinv(within + between) @ between) / 3
        assert variability_collapse_index(x, y)["vci"] == pytest.approx(expected)

    def test_no_linear_map_changes_it(self):
        x, y, _ = draw_classes(4)
        warp = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        before = variability_collapse_index(x, y)["vci"]
        assert 0 < before < 1
        assert variability_collapse_index(x @ warp + 3, y)["vci"] == pytest.approx(before, rel=1e-6)
        assert neural_collapse(x @ warp, y)["nc1_trace"] != pytest.approx(neural_collapse(x, y)["nc1_trace"], rel=0.01)

    def test_dead_features_are_no_directions(self):
        x, y, _ = draw_classes(4)
        wide = torch.cat([x, torch.zeros(60, 5)], dim=1)
        assert variability_collapse_index(wide, y) == pytest.approx(variability_collapse_index(x, y))

    @pytest.mark.parametrize(("k", "d"), [(4, 9), (9, 3)])
    def test_ends(self, k, d):
        y = torch.arange(k).repeat(3)
        means = torch.randn(k, d, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        assert variability_collapse_index(means[y], y)["vci"] == pytest.approx(0, abs=1e-9)
        assert variability_collapse_index(torch.ones(3 * k, d), y) == {}
        assert variability_collapse_index(means, torch.arange(k)) == {}
