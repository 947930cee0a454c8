"""Layers of any model: the axis of the channels, pooling, and what hooks collect."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nc_tools.surgery import backbone_blocks, candidate_layers, channel_axes, default_layers, pooled
from nc_tools.surgery.channel_axis import ChannelTracker
from nc_tools.surgery.layers import captured_features, features_of, layer_pools


def torchvision_model(name):
    import torchvision

    with torch.device("meta"):  # shapes are enough
        return torchvision.models.get_model(name, weights=None)


def timm_model(name):
    import timm

    with torch.device("meta"):
        return timm.create_model(name)


def shapes_of(model, *size):
    shapes = {}

    def note(name):
        def hook(_module, _arguments, output):
            if isinstance(output, torch.Tensor):
                shapes[name] = tuple(output.shape)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    with torch.no_grad():
        model.eval()(torch.zeros(2, 3, *size, device="meta"))
    for handle in handles:
        handle.remove()
    return shapes


def axes_of(model, *size):
    names = [name for name, _ in model.named_modules() if name]
    return channel_axes(model, torch.zeros(2, 3, *size, device="meta"), names)


ANY_SIZE = [
    (torchvision_model, "resnet18"), (torchvision_model, "convnext_tiny"), (torchvision_model, "swin_t"),
    (torchvision_model, "shufflenet_v2_x0_5"), (timm_model, "focalnet_tiny_srf"),
]  # fmt: skip
ANY_SIZE += [
    pytest.param(make, name, marks=pytest.mark.slow)
    for make, names in (
        (torchvision_model, ("swin_v2_t", "densenet121", "efficientnet_b0")),
        (
            timm_model,
            (
                "convnext_tiny",
                "convnextv2_atto",
                "davit_tiny",
                "caformer_s18",
                "pvt_v2_b0",
                "mobilevit_s",
                "poolformer_s12",
            ),
        ),
    )
    for name in names
]


@pytest.mark.parametrize(("make", "name"), ANY_SIZE)
def test_the_channel_axis_is_the_one_that_does_not_grow_with_the_image(make, name):
    model = make(name)
    axes, one, other = axes_of(model, 224, 160), shapes_of(model, 224, 160), shapes_of(model, 256, 320)
    compared = 0
    for layer, axis in axes.items():
        unchanged = [dim for dim in range(1, len(one[layer])) if one[layer][dim] == other[layer][dim]]
        if len(unchanged) == 1:
            assert [axis] == unchanged, (layer, one[layer])
            compared += 1
    assert compared > 0.75 * len(axes)


@pytest.mark.parametrize(
    ("make", "name", "size", "layers", "axis"),
    [
        (torchvision_model, "vit_b_16", 224, ("encoder.layers.encoder_layer_3", "encoder.ln"), 2),
        (timm_model, "swin_tiny_patch4_window7_224", 224, ("layers.0", "layers.3.blocks.1", "norm"), 3),
        pytest.param(timm_model, "mixer_s16_224", 224, ("blocks.0", "blocks.7"), 2, marks=pytest.mark.slow),
        pytest.param(torchvision_model, "maxvit_t", 224, ("stem", "blocks.0", "blocks.3.layers.1"), 1,
                     marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_models_of_one_image_size(make, name, size, layers, axis):
    model = make(name)
    axes, shapes = axes_of(model, size, size), shapes_of(model, size, size)
    assert {axes[layer] for layer in layers} == {axis}
    widths = candidate_layers(model, torch.zeros(2, 3, size, size, device="meta"))
    assert [widths[layer] for layer in layers] == [shapes[layer][axis] for layer in layers]


@pytest.mark.parametrize("size", [pytest.param((224, 224), marks=pytest.mark.slow), (224, 160)])
def test_the_stages_of_swin_have_their_widths(size):
    model = torchvision_model("swin_t")
    widths = candidate_layers(model, torch.zeros(2, 3, *size, device="meta"))
    assert [widths[f"features.{i}"] for i in range(8)] == [96, 96, 192, 192, 384, 384, 768, 768]
    model.head = nn.Identity()
    assert backbone_blocks(model) == tuple(f"features.{i}" for i in range(8))


class ChannelsLast(nn.Module):
    """A convolution, then blocks on (N, H, W, C), and a permutation back."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 1)
        self.norm = nn.LayerNorm(width)
        self.block = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.last = nn.BatchNorm2d(width)

    def forward(self, x):
        x = self.norm(self.conv(x).permute(0, 2, 3, 1))
        x = x + self.block(x)
        return self.last(x.permute(0, 3, 1, 2)).mean((2, 3))


@pytest.mark.parametrize(("height", "width"), [(7, 7), (7, 4), (5, 7)])
def test_maps_whose_side_equals_the_number_of_channels(height, width):
    model, x = ChannelsLast(7).eval(), torch.randn(3, 3, height, width)
    pools = layer_pools(model, x[:2], ["conv", "norm", "block", "last"])
    with torch.no_grad(), captured_features(model, pools) as calls:
        model(x)
    features = {name: features_of(name, calls[name], 3) for name in pools}
    with torch.no_grad():
        first = model.conv(x)
        normed = model.norm(first.permute(0, 2, 3, 1))
        torch.testing.assert_close(features["conv"], first.mean((2, 3)))
        torch.testing.assert_close(features["norm"], normed.mean((1, 2)))
        torch.testing.assert_close(features["block"], model.block(normed).mean((1, 2)))
        torch.testing.assert_close(features["last"], model(x))


def test_maps_over_time_and_tokens():
    model = nn.Sequential(nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU())
    assert channel_axes(model, torch.zeros(2, 4, 9), "012") == {"0": 1, "1": 1, "2": 1}
    tokens = nn.Sequential(nn.Embedding(5, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    assert channel_axes(tokens, torch.zeros(2, 6).long(), "01") == {"0": 2, "1": 2}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_permutations_and_reshapes_carry_the_axis(data):
    """Channels are 13, and no other size is divisible by 13."""
    x = torch.zeros(2, 3, 5, 4)
    with torch.no_grad(), ChannelTracker() as tracker:
        x = nn.functional.conv2d(x, torch.zeros(13, 3, 1, 1))
        for _ in range(data.draw(st.integers(0, 6))):
            place = x.shape.index(13)
            kind = data.draw(st.sampled_from(["permute", "transpose", "merge", "split", "unsqueeze", "add"]))
            if kind == "permute":
                x = x.permute(data.draw(st.permutations(range(x.ndim))))
            elif kind == "transpose":
                x = x.transpose(*data.draw(st.tuples(*[st.integers(-x.ndim, x.ndim - 1)] * 2)))
            elif kind == "merge":
                sides = [(0, place), (place + 1, x.ndim)]
                start, stop = sides[data.draw(st.integers(0, 1))]
                if stop - start >= 2:
                    x = x.flatten(start, stop - 1)
            elif kind == "split":
                even = [dim for dim, size in enumerate(x.shape) if size % 2 == 0 and x.ndim < 6]
                if even:
                    x = x.unflatten(data.draw(st.sampled_from(even)), (2, -1))
            elif kind == "unsqueeze" and x.ndim < 6:
                x = x.unsqueeze(data.draw(st.integers(0, x.ndim)))
            else:
                x = torch.relu(x) + 1
        expected = x.shape.index(13)
        assert math.prod(x.shape) == 2 * 13 * 5 * 4
        assert tracker.axis(x) == expected


def test_the_usual_axis_is_used_if_no_operation_defines_one():
    with ChannelTracker() as tracker:
        assert [tracker.axis(torch.zeros(2, *[3] * n)) for n in (1, 2, 3, 4)] == [1, 2, 1, 1]
        split = nn.functional.conv2d(torch.zeros(2, 3, 5, 4), torch.zeros(6, 3, 1, 1)).detach().view(2, 2, 3, 5, 4)
        assert tracker.axis(split.transpose(1, 2).reshape(2, 6, 5, 4)) == 1


def test_pooling():
    maps = torch.arange(24.0).view(2, 3, 2, 2)
    assert torch.equal(pooled(maps), maps.mean((2, 3)))
    last = torch.arange(40.0).view(2, 2, 2, 5)
    assert torch.equal(pooled(last, channel_axis=3), last.mean((1, 2)))
    cube = torch.arange(16.0).view(2, 2, 2, 2)
    assert torch.equal(pooled(cube), cube.mean((2, 3)))
    assert torch.equal(pooled(cube, channel_axis=3), cube.mean((1, 2)))
    video = torch.arange(96.0).view(2, 3, 4, 2, 2)
    assert torch.equal(pooled(video), video.mean((2, 3, 4)))
    tokens = torch.arange(24.0).view(2, 4, 3)
    assert torch.equal(pooled(tokens), tokens.mean(1))
    assert torch.equal(pooled(tokens, channel_axis=1), tokens.mean(2))
    features = tokens[:, 0]
    assert torch.equal(pooled(features), features)
    with pytest.raises(ValueError, match=r"got \(5,\)"):
        pooled(torch.zeros(5))


def network(k=4):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(8, k),
    )  # fmt: skip


def test_candidates_run_once_and_stages_end_before_the_head():
    x, model = torch.randn(2, 3, 6, 6), network()
    shared = nn.ReLU()
    twice = nn.Sequential(model, shared, shared)
    assert candidate_layers(model, x) == {"0": 8, "1": 8, "2": 8, "3": 8, "4": 8, "5": 8, "6": 4}
    assert "1" not in candidate_layers(twice, x)
    assert default_layers(model, x, "6") == ["0", "1", "2", "3", "4", "5"]
    deep = nn.Sequential(nn.Flatten(), *[nn.Linear(108, 108) for _ in range(30)], nn.Linear(108, 4))
    stages = default_layers(deep, x, "31", most=5)
    assert len(stages) == 5
    assert (stages[0], stages[-1]) == ("0", "30")


def test_the_model_and_the_generator_are_not_changed():
    model = network().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    candidate_layers(model, torch.randn(2, 3, 6, 6))
    channel_axes(model, torch.randn(2, 3, 6, 6), ["0"])
    torch.set_rng_state(rng)
    layer_pools(model, torch.ones(2, 3, 6, 6), ["1"])
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_a_pool_of_the_user_is_used_for_all_layers():
    def first_pixel(x):
        return x[:, :, 0, 0]

    pools = layer_pools(network(), torch.zeros(2, 3, 6, 6), ["0", "1"], first_pixel)
    assert pools == {"0": first_pixel, "1": first_pixel}


def test_layers_that_hold_weight_matrices():
    from nc_tools.models import CIFARResNet, ConvNet

    assert backbone_blocks(ConvNet(1, 8)) == ("layers.0", "layers.3", "layers.6")
    assert backbone_blocks(CIFARResNet(8)) == ("layers.0", "layers.3", "layers.4", "layers.5")
    resnet = torchvision_model("resnet18")
    resnet.fc = nn.Identity()
    assert backbone_blocks(resnet) == ("conv1", "layer1", "layer2", "layer3", "layer4")
    assert backbone_blocks(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) == ("1",)
    assert backbone_blocks(nn.Flatten()) == ()


def test_layers_without_features_raise():
    x, shared = torch.randn(2, 3, 6, 6), nn.ReLU()
    model = nn.Sequential(nn.Flatten(), shared, nn.Linear(108, 8), shared, nn.Linear(8, 4))
    with pytest.raises(ValueError, match="no layer '22'; did you mean '2'"):
        layer_pools(model, x, ["22"])
    with captured_features(model, {"1": pooled, "2": lambda output: output.view(2, 2, -1)}, head="4") as calls:
        model(x)
    with pytest.raises(ValueError, match="'1' ran 2 times in one forward pass"):
        features_of("1", calls["1"], 2)
    with pytest.raises(ValueError, match=r"'2' must give features \(2, C\) after pooling, got \(2, 2, 4\)"):
        features_of("2", calls["2"], 2)
    with pytest.raises(ValueError, match="'3' ran 0 times"):
        features_of("3", [], 2)
    with pytest.raises(ValueError, match="after pooling, got dict"):
        features_of("0", [{}], 2)
    assert calls[""][0].shape == (2, 8)
