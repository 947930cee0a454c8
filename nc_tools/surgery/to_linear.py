"""Converting a trained head to plain PyTorch layers, for use without nc_tools."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn

from nc_tools._support.precision import autocast_off
from nc_tools.heads.fixed_head import FixedHead
from nc_tools.heads.head import Head
from nc_tools.heads.linear import CosineHead
from nc_tools.heads.two_space import TwoSpaceHead
from nc_tools.surgery.untouched import eval_mode

_ROWS = 16  # random features on which the head and the layers are compared


def to_linear(head: Head, *, embed: nn.Module | None = None) -> nn.Module:
    """Return plain PyTorch layers that compute the same logits as a trained head (affine heads only).

    For serving: the result contains no class of nc_tools, so it loads, scripts and exports with PyTorch alone. Use it
    in place of the head: ``model.fc = to_linear(model.fc)``. An affine head computes
    logits = scale * embed(features) @ weight.T + bias. One ``nn.Linear`` contains scale, weight and bias, and also the
    projection if no normalization follows it. Normalization is ``nn.RMSNorm`` without weight, which computes
    sqrt(D) h / ||h||; the weight is divided by sqrt(D). PyTorch has no layer for h / ||h||.

    Parameters are copied, so later training of the head does not change the layers. The layers compute in the dtype of
    the model, the head in at least float32: in bfloat16 or float16, and inside autocast, logits differ by rounding.

    For ONNX, export the head itself, or these layers with ``torch.onnx.export(..., optimize=False)``: the exporter's
    optimizer drops the very small epsilon of the normalization, and a row of zeros would give NaN.

    Before returning, the layers are compared with the head on random features.

    Args:
        head: An affine head: ``LinearHead``, ``CosineHead``, a head with a fixed frame, or your own.
        embed: Layers that compute the same as the head's ``embed``, for your own head that overrides it. They are
            copied.

    Returns:
        An ``nn.Linear``, or an ``nn.Sequential`` of ``projection``, ``normalize`` and ``classifier`` (``embed`` and
        ``classifier`` if ``embed`` is given), with the device and dtype of the head.

    Raises:
        TypeError: If it is not a Head or not affine, or overrides ``embed`` and no layers are given for it.
        ValueError: If the layers do not compute the logits of the head.

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
        raise TypeError(f"to_linear needs a Head, got {type(head).__name__}: pass a head of nc_tools, such as model.fc")
    name = type(head).__name__
    if not head.affine:
        raise TypeError(
            f"to_linear needs an affine head, but {name} is not affine: no nn.Linear can compute its logits. Export "
            f"the head itself, with torch.export or torch.onnx.export"
        )
    with torch.no_grad(), autocast_off(head.weight.device.type):
        weight, bias = head.weight.detach(), head.bias
        dtype = weight.dtype
        weight = weight.to(torch.promote_types(dtype, torch.float32))
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
    return plain.to(dtype).train(head.training)


def _embed_layers(head: Head) -> OrderedDict[str, nn.Module]:
    """Return the layers of the head's ``embed``; none if it returns the features unchanged."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    embed = type(head).embed
    if embed is Head.embed:
        return layers
    if embed is FixedHead.embed:
        fixed = cast(FixedHead, head)
        if isinstance(head, TwoSpaceHead):
            layers["widen"] = _matrix_of(head.up, head.feature_dim, head)
            layers["relu"] = nn.ReLU()
            layers["narrow"] = _matrix_of(head.down, len(layers["widen"].get_parameter("weight")), head)
        if fixed.projection is not None:
            layers["projection"] = _matrix_of(fixed.projection, head.feature_dim, head)
        if fixed.normalize:
            layers["normalize"] = _normalization(head.weight.shape[1])
        return layers
    if embed is CosineHead.embed:
        layers["normalize"] = _normalization(head.feature_dim)
        return layers
    raise TypeError(
        f"{type(head).__name__} has its own embed method, which to_linear cannot convert: pass layers that compute the "
        f"same, as in to_linear(head, embed=nn.Sequential(...)); they are checked against the head"
    )


def _matrix_of(layer: nn.Module, width: int, head: Head) -> nn.Linear:
    """Return a linear layer that computes what a layer of the head computes, be it wrapped by LoRA or weight norm."""
    weight = head.weight
    rows: Tensor = layer(torch.eye(width, device=weight.device, dtype=torch.promote_types(weight.dtype, torch.float32)))
    return _linear(rows.detach().T.to(weight.dtype), None)


def _normalization(width: int) -> nn.RMSNorm:
    # The default epsilon would change features of norm 1e-3; this one only prevents a division by zero.
    return nn.RMSNorm(width, eps=torch.finfo(torch.float32).tiny, elementwise_affine=False)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer with this weight and bias, without drawing from the global generator."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer


def _compare(head: Head, plain: nn.Module, name: str) -> None:
    features = torch.randn(_ROWS, head.feature_dim, generator=torch.Generator().manual_seed(0), device="cpu")
    features = features.to(next(plain.parameters()))
    with eval_mode(head), eval_mode(plain):
        expected, logits = head(features), plain(features)
    if logits.shape != expected.shape:
        raise ValueError(
            f"the layers must return logits of shape {tuple(expected.shape)}, as {name} does, got "
            f"{tuple(logits.shape)}: correct the layers passed as embed"
        )
    error = float((logits - expected).abs().max()) / max(float(expected.abs().max()), 1e-30)
    if not error < 1e-3:
        raise ValueError(
            f"{name} must compute scale * embed(features) @ weight.T + bias, but on random features its logits differ "
            f"from that by {error:.2g} of their size: set affine = False in the class, or correct the layers passed as "
            f"embed"
        )
