"""CIFAR-10 and CIFAR-100, read by torchvision."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from nc_tools.data.image_set import ImageSet


def load_cifar(kind: str, root: Path | None) -> tuple[ImageSet, ImageSet]:
    """Load the training and the test set of CIFAR-10 or CIFAR-100, downloading them if they are not on disk.

    Args:
        kind: ``cifar10`` or ``cifar100``.
        root: Folder of torchvision's copy, which is created if necessary. None: ``nc_tools`` in the user's
            cache folder.

    Returns:
        Training and test set, in torchvision's order.

    Raises:
        FileNotFoundError: If the set is not on disk and cannot be downloaded.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[kind]
    folder = root if root is not None else default_root()

    def part(train: bool) -> ImageSet:  # noqa: FBT001 (torchvision's own argument)
        try:
            raw = dataset(str(folder), train=train, download=False)
        except RuntimeError:  # torchvision's "not found or corrupted"
            try:
                raw = dataset(str(folder), train=train, download=True)
            except (OSError, RuntimeError) as error:
                raise FileNotFoundError(
                    f"{kind} is not in {folder} and cannot be downloaded ({error}): copy torchvision's folder "
                    f"{dataset.base_folder} there, name the folder that holds it as {kind}:ROOT, or use other images "
                    f"with imagefolder:PATH"
                ) from error
        images = torch.from_numpy(raw.data).permute(0, 3, 1, 2).contiguous()
        return ImageSet(images, torch.tensor(raw.targets), tuple(raw.classes), kind)

    return part(train=True), part(train=False)


def default_root() -> Path:
    """Return the default folder of downloaded data sets, which does not depend on the working directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nc_tools"
