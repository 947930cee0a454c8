"""The measures beside NC0 to NC4, each against loops over samples in float64 or a closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


def toy(seed, n=60, d=6, k=4, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(k), torch.arange(k), torch.randint(0, k, (n - 2 * k,), generator=generator)])
    means = torch.randn(k, d, generator=generator) + 0.5
    x = means[y] + spread * torch.randn(n, d, generator=generator)
    return x.double(), y, torch.randn(k, d, generator=generator).double()


def simplex(k: int, d: int) -> torch.Tensor:
    frame = torch.eye(k, dtype=torch.float64) - 1 / k
    rotation, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(9)))
    return frame @ rotation[:k] * math.sqrt(k / (k - 1))


def means_of(x, y):
    return torch.stack([x[y == c].mean(0) for c in range(int(y.max()) + 1)])


def cos(a, b):
    return float(sum(p * q for p, q in zip(a, b, strict=True))) / math.sqrt(
        float(sum(p * p for p in a)) * float(sum(q * q for q in b))
    )


def deviation(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)) / abs(mean)


class TestUniformity:
    @pytest.mark.parametrize(("k", "d"), [(4, 6), (7, 3), (2, 3)])
    def test_equals_the_loops(self, k, d):
        means = torch.randn(k, d, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        centered = (means - means.mean(0)).numpy()
        units = [row / math.sqrt(row @ row) for row in centered]
        energy = [-math.log(math.dist(units[i], units[j])) for i in range(k) for j in range(i)]
        found = hyperspherical_uniformity(means)
        assert found["gnc2_energy"] == pytest.approx(sum(energy) / len(energy))
        assert found["gnc2"] == pytest.approx(deviation(energy), abs=1e-9)

    def test_a_simplex_is_perfectly_even(self):
        found = hyperspherical_uniformity(simplex(6, 9) * 3 + 2)
        assert found == pytest.approx({"gnc2": 0.0, "gnc2_energy": math.log(math.sqrt(5 / 12))}, abs=1e-9)

    def test_blocks_change_nothing(self, monkeypatch):
        means = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
        whole = hyperspherical_uniformity(means)
        monkeypatch.setattr("nc_tools.metrics.collapse.mean_geometry._GRAM_ENTRIES", 1)
        assert hyperspherical_uniformity(means) == pytest.approx(whole)

    def test_absent_classes_are_left_out(self):
        means = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        wide = torch.cat([means, torch.zeros(1, 4)])
        counts = torch.tensor([1, 2, 3, 4, 5, 0])
        assert hyperspherical_uniformity(wide, counts) == pytest.approx(hyperspherical_uniformity(means))

    def test_coinciding_classes_and_bad_input(self):
        assert hyperspherical_uniformity(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])) == {}
        assert hyperspherical_uniformity(torch.full((3, 4), 0.3)) == {}
        with pytest.raises(ValueError, match="at least 2, got 1"):
            hyperspherical_uniformity(torch.ones(3, 2), torch.tensor([0, 4, 0]))
        with pytest.raises(ValueError, match="1 of 3 hold NaN"):
            hyperspherical_uniformity(torch.tensor([[1.0], [math.nan], [2.0]]))
        with pytest.raises(ValueError, match="3 numbers"):
            hyperspherical_uniformity(torch.ones(3, 2), torch.tensor([1, 1]))
        with pytest.raises(TypeError, match="floating-point"):
            hyperspherical_uniformity(torch.ones(3, 2, dtype=torch.long))


class TestDuality:
    def test_equals_the_loops(self):
        x, y, w = toy(0)
        means = means_of(x, y)
        centered = means - means.mean(0)
        cosines = [cos(w[k].tolist(), centered[k].tolist()) for k in range(4)]
        assert uniform_duality(means, w)["nc3_uniform"] == pytest.approx(deviation(cosines))

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
        x, y, _ = toy(1)
        means, other = means_of(x, y), torch.randn(11, 6, dtype=torch.float64) + 0.3
        center = (sum(other) / 11).tolist()
        expected = sum(abs(cos(row.tolist(), center)) for row in means) / 4
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
        with pytest.raises(ValueError, match="1 of 2 hold NaN"):
            outlier_orthogonality(torch.eye(2), torch.tensor([[math.inf, 0.0], [0.0, 1.0]]))


class TestCosines:
    def test_equals_pairs(self):
        x, y, _ = toy(2, n=30)
        means = means_of(x, y)
        u = (x - means.mean(0)).tolist()
        n = len(u)
        within, between = [], []
        for k in range(4):
            own = [i for i in range(n) if y[i] == k]
            within.append(np.mean([cos(u[i], u[j]) for i in own for j in own if i != j]))
            others = [[j for j in range(n) if y[j] == m] for m in range(4) if m != k]
            between += [np.mean([cos(u[i], u[j]) for i in own for j in other]) for other in others]
        expected = {"cosine_within": np.mean(within), "cosine_between": np.mean(between)}
        assert cosine_collapse(x, y) == pytest.approx(expected)

    def test_a_collapsed_simplex_and_its_norms(self):
        y = torch.arange(5).repeat(4)
        scales = torch.rand(20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
        scales = (scales.view(4, 5) / scales.view(4, 5).mean(0)).view(20, 1)  # every class keeps its mean
        found = cosine_collapse(simplex(5, 7)[y] * scales, y)
        assert found == pytest.approx({"cosine_within": 1.0, "cosine_between": -0.25})

    def test_what_is_not_defined(self):
        assert "cosine_within" not in cosine_collapse(torch.eye(3), torch.arange(3))
        with pytest.raises(ValueError, match=r"\[0, 2\), but 3"):
            cosine_collapse(torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 2, 0]), 2)
        with pytest.raises(ValueError, match="at least one sample"):
            cosine_collapse(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


class TestVariability:
    def test_equals_the_pseudo_inverse(self):
        x, y, _ = toy(3)
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
        x, y, _ = toy(4)
        warp = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        before = variability_collapse_index(x, y)["vci"]
        assert 0 < before < 1
        assert variability_collapse_index(x @ warp + 3, y)["vci"] == pytest.approx(before, rel=1e-6)
        assert neural_collapse(x @ warp, y)["nc1_trace"] != pytest.approx(neural_collapse(x, y)["nc1_trace"], rel=0.01)

    def test_dead_features_are_no_directions(self):
        x, y, _ = toy(4)
        wide = torch.cat([x, torch.zeros(60, 5)], dim=1)
        assert variability_collapse_index(wide, y) == pytest.approx(variability_collapse_index(x, y))

    @pytest.mark.parametrize(("k", "d"), [(4, 9), (9, 3)])
    def test_ends(self, k, d):
        y = torch.arange(k).repeat(3)
        means = torch.randn(k, d, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        assert variability_collapse_index(means[y], y)["vci"] == pytest.approx(0, abs=1e-9)
        assert variability_collapse_index(torch.ones(3 * k, d), y) == {}
        assert variability_collapse_index(means, torch.arange(k)) == {}


class TestMinority:
    def test_equals_the_loops(self):
        _, _, w = toy(5, k=7, d=5)
        counts = [90, 5, 40, 5, 300, 70, 8]
        rare, common = [1, 3], [4, 0, 5, 2, 6]
        found = minority_collapse(w, counts)
        norm = [math.sqrt(float(row @ row)) for row in w]
        one = cos(w[1].tolist(), w[3].tolist())
        pairs = [cos(w[i].tolist(), w[j].tolist()) for i in common for j in common if i != j]
        cross = [cos(w[i].tolist(), w[j].tolist()) for i in common for j in rare]
        expected = {
            "minority_cosine": one,
            "minority_cosine_max": one,
            "minority_angle_min": math.degrees(math.acos(one)),
            "majority_cosine": np.mean(pairs),
            "cross_cosine": np.mean(cross),
            "minority_norm_ratio": np.mean([norm[i] for i in rare]) / np.mean([norm[i] for i in common]),
        }
        assert found == pytest.approx(expected)
        assert minority_collapse(w, counts, 4)["minority_cosine_max"] >= one

    def test_a_simplex_has_none(self):
        found = minority_collapse(simplex(6, 8), [9, 8, 7, 3, 2, 1])
        assert found["minority_cosine_max"] == pytest.approx(-0.2)
        assert found["minority_norm_ratio"] == pytest.approx(1)
        assert found["cross_cosine"] == pytest.approx(-0.2)

    def test_merged_rows(self):
        rows = simplex(6, 8).clone()
        rows[4:] = rows[4:].mean(0)
        found = minority_collapse(rows, [9, 8, 7, 3, 2, 1])
        assert found["minority_cosine_max"] == pytest.approx(1)
        assert found["minority_angle_min"] == pytest.approx(0, abs=1e-4)

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
        found = [cosine[0, 1], cosine[2, 3], cosine[0, 2], length[2] / length[0]]
        assert [float(value) for value in found] == pytest.approx([majority, minority, cross, norms], abs=6e-5)

    def test_equals_the_singular_value_decomposition_of_the_labels(self):
        counts = [7, 3, 2, 5]
        y = np.repeat(np.arange(4), counts)
        encoded = np.eye(4)[:, y] - 1 / 4
        left, singular, right = np.linalg.svd(encoded, full_matrices=False)
        left, singular, right = left[:, :3], singular[:3], right[:3]
        features = np.sqrt(singular)[:, None] * right
        means = np.stack([features[:, y == k].mean(1) for k in range(4)])
        found = seli_geometry(counts)
        np.testing.assert_allclose(found.weight_gram, left * singular @ left.T, atol=1e-12)
        np.testing.assert_allclose(found.mean_gram, means @ means.T, atol=1e-12)

    def test_distance_is_zero_there_and_tells_the_simplex_from_it(self):
        counts = [100, 100, 1, 1]
        gram = seli_geometry(counts).weight_gram
        values, vectors = torch.linalg.eigh(gram)
        rows = vectors * values.clamp(min=0).sqrt()
        turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
        found = seli_distance(counts, weight=3 * rows @ turn)
        assert found["seli_weight"] == pytest.approx(0, abs=1e-7)
        assert found["etf_weight"] > 0.5
        other = seli_distance(counts, weight=simplex(4, 6))
        assert other["etf_weight"] == pytest.approx(0, abs=1e-7)
        assert other["seli_weight"] == pytest.approx(found["etf_weight"])

    def test_balanced_is_the_simplex_and_agrees_with_the_gram_form_of_nc2(self):
        x, y, _ = toy(6)
        found = seli_distance([5] * 4, means=means_of(x, y))
        assert found["seli_means"] == pytest.approx(found["etf_means"])
        assert found["etf_means"] == pytest.approx(neural_collapse(x, y)["nc2_gram"])

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
        x, y, _ = toy(7)
        assert dilation(x, y)["dilation"] == neural_collapse(x, y)["nc1_trace"]
        clean = means_of(x, y)[y] + 0.1 * (x - means_of(x, y)[y])
        assert dilation(x, y, reference=clean)["dilation_ratio"] == pytest.approx(100)

    def test_is_not_defined_for_constant_features(self):
        assert dilation(torch.ones(6, 2), torch.arange(3).repeat(2)) == {}


class TestSubgroups:
    def test_equals_the_loops(self):
        x, y, w = toy(8, n=80)
        groups = torch.randint(0, 3, (80,), generator=torch.Generator().manual_seed(1))
        groups[:12] = torch.arange(12) // 4
        y[:12] = torch.arange(12) % 4
        means = means_of(x, y)
        between = float(((means - means.mean(0)) ** 2).sum(1).mean())
        found = subgroup_collapse(x, y, groups, w, names=["a", "b", "c"])
        shares = []
        for k in range(4):
            variance = float(((x[y == k] - means[k]) ** 2).sum(1).mean())
            moved = 0.0
            for g in range(3):
                rows = x[(y == k) & (groups == g)]
                moved += len(rows) / int((y == k).sum()) * float(((rows.mean(0) - means[k]) ** 2).sum())
            shares.append(moved / variance)
        assert found["subgroup_share"] == pytest.approx(np.mean(shares))
        for g, name in enumerate("abc"):
            spreads = [float(((x[(y == k) & (groups == g)] - means[k]) ** 2).sum(1).mean()) for k in range(4)]
            assert found[f"{name}/spread_about_class"] == pytest.approx(np.mean(spreads) / between)
            inside = neural_collapse(x[groups == g], y[groups == g], w, num_classes=4)
            assert {key: found[f"{name}/{key}"] for key in inside} == pytest.approx(inside)

    def test_a_subgroup_with_one_class_has_its_spread_alone(self):
        x, y, _ = toy(9)
        groups = torch.zeros(60, dtype=torch.long)
        groups[(y == 0).nonzero()[:3]] = 1
        found = subgroup_collapse(x, y, groups)
        assert {key for key in found if key.startswith("1/")} == {"1/spread_about_class"}

    def test_bad_input(self):
        x, y, _ = toy(9)
        with pytest.raises(ValueError, match=r"\[0, 2\), but 60"):
            subgroup_collapse(x, y, y * 0 + 5, names=["a", "b"])
        with pytest.raises(TypeError, match="integer"):
            subgroup_collapse(x, y, y.double())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), scale=st.floats(1e-2, 1e2), k=st.integers(3, 7))
def test_rotation_scale_and_order_change_nothing(seed, scale, k):
    x, y, w = toy(seed, n=50, d=8, k=k)
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
    for told in (before, after):
        told.pop("0/nc0", None)
    assert after == pytest.approx(before, rel=1e-6, abs=1e-9)
