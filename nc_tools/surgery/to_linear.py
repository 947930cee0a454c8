"""A trained head as plain PyTorch layers, for places where nc_tools is not installed."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn

from nc_tools._support.precision import autocast_off
from nc_tools.heads.frame import FixedHead
from nc_tools.heads.head import Head
from nc_tools.heads.linear import CosineHead
from nc_tools.heads.two_space import TwoSpaceHead
from nc_tools.surgery.trace import eval_mode

_ROWS = 16  # made-up features on which head and layers are compared


def to_linear(head: Head, *, embed: nn.Module | None = None) -> nn.Module:
    """Return a trained affine head as plain PyTorch layers that score the same.

    For serving: what comes back holds no class of nc_tools, so that it loads, scripts and exports where only PyTorch
    is. Put it in the head's place: ``model.fc = to_linear(model.fc)``. By the promise of affine heads,
    logits = scale * embed(features) @ weight.T + bias, one ``nn.Linear`` takes in scale, weight and bias, and a
    projection too where no normalization follows it. Normalization is ``nn.RMSNorm`` without weight, which gives
    sqrt(D) h / ||h||, the root being taken out of the weight: PyTorch has no layer for h / ||h|| itself.

    What is learned is copied: the layers do not follow the head. They compute in the model's own type, the head in at
    least float32: in bfloat16 or float16, and inside autocast, expect logits that differ by that type's rounding.

    For ONNX export the head itself, which needs nothing of nc_tools either once it is a graph, or these layers with
    ``torch.onnx.export(..., optimize=False)``: the exporter's optimizer drops an epsilon as small as ours, and a row of
    zeros would then come out as NaN.

    Head and layers are compared on random features before they are returned, so that a head which does not keep the
    promise is found here.

    Args:
        head: An affine head: ``LinearHead``, ``CosineHead``, a head with a fixed frame, or one of your own.
        embed: Layers that do what the head's own ``embed`` does, for a head of yours that overrides it. They are
            copied.

    Returns:
        An ``nn.Linear``, or an ``nn.Sequential`` of ``projection``, ``normalize`` and ``classifier`` (``embed`` and
        ``classifier`` where that was given), on the head's device and of its type.

    Raises:
        TypeError: If it is no Head, is not affine, or overrides ``embed`` in a way not known here and none was given.
        ValueError: If the layers do not score as the head does.

    Example:
        >>> from nc_tools.heads import ETFHead, LinearHead
        >>> to_linear(LinearHead(16, 3))
        Linear(in_features=16, out_features=3, bias=True)
        >>> to_linear(ETFHead(16, 3))
        Sequential(
          (normalize): RMSNorm((16,), eps=1.1754943508222875e-38, elementwise_affine=False)
          (classifier): Linear(in_features=16, out_features=3, bias=False)
        )
    """
    if not isinstance(head, Head):
        raise TypeError(f"to_linear takes a Head, got {type(head).__name__}")
    name = type(head).__name__
    if not head.affine:
        raise TypeError(
            f"{name} is not affine: its logits are no linear function of its embedded features, so that no nn.Linear "
            f"gives them. Export it as it is, with torch.export or torch.onnx.export"
        )
    with torch.no_grad(), autocast_off(head.weight.device.type):
        weight, bias = head.weight.detach(), head.bias
        given = weight.dtype
        weight = weight.to(torch.promote_types(given, torch.float32))
        weight = torch.as_tensor(head.scale, device=weight.device).to(weight).reshape(-1, 1) * weight
        layers = _embed_layers(head) if embed is None else OrderedDict(embed=copy.deepcopy(embed))
        if list(layers) == ["projection"]:
            weight = weight @ layers.popitem()[1].get_parameter("weight").to(weight)
        if "normalize" in layers:
            weight = weight / math.sqrt(weight.shape[1])
        layers["classifier"] = _linear(weight, None if bias is None else bias.detach().to(weight))
        plain = layers["classifier"] if len(layers) == 1 else nn.Sequential(layers)
        if not weight.is_meta:
            _compare(head, plain.to(weight.dtype), name)
    return plain.to(given).train(head.training)


def _embed_layers(head: Head) -> OrderedDict[str, nn.Module]:
    """Return the layers of the embeddings that are known; empty where features are taken as they are."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    embed = type(head).embed
    if embed is Head.embed:
        return layers
    if embed is FixedHead.embed:
        fixed = cast(FixedHead, head)
        if isinstance(head, TwoSpaceHead):
            layers["widen"] = _linear(head.up.detach().clone(), None)
            layers["relu"] = nn.ReLU()
            layers["narrow"] = _linear(head.down.detach().clone(), None)
        if fixed.projection is not None:
            layers["projection"] = _linear(fixed.projection.weight.detach().clone(), None)
        if fixed.normalize:
            layers["normalize"] = _normalization(head.weight.shape[1])
        return layers
    if embed is CosineHead.embed:
        layers["normalize"] = _normalization(head.feature_dim)
        return layers
    raise TypeError(
        f"{type(head).__name__} embeds features in a way of its own, which to_linear cannot read off: give layers that "
        f"do the same, to_linear(head, embed=nn.Sequential(...)), and they are checked against it"
    )


def _normalization(width: int) -> nn.RMSNorm:
    # Its default epsilon would shrink features of norm 1e-3; this one only keeps a row of zeros from a division by 0.
    return nn.RMSNorm(width, eps=torch.finfo(torch.float32).tiny, elementwise_affine=False)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer around these numbers, without drawing any from the global generator."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer


def _compare(head: Head, plain: nn.Module, name: str) -> None:
    like = next(plain.parameters())
    drawn = torch.randn(_ROWS, head.feature_dim, generator=torch.Generator().manual_seed(0), device="cpu")
    with eval_mode(head), eval_mode(plain):
        expected, got = head(drawn.to(like)), plain(drawn.to(like))
    if got.shape != expected.shape:
        raise ValueError(f"{name} gives logits of shape {tuple(expected.shape)}, its layers {tuple(got.shape)}")
    error = float((got - expected).abs().max()) / max(float(expected.abs().max()), 1e-30)
    if not error < 1e-3:
        raise ValueError(
            f"{name} must score scale * embed(features) @ weight.T + bias, but on random features its logits are "
            f"off from that by {error:.2g} of their size: set affine = False on it, or mend embed="
        )
