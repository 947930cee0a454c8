"""CIFAR-10 and CIFAR-100 through torchvision's own loaders."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from nc_tools.data.image_set import ImageSet


def load_cifar(kind: str, root: Path | None) -> tuple[ImageSet, ImageSet]:
    """Load train and test set, downloading them only if they are not on disk.

    Args:
        kind: ``cifar10`` or ``cifar100``.
        root: The folder that holds or shall hold torchvision's copy. None: ``nc_tools`` below the user's
            cache folder.

    Returns:
        Train and test set, in torchvision's order.

    Raises:
        FileNotFoundError: If the set is not on disk and cannot be downloaded.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[kind]
    place = root if root is not None else default_root()

    def part(train: bool) -> ImageSet:  # noqa: FBT001 (torchvision's own argument)
        try:
            raw = dataset(str(place), train=train, download=False)
        except RuntimeError:  # torchvision's "not found or corrupted"
            try:
                raw = dataset(str(place), train=train, download=True)
            except (OSError, RuntimeError) as error:
                raise FileNotFoundError(
                    f"{kind} must lie in {place} or be downloadable, and neither holds ({error}): put "
                    f"torchvision's {dataset.base_folder} there, "
                    f"name its folder as {kind}:ROOT, or use imagefolder:PATH"
                ) from error
        images = torch.from_numpy(raw.data).permute(0, 3, 1, 2).contiguous()
        return ImageSet(images, torch.tensor(raw.targets), tuple(raw.classes), kind)

    return part(train=True), part(train=False)


def default_root() -> Path:
    """Return where downloads go when no folder is named; it does not depend on the working directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nc_tools"
