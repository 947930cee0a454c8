"""Build backbones by name: those of this package, of torchvision and of timm."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools._support.suggestions import did_you_mean
from nc_tools.models.cifar_resnet import CIFARResNet
from nc_tools.models.conv_net import ConvNet
from nc_tools.models.feature_width import wrong_size
from nc_tools.models.function_backbone import find_function
from nc_tools.models.hf_backbone import check_hf_name
from nc_tools.models.named_backbone import unclear_library
from nc_tools.models.timm_backbone import pretrained_config, timm_module
from nc_tools.models.torchvision_backbone import torchvision_model, torchvision_names, weights_entry
from nc_tools.seeds import stream_seed
from nc_tools.surgery.swap import split_head

_CIFAR_DEPTHS = (20, 32, 44, 56, 110)
_CIFAR_RESNET = re.compile(rf"(?:cifar_)?resnet({'|'.join(map(str, _CIFAR_DEPTHS))})")
_OWN_NAMES = ["conv", *(f"resnet{depth}" for depth in _CIFAR_DEPTHS)]


class _GrayToColor(nn.Module):
    """Repeat the single channel of gray images for a backbone that takes three."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images.expand(-1, 3, -1, -1))
        return features


def build_backbone(name: str, *, in_channels: int, image_size: int, width: int = 16, seed: int = 0) -> nn.Module:
    """Build a backbone, which maps images to features (N, D), with initial weights drawn from the seed.

    The weights come from the seed's stream "init" and not from the global random state, which is not changed: a head
    that draws more numbers does not change the backbone. The backbone is built on the CPU, whatever the default device,
    so that a seed gives the same weights everywhere.

    Args:
        name: "conv"; "resnet20", "resnet32", ... (the CIFAR networks); any torchvision classifier with one linear
            output layer ("torchvision:NAME"); any timm model ("timm:NAME"). A name without a library means torchvision,
            or timm if torchvision has no such model.
        in_channels: 1 or 3. For a torchvision model, a gray channel is repeated three times.
        image_size: Side in pixels.
        width: First width of "conv"; not used for other models.
        seed: The run's seed.

    Raises:
        ValueError: If there is no such model (similar names are suggested) or its head cannot be removed.

    Example:
        >>> build_backbone("conv", in_channels=1, image_size=8)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 64])
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(stream_seed(seed, "init"))  # torch.manual_seed would reach the GPUs' too
        if name == "conv":
            return ConvNet(in_channels, image_size, width)
        if match := _CIFAR_RESNET.fullmatch(name):
            return CIFARResNet(int(match[1]), in_channels)
        if name.startswith("torchvision:") or name in torchvision_names():
            return _torchvision_backbone(name.removeprefix("torchvision:"), in_channels, image_size)
        return _timm_backbone(name, in_channels)


def check_name(name: str) -> None:
    """Check that there is a network of this name; nothing is built or downloaded.

    Raises:
        ValueError: If there is none; similar names are suggested.
        FileNotFoundError: If the folder of a Hugging Face model does not exist.
    """
    library, colon, rest = name.partition(":")
    if library == "timm" and colon:
        pretrained_config(timm_module(name), rest)
    elif library == "torchvision" and colon:
        weights_entry(*rest.partition(".")[::2])
    elif library == "hf" and colon:
        check_hf_name(rest)
    elif colon:
        find_function(library, rest)
    elif name not in _OWN_NAMES and not _CIFAR_RESNET.fullmatch(name) and name not in torchvision_names():
        _check_timm_name(name)


def check_takes_weights(name: str) -> None:
    """Raise a ValueError unless the name of a network says which library its weights belong to."""
    if ":" not in name:
        raise unclear_library(name)


def _torchvision_backbone(name: str, in_channels: int, image_size: int) -> nn.Module:
    architecture, _, tag = name.partition(".")
    weights_entry(architecture, tag)
    model = torchvision_model(architecture)
    try:
        backbone, _ = split_head(model, example=torch.zeros(2, 3, image_size, image_size))
    except (RuntimeError, AssertionError) as error:
        raise wrong_size(name, 3, image_size, error) from error
    return _GrayToColor(backbone) if in_channels == 1 else backbone


def _timm_backbone(name: str, in_channels: int) -> nn.Module:
    timm = _check_timm_name(name)
    options = {"pretrained": False, "num_classes": 0, "in_chans": in_channels}
    model: nn.Module = timm.create_model(name.removeprefix("timm:"), **options)
    return model


def _check_timm_name(name: str) -> Any:
    """Return the library timm, after a check that it has a model of this name, which is unknown elsewhere.

    Raises:
        ValueError: If timm is not installed or has no such model; similar names of all libraries are suggested.
    """
    names = [*_OWN_NAMES, *torchvision_names()]
    try:
        import timm
    except ImportError:
        raise ValueError(
            f"there is no model {name!r}; {did_you_mean(name, names)} For models of timm: pip install timm"
        ) from None
    timm_name = name.removeprefix("timm:")
    if timm_name.partition(".")[0] not in timm.list_models():
        raise ValueError(f"there is no model {name!r}; {did_you_mean(timm_name, [*names, *timm.list_models()])}")
    return timm
