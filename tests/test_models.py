"""Backbones: sizes of the literature, initial weights, and names."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nc_tools.heads import CosineHead, ETFHead
from nc_tools.models import CIFARResNet, Classifier, ConvNet, build_backbone
from nc_tools.models.feature_width import feature_width
from nc_tools.seeds import stream


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_resnets_have_the_papers_sizes(depth: int, millions: float) -> None:
    """He et al. 2016, table 6, which counts the last layer of ten classes."""
    model = CIFARResNet(depth)
    digits = 1 if depth == 110 else 2
    assert round((parameters(model) + 650) / 1e6, digits) == millions
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == depth - 1


def test_cifar_resnet_20_count_written_out() -> None:
    count = 3 * 16 * 9 + 2 * 16
    for before, width in ((16, 16), (16, 32), (32, 64)):
        count += before * width * 9 + 5 * width * width * 9 + 6 * 2 * width
    assert parameters(CIFARResNet(20)) == count == 269_072


def test_cifar_resnet_shortcuts_learn_nothing_and_keep_the_signal() -> None:
    """With silent bodies, a map of ones comes out as ones in the middle channels and zeros in the padded ones."""
    model = CIFARResNet(20).eval()
    for block in list(model.layers)[3:]:
        nn.init.zeros_(block.body[4].weight)
    out = torch.ones(1, 16, 8, 8)
    for block in list(model.layers)[3:]:
        out = block(out)
    expected = torch.zeros(64)
    expected[24:40] = 1
    assert out.shape == (1, 64, 2, 2)
    assert torch.equal(out[0, :, 0, 0], expected)


@pytest.mark.parametrize("depth", [7, 8, 18, 21, 2])
def test_depths_that_do_not_exist(depth: int) -> None:
    if depth == 8:
        CIFARResNet(8)
        return
    with pytest.raises(ValueError, match=rf"must be 6 \* n \+ 2 \(20, 32, 44, 56, ...\), got {depth}"):
        CIFARResNet(depth)


@pytest.mark.parametrize("size", [4, 7, 8, 28, 32, 64])
@pytest.mark.parametrize("width", [4, 16])
def test_conv_net_keeps_its_width_and_four_pixels(size: int, width: int) -> None:
    model = ConvNet(1, size, width)
    maps = model.layers(torch.zeros(2, 1, size, size))
    assert maps.shape[1] == model.num_features == 4 * width
    assert maps.shape[2] == max(min(size, 4), -(-size // 8))
    assert feature_width(model, in_channels=1, image_size=size) == 4 * width


@pytest.mark.parametrize("model", [ConvNet(3, 16), CIFARResNet(8)], ids=["conv", "resnet"])
def test_features_are_non_negative_and_the_mean_of_the_last_map(model: Any) -> None:
    images = torch.randn(4, 3, 16, 16)
    features = model(images)
    assert float(features.detach().min()) >= 0
    assert torch.allclose(features, model.layers(images).flatten(2).mean(2), atol=1e-6)


# Sides: resnet18 halves the map five times.
BUILDABLE = [
    ("conv", 3, 8, 64),
    ("resnet20", 1, 8, 64),
    ("cifar_resnet32", 3, 8, 64),
    ("resnet18", 3, 32, 512),
    ("mobilenet_v3_small", 1, 32, 1024),
    pytest.param("googlenet", 3, 32, 1024, marks=pytest.mark.slow),
    ("timm:resnet10t", 3, 32, 512),
    ("resnet10t", 1, 32, 512),
    pytest.param("timm:resnet18", 1, 32, 512, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "channels", "size", "width"), BUILDABLE)
def test_backbones_by_name_give_features_of_their_width(name: str, channels: int, size: int, width: int) -> None:
    state = torch.get_rng_state()
    model = build_backbone(name, in_channels=channels, image_size=size, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    before = {n: b.clone() for n, b in model.named_buffers()}
    assert feature_width(model, in_channels=channels, image_size=size) == width
    assert all(m.training for m in model.modules())
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())


@pytest.mark.parametrize("name", ["conv", "resnet20", "shufflenet_v2_x0_5", "timm:resnet10t"])
def test_initial_weights_depend_on_the_seed_alone(name: str) -> None:
    def build(seed: int) -> dict[str, Tensor]:
        return build_backbone(name, in_channels=3, image_size=32, seed=seed).state_dict()

    torch.manual_seed(1)
    a = build(0)
    torch.manual_seed(2)
    torch.randn(5)
    with torch.device("meta"):
        b = build(0)
    c = build(1)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_the_head_does_not_change_the_backbone() -> None:
    states = []
    for head in (CosineHead, ETFHead):
        model = Classifier(
            build_backbone("conv", in_channels=1, image_size=8, seed=0), head(64, 5, generator=stream(0, "head"))
        )
        states.append(model.backbone.state_dict())
        assert torch.equal(model.outputs(torch.ones(2, 1, 8, 8)).logits, model(torch.ones(2, 1, 8, 8)))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_gray_image_is_three_equal_channels_to_a_torchvision_model() -> None:
    gray = build_backbone("resnet18", in_channels=1, image_size=32, seed=0).eval()
    color = build_backbone("resnet18", in_channels=3, image_size=32, seed=0).eval()
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(gray(images), color(images.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("resnet45", "'resnet44'"), ("con", "'conv'"), ("resnet181", "'resnet18'"), ("timm:resnet10tt", "'resnet10t'")],
)
def test_unknown_names_raise_with_similar_ones(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"no model '{name}'; did you mean .*{nearest}"):
        build_backbone(name, in_channels=3, image_size=32)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("vit_b_32", marks=pytest.mark.slow),
        pytest.param("inception_v3", marks=pytest.mark.slow),
        "timm:vit_tiny_patch16_224",
    ],
)
def test_images_of_a_size_that_a_model_does_not_accept_raise(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"does not accept 3 x 24 x 24 images \(.*choose another --image-size or --model"
    ):
        feature_width(build_backbone(name, in_channels=3, image_size=24), in_channels=3, image_size=24)


def test_outputs_that_are_not_feature_vectors_raise() -> None:
    with pytest.raises(ValueError, match=r"features \(N, D\), but Conv2d returned \(2, 4, 8, 8\)"):
        feature_width(nn.Conv2d(1, 4, 1), in_channels=1, image_size=8)

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(ValueError, match="but Pair returned tuple"):
        feature_width(Pair(), in_channels=1, image_size=8)
