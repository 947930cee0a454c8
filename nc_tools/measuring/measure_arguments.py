"""The command-line arguments of ``nc-tools measure``, and their checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class MeasureArguments:
    """The command-line arguments of ``nc-tools measure``.

    Attributes:
        model: A run's folder, ``torchvision:NAME``, ``timm:NAME`` or ``package.module:function``.
        data: A source of images; None for the images that a run was trained on.
        weights: A safetensors file, "random", or None.
        modules: Names of modules with the user's own heads and losses, separated by commas, or None.
        labels: ``FILE:COLUMN`` of a CSV with other training labels, or None.
        layers: Dotted names of layers separated by commas, "none", or None for the model's stages.
        head: Dotted path of the head, or None to find it.
        only: "train", "test" or None for both.
        per_class: Limit of images per class and set, or None.
        image_size: Side in pixels, or None for the model's or the data's own.
        mean: Mean of each channel, for pixels in 0..1, or None for the model's or the data's own.
        std: Standard deviation of each channel, likewise.
        batch_size: Images in a batch.
        device: Name such as "cpu" or "cuda", or None for a GPU if there is one.
        skip_unreadable: Whether to leave out images that cannot be read, instead of stopping.
        out: Folder for the report, or None for one below ``outputs/measure``.
    """

    model: str
    data: str | None = None
    weights: str | None = None
    modules: str | None = None
    labels: str | None = None
    layers: str | None = None
    head: str | None = None
    only: str | None = None
    per_class: int | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    batch_size: int = 256
    device: str | None = None
    skip_unreadable: bool = False
    out: Path | None = None


def parse_device(name: str | None) -> torch.device:
    """Return the PyTorch device that ``--device`` names; by default a CUDA device if there is one, else the CPU.

    Raises:
        ValueError: If the name is unknown or there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wrong_name = ValueError(f"--device must be cpu, cuda, cuda:N or mps, got {name!r}")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise wrong_name from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise wrong_name
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device {name} needs a CUDA device, but this machine has {torch.cuda.device_count() or 'none'}. "
            "Use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"--device {name} needs an Apple GPU, but this machine has none. Use --device cpu")
    return device


def per_channel(flag: str, values: tuple[float, ...] | None, channels: int) -> tuple[float, ...] | None:
    """Return one number per image channel from a flag's numbers; a single number is repeated.

    Raises:
        ValueError: If the number of values is wrong or one is not finite.
    """
    if values is not None and len(values) not in (1, channels):
        raise ValueError(f"{flag} must hold one number for each of {channels} channels, got {len(values)}")
    if values is not None and not all(map(math.isfinite, values)):
        raise ValueError(f"{flag} must hold finite numbers, got {values}")
    return None if values is None else values * (channels if len(values) == 1 else 1)
