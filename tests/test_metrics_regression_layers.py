"""Regression collapse, tag-wise averages, and measures of single layers, against loops, SVDs and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import nn

from nc_tools.metrics import (
    geometric_complexity,
    layer_alignment,
    moment_alignment,
    neural_collapse,
    regression_collapse,
    stable_rank,
    stable_ranks,
    tagwise_average,
)


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class TestRegression:
    def test_equals_projections_and_a_search(self):
        h, y, w = numbers(40, 6), numbers(40, 3, seed=1) @ numbers(3, 3, seed=2), numbers(3, 6, seed=3)
        result = regression_collapse(h, y, w)
        centered = h.numpy() - h.numpy().mean(0)
        main = np.linalg.svd(centered)[2][:3].T
        rows = np.linalg.qr(w.numpy().T)[0]
        outside = {"nrc1": [], "nrc2": []}
        for row in centered:
            unit = row / math.sqrt(row @ row)
            for name, basis in (("nrc1", main), ("nrc2", rows)):
                rest = unit - basis @ (basis.T @ unit)
                outside[name].append(rest @ rest)
        assert result["nrc1"] == pytest.approx(np.mean(outside["nrc1"]))
        assert result["nrc2"] == pytest.approx(np.mean(outside["nrc2"]))
        sigma = np.cov(y.numpy().T, bias=True)
        values, vectors = np.linalg.eigh(sigma)
        root = vectors * np.sqrt(values) @ vectors.T
        gram = (w @ w.T).numpy()

        def apart(gamma):
            ideal = root - math.sqrt(gamma) * np.eye(3)
            return ((gram / np.linalg.norm(gram) - ideal / np.linalg.norm(ideal)) ** 2).sum()

        best = scipy.optimize.minimize_scalar(apart, bounds=(0, values[0]), method="bounded")
        grid = min(apart(gamma) for gamma in np.linspace(0, values[0], 500))
        assert result["nrc3"] == pytest.approx(min(best.fun, grid), abs=1e-5)
        assert apart(result["nrc3_gamma"]) == pytest.approx(result["nrc3"])

    def test_finds_a_best_gamma_inside(self):
        y = numbers(50, 2) * torch.tensor([3.0, 1.0], dtype=torch.float64)
        sigma = np.cov(y.numpy().T, bias=True)
        values, vectors = np.linalg.eigh(sigma)
        gram = vectors * np.sqrt(values) @ vectors.T - 0.5 * math.sqrt(values[0]) * np.eye(2)
        root = torch.linalg.cholesky(torch.from_numpy(gram))
        result = regression_collapse(numbers(50, 2, seed=3), y, root)
        assert result["nrc3"] == pytest.approx(0, abs=1e-9)
        assert result["nrc3_gamma"] == pytest.approx(values[0] / 4)

    def test_a_collapsed_network_and_one_direction_too_many(self):
        y = numbers(30, 2)
        basis = torch.linalg.qr(numbers(7, 3))[0]
        w = y.T @ y @ basis[:, :2].T / 30
        result = regression_collapse(y @ basis[:, :2].T + 5, y, w)
        assert (result["nrc1"], result["nrc2"]) == pytest.approx((0, 0), abs=1e-9)
        spread = y @ basis[:, :2].T + numbers(30, 1, seed=4) @ basis[:, 2:].T
        assert regression_collapse(spread, y, w)["nrc2"] > 0.1

    def test_targets_that_do_not_vary_have_no_structure(self):
        result = regression_collapse(numbers(9, 3), torch.ones(9, 2), numbers(2, 3))
        assert set(result) == {"nrc1", "nrc2"}

    def test_one_target_has_no_angles(self):
        result = regression_collapse(numbers(9, 3), numbers(9), numbers(3))
        assert set(result) == {"nrc1", "nrc2"}

    def test_white_targets_leave_gamma_open(self):
        y = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        result = regression_collapse(numbers(4, 2), y, torch.eye(2))
        assert result["nrc3"] == pytest.approx(0, abs=1e-9)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="targets x features"):
            regression_collapse(numbers(5, 3), numbers(5, 2), numbers(3, 2))
        with pytest.raises(ValueError, match="equally many samples, at least 2, got 5 and 4"):
            regression_collapse(numbers(5, 3), numbers(4, 2), numbers(2, 3))
        with pytest.raises(ValueError, match="targets must be finite, but 1 of 3"):
            regression_collapse(numbers(3, 2), torch.tensor([0.0, math.nan, 1.0]), numbers(2))
        with pytest.raises(TypeError, match="weight must be floating"):
            regression_collapse(numbers(3, 2), numbers(3), torch.ones(2, dtype=torch.long))
        assert regression_collapse(torch.ones(4, 2), numbers(4, 1), numbers(1, 2)).get("nrc1") is None


class TestTags:
    def test_equals_the_loops(self):
        tags = (
            torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]]).repeat(4, 1) > 0
        )
        h = numbers(28, 5)
        sets = sorted({tuple(row) for row in tags.tolist()})
        mean = {s: h[[tuple(row) == s for row in tags.tolist()]].mean(0).numpy() for s in sets}
        single = {s.index(True): mean[s] for s in sets if sum(s) == 1}
        center = sum(single.values()) / 3
        several = [s for s in sets if sum(s) > 1]
        sums = {s: sum(single[k] - center for k in range(3) if s[k]) for s in several}

        def angle(a, b):
            return math.degrees(math.acos(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b)))

        own = [angle(mean[s] - center, sums[s]) for s in several if sum(s) == 2]
        other = [angle(mean[s] - center, sums[t]) for s in several for t in several if s != t and sum(s) == sum(t)]
        # The three tags together sum to the center: an angle of rounding error, so that set is left to itself.
        result = tagwise_average(h[tags.sum(1) < 3], tags[tags.sum(1) < 3])
        assert result["tag_angle"] == pytest.approx(np.mean(own))
        assert result["tag_angle_other"] == pytest.approx(np.mean(other))
        assert result["tag_average"] == pytest.approx(np.mean(own) / np.mean(other))
        member = torch.tensor([sets.index(tuple(row)) for row in tags.tolist()])
        assert tagwise_average(h, tags)["tagset_nc1_trace"] == pytest.approx(neural_collapse(h, member)["nc1_trace"])

    def test_collapsed_whatever_the_common_offset(self):
        single = numbers(4, 6)
        pairs = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]]) > 0
        center = single.mean(0)
        several = center + 1.7 * (pairs.double() @ (single - center))
        tags = torch.cat([torch.eye(4) > 0, pairs])
        result = tagwise_average(torch.cat([single, several]) + 3, tags)
        assert result["tag_average"] == pytest.approx(0, abs=1e-5)
        assert result["tag_angle_other"] > 20

    def test_sets_with_a_tag_that_is_never_alone_are_left_out(self):
        tags = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 1]]) > 0
        x = numbers(4, 3)
        assert tagwise_average(x, tags)["tag_angle"] == tagwise_average(x[:3], tags[:3])["tag_angle"]
        assert "tag_average" not in tagwise_average(x, tags)  # nothing to compare with

    def test_bad_input(self):
        with pytest.raises(TypeError, match="bool"):
            tagwise_average(numbers(3, 2), torch.eye(3))
        with pytest.raises(ValueError, match="at least two tags"):
            tagwise_average(numbers(2, 2), torch.ones(2, 3) > 0)
        with pytest.raises(ValueError, match="must fit"):
            tagwise_average(numbers(2, 2), torch.ones(3, 3) > 0)
        with pytest.raises(ValueError, match="1 of 2 samples hold NaN"):
            tagwise_average(torch.tensor([[math.nan], [0.0]]), torch.eye(2) > 0)


class TestGeometricComplexity:
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)).double()

    def test_equals_the_jacobian(self):
        x = numbers(7, 5)
        self.net.eval()
        squares = [float(torch.func.jacrev(self.net)(row).detach().square().sum()) for row in x]
        result = geometric_complexity(self.net.train(), x)
        assert result.value == pytest.approx(np.mean(squares))
        assert result.standard_error == pytest.approx(np.std(squares, ddof=1) / math.sqrt(7))
        assert result.exact
        assert self.net[2].training

    def test_the_estimate_is_unbiased(self):
        x = numbers(400, 5)
        exact = geometric_complexity(self.net, x)
        result = geometric_complexity(self.net, x, probes=8, generator=torch.Generator().manual_seed(0))
        assert not result.exact
        assert result.value == pytest.approx(exact.value, rel=0.03)
        again = geometric_complexity(self.net, x, probes=8, generator=torch.Generator().manual_seed(0))
        assert again == result

    def test_parameters_and_inputs_are_left_alone(self):
        x = numbers(3, 5)
        with torch.no_grad():
            geometric_complexity(self.net, x)
        assert not x.requires_grad
        assert all(p.grad is None for p in self.net.parameters())

    def test_bad_input(self):
        with pytest.raises(ValueError, match="probes must be at least 1"):
            geometric_complexity(self.net, numbers(2, 5), probes=0)
        with pytest.raises(ValueError, match="at least one sample"):
            geometric_complexity(self.net, numbers(0, 5))
        with pytest.raises(ValueError, match=r"outputs of shape \(2, K\)"):
            geometric_complexity(lambda x: x.sum(), numbers(2, 5))
        with pytest.raises(TypeError, match="floating-point for gradients"):
            geometric_complexity(self.net, torch.ones(2, 5, dtype=torch.uint8))
        with pytest.raises(ValueError, match="1 of 2 samples hold NaN"):
            geometric_complexity(torch.sqrt, torch.tensor([[0.0], [1.0]]))


class TestStableRank:
    @pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
    def test_equals_singular_values(self, shape):
        matrix = numbers(*shape)
        singular = np.linalg.svd(matrix.numpy(), compute_uv=False)
        assert stable_rank(matrix) == pytest.approx((singular**2).sum() / singular[0] ** 2)
        assert stable_rank(torch.eye(6)) == pytest.approx(6)
        assert stable_rank(numbers(5, 1) @ numbers(1, 4)) == pytest.approx(1)

    def test_layers_of_a_model(self):
        from nc_tools.heads import ETFHead

        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Embedding(3, 3), ETFHead(8, 5))
        result = stable_ranks(model)
        assert list(result) == ["0", "3"]
        assert result["0"] == pytest.approx(stable_rank(model[0].weight.flatten(1)))
        assert result["3"] == pytest.approx(4)  # a simplex of five has four equal directions

    def test_bad_input(self):
        with pytest.raises(ValueError, match="no layer with a weight"):
            stable_ranks(nn.ReLU())
        with pytest.raises(ValueError, match="zeros"):
            stable_rank(torch.zeros(2, 2))
        with pytest.raises(ValueError, match="a matrix, got"):
            stable_rank(torch.zeros(2))
        layer = nn.Linear(2, 2)
        layer.weight.data[0, 0] = math.nan
        with pytest.raises(ValueError, match=r"layer '': .*NaN"):
            stable_ranks(layer)


class TestAlignment:
    def test_equals_the_loops(self):
        a, g, w = numbers(20, 4), numbers(20, 3, seed=1), numbers(3, 4, seed=2)
        an, gn, wn = a.numpy(), g.numpy(), w.numpy()
        sides = {
            "before": (
                sum(np.outer(r, r) for r in an) / 20,
                sum(np.outer(wn.T @ r, wn.T @ r) for r in gn) / 20,
                wn.T @ wn,
            ),
            "after": (
                sum(np.outer(wn @ r, wn @ r) for r in an) / 20,
                sum(np.outer(r, r) for r in gn) / 20,
                wn @ wn.T,
            ),
        }
        result = moment_alignment(a, g, w)
        names = ("feature", "gradient", "weight")
        for side, matrices in sides.items():
            for i, j in ((0, 1), (0, 2), (1, 2)):
                one, two = matrices[i], matrices[j]
                expected = np.trace(one @ two) / np.linalg.norm(one) / np.linalg.norm(two)
                assert result.pop(f"{side}/{names[i]}_{names[j]}") == pytest.approx(expected)
        assert result == {}

    def test_layers_equal_gradients_taken_sample_by_sample(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double().train()
        x, y = numbers(9, 4), torch.arange(9) % 3
        hidden = net[1](net[0](x)).detach()
        slopes = torch.softmax(net(x), 1).detach() - nn.functional.one_hot(y, 3)
        expected = moment_alignment(hidden, slopes, net[2].weight)
        result = layer_alignment(net, x, y, ["2"])
        assert result == pytest.approx({f"2/{key}": value for key, value in expected.items()})
        for parameter in net.parameters():
            parameter.requires_grad_(requires_grad=False)
        assert layer_alignment(net, x, y, ["2"]) == pytest.approx(result)
        assert len(layer_alignment(net, x, y)) == 12
        assert net.training
        assert all(parameter.grad is None for parameter in net.parameters())

    def test_unknown_and_repeated_layers(self):
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        with pytest.raises(ValueError, match=r"no linear layer '2'; it must be one of 0, 1"):
            layer_alignment(net, torch.randn(2, 4), torch.tensor([0, 1]), ["2"])
        shared = nn.Linear(4, 4)
        with pytest.raises(ValueError, match="'0' ran 2 times"):
            layer_alignment(nn.Sequential(shared, shared), torch.randn(2, 4), torch.tensor([0, 1]), ["0"])

    def test_one_sample_has_moments_of_rank_one(self):
        a, g = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
        values = moment_alignment(a, g, g.T @ a)
        assert list(values.values()) == pytest.approx([1.0] * 6)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="must fit"):
            moment_alignment(numbers(3, 2), numbers(3, 2), numbers(3, 2))
        with pytest.raises(ValueError, match="gradients must be finite, but 1 of 2"):
            moment_alignment(torch.eye(2), torch.tensor([[1.0, math.nan], [0.0, 1.0]]), torch.eye(2))
