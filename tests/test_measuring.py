"""measure(model, loader) on models and loaders of every kind, against the two-pass form on collected features."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nc_tools
from nc_tools.heads import CosineHead, ETFHead
from nc_tools.measuring import measure_in_detail
from nc_tools.metrics import (
    cosine_collapse,
    hyperspherical_uniformity,
    minority_collapse,
    neural_collapse,
    seli_distance,
    uniform_duality,
    variability_collapse_index,
)
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch


def images(n=50, k=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(k), torch.randint(0, k, (n - k,), generator=generator)])
    return torch.randn(n, 3, 6, 6, generator=generator) + torch.randn(k, 3, 6, 6, generator=generator)[y], y


def network(k=4):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(8, k),
    )  # fmt: skip


def batches(x, y, *cuts):
    edges = [0, *cuts, len(x)]
    return [(x[i:j], y[i:j]) for i, j in pairwise(edges)]


def expected(x, y, weight, bias=None, logits=None):
    means = torch.stack([x[y == c].double().mean(0) for c in range(int(y.max()) + 1)])
    return {
        **neural_collapse(x, y, weight, bias if logits is None else None, logits=logits),
        **hyperspherical_uniformity(means),
        **uniform_duality(means, weight.detach()),
        **cosine_collapse(x, y),
        **variability_collapse_index(x, y),
    }


def with_group(values, group):
    return {key.removeprefix(f"{group}/"): value for key, value in values.items() if key.startswith(f"{group}/")}


@pytest.mark.parametrize("cuts", [(), (7, 20), tuple(range(1, 50))])
@pytest.mark.parametrize("keep_gb", [2.0, 0.0])
def test_any_batching_in_one_pass_or_two_is_the_two_pass_form(cuts, keep_gb):
    x, y = images()
    model = network()
    values = nc_tools.measure(model, batches(x, y, *cuts), keep_gb=keep_gb)
    model.eval()
    features = model[:-1](x).detach()
    assert with_group(values, "nc") == pytest.approx(expected(features, y, model[-1].weight, model[-1].bias), rel=2e-4)
    assert values["accuracy"] == pytest.approx(float((model(x).argmax(1) == y).float().mean()))


def test_layers_are_pooled_when_they_run_and_not_after_the_next_one_wrote_over_them():
    x, y = images()
    model = network()
    values = nc_tools.measure(model, batches(x, y, 20), layers=["1", "2", "4"], prefix="train")
    model.eval()
    normed = model[1](model[0](x)).detach()
    for name, features in (("1", normed.mean((2, 3))), ("2", normed.relu().mean((2, 3))), ("4", model[:5](x).detach())):
        of_group = with_group(values, f"train/layer/{name}")
        direct = neural_collapse(features, y, logits=model(x))
        assert {key: of_group[key] for key in direct if key in of_group} == pytest.approx(
            {key: direct[key] for key in direct if key in of_group}, rel=2e-4
        )
        assert {"nc1_pinv", "nc1_trace", "nc4_disagreement", "cosine_within"} <= set(of_group)
    assert with_group(values, "train/layer/4")["nc1_pinv"] == pytest.approx(values["train/nc/nc1_pinv"])


def test_a_layer_without_a_map_is_kept_as_it_was_too():
    x, y = images()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.ReLU(inplace=True), nn.Linear(8, 4))
    values = nc_tools.measure(model, batches(x, y, 20), layers=["1"])
    expected = neural_collapse(model[:2](x).detach(), y)["nc1_trace"]
    assert values["layer/1/nc1_trace"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("make", [lambda: CosineHead(8, 4), lambda: ETFHead(8, 4, projection=5)])
def test_our_heads_are_measured_before_and_behind_their_own_map(make):
    x, y = images()
    head = make()
    model = Classifier(network()[:-2], head)
    values = nc_tools.measure(model, batches(x, y, 30))
    model.eval()
    features = model.backbone(x).detach()
    embedded, logits = head.outputs(features).embedded.detach(), model(x).detach()
    of_group = with_group(values, "nc_embedded")
    assert of_group == pytest.approx(expected(embedded, y, head.weight, logits=logits), rel=5e-4, abs=1e-6)
    before = with_group(values, "nc")
    assert before["nc1_trace"] == pytest.approx(neural_collapse(features, y)["nc1_trace"], rel=1e-4)
    assert ("nc3_cosine" in before) == (head.weight.shape[1] == 8)


def test_clean_labels_and_class_counts_have_keys_of_their_own():
    x, clean = images()
    y = clean.clone()
    y[:10] = (y[:10] + 1) % 4
    counts = [20, 15, 10, 5]
    model = network()
    values = nc_tools.measure(model, batches(x, y, 13), clean=clean, class_counts=counts, layers=["0"])
    truly = nc_tools.measure(model, batches(x, clean))
    assert with_group(values, "nc_clean") == pytest.approx(with_group(truly, "nc"), rel=1e-4)
    assert values["accuracy_clean"] == truly["accuracy"]
    assert "layer/0_clean/nc1_trace" in values
    weight = model[-1].weight
    head = minority_collapse(weight, counts) | seli_distance(counts, weight=weight)
    assert with_group(values, "head") == pytest.approx(head)
    # Batches that say where their samples belong may come in any order.
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    shuffled = [Batch(x[part], y[part], part) for part in order.split(16)]
    again = nc_tools.measure(model, shuffled, clean=clean)
    assert with_group(again, "nc_clean") == pytest.approx(with_group(values, "nc_clean"), rel=1e-4)
    with pytest.raises(ValueError, match="got 10 labels and a sample at"):
        nc_tools.measure(model, batches(x, y), clean=clean[:10])


def test_a_data_loader_a_mapping_and_a_wrapped_model():
    x, y = images()
    model = network().train()
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    before = [module.training for module in model.modules()]
    statistics = model[1].running_mean.clone()
    plain = nc_tools.measure(model, loader)
    assert nc_tools.measure(nn.DataParallel(model), loader) == plain
    assert [module.training for module in model.modules()] == before
    assert torch.equal(model[1].running_mean, statistics)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, pixel_values):
            return {"logits": self.inner(pixel_values)}

    mapped = [{"pixel_values": x[:25], "labels": y[:25]}, {"pixel_values": x[25:], "labels": y[25:]}]
    assert nc_tools.measure(Named(), mapped) == pytest.approx(plain, rel=1e-4)


def test_the_measurement_holds_the_data_of_the_figures():
    x, y = images()
    measurement = measure_in_detail(network(6), batches(x, y, 20))  # two classes without a sample
    assert measurement.counts.tolist() == [*y.bincount().tolist(), 0, 0]
    assert float(measurement.spread[:4].mean()) == pytest.approx(measurement.values["nc/nc1_trace"])
    assert measurement.spread[4:].isnan().all()
    assert measurement.cosines.shape == (6, 6)
    assert measurement.cosines[4:].isnan().all()
    assert measurement.cosines[:4, :4].diagonal().tolist() == pytest.approx([1] * 4)


class TestExactFrames:
    """A linear model on points: the frame itself, and one break at a time."""

    frame = (torch.eye(5, dtype=torch.float64) - 1 / 5) * math.sqrt(5 / 4)
    y = torch.arange(5).repeat(4)

    def collapse_of(self, points, weight=None):
        model = nn.Sequential(nn.Identity(), nn.Linear(5, 5, bias=False)).double()
        model[1].weight.data.copy_(self.frame if weight is None else weight)
        return with_group(nc_tools.measure(model, batches(points, self.y, 9)), "nc")

    def test_all_is_zero(self):
        values = self.collapse_of(self.frame[self.y])
        ends = {"cosine_within": 1.0, "cosine_between": -0.25, "gnc2_energy": math.log(math.sqrt(4 / 10))}
        assert values == pytest.approx(dict.fromkeys(values, 0.0) | ends, abs=1e-7)

    def moved(self, points, weight=None):
        base, values = self.collapse_of(self.frame[self.y]), self.collapse_of(points, weight)
        return {key for key in values if abs(values[key] - base[key]) > 1e-6}

    def test_a_turned_head_moves_nc3_and_nc4(self):
        assert self.moved(self.frame[self.y], self.frame.roll(1, 0)) == {
            "nc3_distance", "nc3_cosine", "nc4_disagreement"}  # fmt: skip

    def test_noise_within_classes_moves_nc1_and_the_cosines(self):
        noise = 0.05 * torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        points = self.frame[self.y] + torch.cat([noise, -noise, noise, -noise])
        assert self.moved(points) == {
            "nc1_pinv", "nc1_trace", "nc1_pinv_pooled", "nc1_trace_pooled", "cdnv", "vci", "cosine_within",
            "cosine_between"}  # fmt: skip

    def test_a_longer_mean_moves_no_spread(self):
        scale = torch.ones(5, 1, dtype=torch.float64)
        scale[0] = 1.3
        moved = self.moved((self.frame * scale)[self.y])
        assert {"nc2_equinorm", "nc2_gram", "nc3_distance"} <= moved
        assert not moved & {"nc1_pinv", "nc1_trace", "cdnv", "vci", "nc0", "cosine_within"}


class TestLayers:
    def test_an_unknown_layer_offers_the_nearest(self):
        x, y = images()
        model = Classifier(network()[:-2], CosineHead(8, 4))
        with pytest.raises(ValueError, match=r"no layer 'backbon'; did you mean 'backbone"):
            nc_tools.measure(model, batches(x, y), layers=["backbon"])

    def test_a_layer_that_runs_twice_or_gives_no_features(self):
        x, y = images()
        shared = nn.ReLU()
        model = nn.Sequential(nn.Flatten(), shared, nn.Linear(108, 8), shared, nn.Linear(8, 4))
        with pytest.raises(ValueError, match="'1' ran 2 times"):
            nc_tools.measure(model, batches(x, y), layers=["1"])
        with pytest.raises(ValueError, match=r"'2' must give features \(50, C\) after pooling, got \(50, 2, 4\)"):
            nc_tools.measure(model, batches(x, y), layers=["2"], pool=lambda out: out.view(len(out), 2, -1))


class TestBadInput:
    def test_nothing_and_one_class_and_one_sample(self):
        x, y = images()
        with pytest.raises(ValueError, match="at least one sample, got none"):
            nc_tools.measure(network(), [])
        for few in (batches(x, y * 0), batches(x[:1], y[:1])):
            with pytest.raises(ValueError, match=r"head '6'.*at least 2 classes, got 1"):
                nc_tools.measure(network(), few)

    def test_more_classes_than_samples(self):
        x, y = images(n=6, k=4)
        values = nc_tools.measure(network(40), batches(x, y))
        assert "nc/nc1_pinv" in values

    def test_features_that_are_not_finite_are_counted_and_named(self):
        x, y = images()
        x[3], x[9, 0, 0, 0] = math.nan, math.inf
        with pytest.raises(ValueError, match=r"'6'.*2 samples hold NaN or inf"):
            nc_tools.measure(network(), batches(x, y, 5))

    def test_labels_out_of_range(self):
        x, y = images()
        with pytest.raises(ValueError, match=r"\[0, 3\), but \d+ of them"):
            nc_tools.measure(network(3), batches(x, y, 5))

    def test_constant_features(self):
        x, y = images()
        values = nc_tools.measure(network(), batches(torch.zeros_like(x), y, 5))
        assert set(with_group(values, "nc")) == {"nc0", "nc4_disagreement"}

    def test_what_a_loader_may_not_yield(self):
        with pytest.raises(TypeError, match="got Tensor"):
            nc_tools.measure(network(), [torch.zeros(2, 3, 6, 6)])
        with pytest.raises(TypeError, match=r"integer class indices .*, got torch.float32 of shape \(2, 3\)"):
            nc_tools.measure(network(), [(torch.zeros(2, 3, 6, 6), torch.ones(2, 3) / 3)])
        with pytest.raises(ValueError, match="iterated twice"):
            nc_tools.measure(network(), iter(batches(*images())), keep_gb=0.0)

    def test_an_iterator_is_enough_where_features_fit(self):
        x, y = images()
        model = network()
        assert nc_tools.measure(model, iter(batches(x, y, 9))) == nc_tools.measure(model, batches(x, y, 9))

    def test_a_loader_that_gives_other_images_the_second_time(self):
        x, y = images()

        class Augmenting:
            def __iter__(self):
                return iter([(x + torch.randn_like(x), y)])

        with pytest.raises(ValueError, match="Switch off augmentation"):
            nc_tools.measure(network(), Augmenting(), keep_gb=0.0)

    def test_a_model_without_logits_and_one_that_scores_tokens(self):
        x, y = images()
        with pytest.raises(ValueError, match="0"):
            nc_tools.measure(nn.Sequential(nn.Flatten(), nn.ReLU()), batches(x, y))
        tokens = nn.Sequential(nn.Flatten(2), nn.Linear(36, 4))

        class Last(nn.Module):
            def __init__(self):
                super().__init__()
                self.tokens = tokens

            def forward(self, images):
                return self.tokens(images)[:, -1]

        with pytest.raises(ValueError, match="one feature vector"):
            nc_tools.measure(Last(), batches(x, y), head="tokens.1")


@pytest.mark.slow
def test_the_package_has_measure_and_imports_torch_only_for_it():
    code = "import sys, nc_tools; assert 'torch' not in sys.modules; nc_tools.measure; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "measure" in nc_tools.__all__
