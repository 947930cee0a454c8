"""Features of layers over a set, against passes by hand, and the skip connection that is built on them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nc_tools.models import CIFARResNet, ConvNet
from nc_tools.records import Batch
from nc_tools.transfer import SkipBackbone, layer_features


def backbone(seed=0):
    torch.manual_seed(seed)
    return ConvNet(1, 8, width=4)


def test_features_are_those_of_a_pass_by_hand():
    model = backbone().train()
    batches = [Batch(torch.randn(5, 1, 8, 8), torch.arange(5), torch.arange(5)) for _ in range(2)]
    features, labels = layer_features(model, batches, ["layers.3", "layers.4"])
    assert model.training
    model.eval()
    with torch.no_grad():
        inputs = torch.cat([b.inputs for b in batches])
        conv = model.layers[:4](inputs)
        normed = model.layers[4](conv)
        # The activation after the normalization writes in place: features must be from before.
        torch.testing.assert_close(features["layers.4"], normed.mean((2, 3)))
        torch.testing.assert_close(features["layers.3"], conv.mean((2, 3)))
        torch.testing.assert_close(features["features"], model(inputs))
    assert labels.tolist() == [0, 1, 2, 3, 4] * 2
    assert not model.layers[3]._forward_hooks


@pytest.mark.slow
def test_blocks_of_swin_have_their_widths_and_not_their_sides():
    import torchvision

    model = torchvision.models.swin_t(weights=None)
    model.head = nn.Identity()
    images = torch.randn(2, 3, 32, 64)
    features, _ = layer_features(model, [Batch(images, torch.arange(2), torch.arange(2))])
    assert [values.shape[1] for values in features.values()] == [96, 96, 192, 192, 384, 384, 768, 768, 768]
    with torch.no_grad():
        torch.testing.assert_close(features["features.3"], model.eval().features[:4](images).mean((1, 2)))
        wrapped = SkipBackbone(copy.deepcopy(model), "features.3").eval()
        expected = model(images)
        expected[:, :192] += features["features.3"]
        torch.testing.assert_close(wrapped(images), expected)


def test_the_next_layer_may_write_into_the_output():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    batch = Batch(torch.randn(6, 4), torch.arange(6), torch.arange(6))
    features, _ = layer_features(model, [batch], ["0"])
    assert features["0"].min() < 0
    with torch.no_grad():
        torch.testing.assert_close(features["0"], model[0](batch.inputs))
    SkipBackbone(model, "0").train()(batch.inputs).sum().backward()
    assert model[0].weight.grad is not None


def test_the_last_call_of_a_layer_counts():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    batch = Batch(torch.randn(6, 4), torch.arange(6), torch.arange(6))
    features, _ = layer_features(model, [batch], ["0"])
    assert torch.equal(features["0"], features["features"])


def test_tokens_are_averaged_and_tuples_give_their_first():
    class Pair(nn.Module):
        def forward(self, x):
            return x, None

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, x):
            return self.pair(x)[0][:, 0]

    tokens = torch.arange(12.0).view(1, 3, 4)
    features, _ = layer_features(First(), [Batch(tokens, torch.zeros(1).long(), torch.zeros(1).long())], ["pair"])
    assert features["pair"].tolist() == [[4.0, 5.0, 6.0, 7.0]]


def test_layers_that_cannot_be_read_are_named():
    with pytest.raises(ValueError, match=r"ConvNet has no layer 'layers.33'; did you mean .*'layers\.3'"):
        SkipBackbone(backbone(), "layers.33")
    unused = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    unused.aside = nn.Linear(2, 2)
    unused.forward = lambda x: unused[1](unused[0](x))
    batch = Batch(torch.zeros(2, 4), torch.arange(2), torch.arange(2))
    with pytest.raises(ValueError, match="'aside' ran 0 times"):
        layer_features(unused, [batch], ["aside"])
    flat = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 4)))
    with pytest.raises(ValueError, match=r"'0' must give features \(2, C\) after pooling, got \(8,\)"):
        layer_features(flat, [batch], ["0"])
    with pytest.raises(ValueError, match="at least one sample"):
        layer_features(backbone(), [])


def test_the_skip_connection_adds_the_pooled_layer():
    model = backbone().eval()
    wrapped = SkipBackbone(copy.deepcopy(model), "layers.3").eval()
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        layer = model.layers[:4](images).mean((2, 3))
        expected = model(images)
        expected[:, :8] += layer
        torch.testing.assert_close(wrapped(images), expected)
        torch.testing.assert_close(copy.deepcopy(wrapped)(images), expected)


def test_a_layer_wider_than_the_features_widens_them():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    wrapped = SkipBackbone(copy.deepcopy(model), "0")
    x = torch.randn(3, 4)
    with torch.no_grad():
        expected = model[0](x)
        expected[:, :2] += model(x)
        torch.testing.assert_close(wrapped(x), expected)


def test_all_but_the_layer_stays_in_eval_mode():
    wrapped = SkipBackbone(CIFARResNet(8), "layers.4")
    wrapped.train()
    wrapped(torch.zeros(2, 3, 8, 8))
    modes = {name for name, module in wrapped.backbone.named_modules() if module.training}
    assert modes == {name for name, _ in wrapped.backbone.named_modules() if name.startswith("layers.4")}
    assert wrapped.training
    wrapped.eval()
    assert not any(module.training for module in wrapped.modules())
