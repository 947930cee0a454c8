"""Backbones of torchvision, with the preprocessing that their pretrained weights state."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nc_tools._support.suggestions import did_you_mean
from nc_tools.models.feature_width import wrong_size
from nc_tools.models.image_preprocessing import ImagePreprocessing, Interpolation
from nc_tools.models.named_backbone import NamedBackbone, no_download
from nc_tools.models.state_dict_files import load_into, read_state_dict
from nc_tools.surgery.find_head import find_head
from nc_tools.surgery.swap import split_head


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def torchvision_model(name: str, **options: Any) -> nn.Module:
    """Return a classifier of torchvision with random weights, without the auxiliary heads that two of them have."""
    from torchvision import models

    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model


def torchvision_backbone(
    name: str, weights: Path | Literal["pretrained"] | None, image_size: int | None
) -> NamedBackbone:
    """Build a backbone of torchvision; arguments and errors as :func:`~nc_tools.models.pretrained.load_backbone`.

    Args:
        name: Without "torchvision:", with or without the tag of the pretrained weights, such as
            "resnet50.IMAGENET1K_V1".
        weights: As for ``load_backbone``.
        image_size: As for ``load_backbone``. The position embeddings of a vision transformer are interpolated.
    """
    architecture, _, tag = name.partition(".")
    entry = weights_entry(architecture, tag)
    full_name = f"torchvision:{architecture}.{entry.name}"
    preprocessing = torchvision_preprocessing(name)
    size = image_size or preprocessing.size
    options = {"image_size": size} if architecture.startswith("vit_") else {}
    example = torch.zeros(2, 3, size, size)
    try:
        model = torchvision_model(architecture, **options)
        head = find_head(model, example=example)
        module, _ = split_head(model, example=example)
    except (RuntimeError, AssertionError) as error:
        raise wrong_size(full_name, 3, size, error) from error
    if weights is not None:
        state = _read(entry, full_name) if weights == "pretrained" else read_state_dict(weights)
        _load(module, state, head, source=full_name if weights == "pretrained" else str(weights))
    shown = full_name if tag or weights == "pretrained" else f"torchvision:{architecture}"
    return NamedBackbone(module, shown, preprocessing, full_name)


def torchvision_preprocessing(name: str) -> ImagePreprocessing:
    """Return the preprocessing of the pretrained weights of a torchvision classifier, without building it."""
    transform = weights_entry(*name.partition(".")[::2]).transforms()
    size = int(transform.crop_size[0])
    return ImagePreprocessing(
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        size=size,
        resize_size=max(size, int(transform.resize_size[0])),
        interpolation=_interpolation(transform.interpolation.value),
    )


def _interpolation(name: str) -> Interpolation:
    supported: dict[str, Interpolation] = {"bilinear": "bilinear", "nearest": "nearest"}
    return supported.get(name, "bicubic")


def weights_entry(architecture: str, tag: str) -> Any:
    """Return torchvision's entry of pretrained weights, the default one for an empty tag.

    Raises:
        ValueError: If there is no such classifier or no such tag; similar names are suggested.
    """
    from torchvision.models import get_model_weights

    names = torchvision_names()
    if architecture not in names:
        raise ValueError(f"torchvision has no classifier {architecture!r}; {did_you_mean(architecture, names)}")
    entries = get_model_weights(architecture)
    if tag and tag not in entries.__members__:
        raise ValueError(
            f"torchvision has no weights {tag!r} of {architecture}; {did_you_mean(tag, list(entries.__members__))}"
        )
    return entries[tag] if tag else entries.DEFAULT


def _read(entry: Any, full_name: str) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise no_download(full_name, error) from error
    return state


def _load(module: nn.Module, state: dict[str, Tensor], head: str, *, source: str) -> None:
    """Load the tensors of a state dict, except those of the head."""
    state = {name: value for name, value in state.items() if not name.startswith(f"{head}.")}
    own = module.state_dict()
    positions = "encoder.pos_embedding"
    if positions in own and positions in state and own[positions].shape != state[positions].shape:
        state[positions] = _resampled_positions(state[positions], own[positions].shape[1])
    auxiliary = [name for name in state if name.startswith(("aux1.", "aux2.", "AuxLogits."))]
    load_into(module, state, source, optional=auxiliary)


def _resampled_positions(positions: Tensor, length: int) -> Tensor:
    """Interpolate the position embeddings (1, 1 + g * g, D) of a vision transformer to (1, length, D)."""
    first, grid = positions[:, :1], positions[:, 1:]
    old, new = round(grid.shape[1] ** 0.5), round((length - 1) ** 0.5)
    grid = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=True)
    return torch.cat([first, grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)], dim=1)
