"""Keep small pictures of the test images that a model takes for a wrong class with most confidence, for the report."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nc_tools.comparison.surest_mistakes import surest_mistakes
from nc_tools.data import Sources
from nc_tools.data.decode import decode_batch
from nc_tools.data.image_set import Images
from nc_tools.decoding.image_file import UnreadableImageError
from nc_tools.features import FeatureSet
from nc_tools.records import Collected
from nc_tools.run_records.mistake_pictures import PICTURE_SIDE, MistakePictures, write_mistake_pictures


def keep_mistakes(run: Path, outputs: Collected, sources: Sources) -> None:
    """Write mistakes.safetensors into a run's folder, if the model makes mistakes and its logits are finite.

    Images are scaled down to 64 pixels. Without pixels, as on embeddings, only indices and paths are kept.

    Args:
        run: The folder.
        outputs: The model's outputs for the test set, in its order.
        sources: The data, with the images of the test set.
    """
    logits, labels = outputs.logits.detach().cpu().float().numpy(), outputs.labels.cpu().numpy()
    if not np.isfinite(logits.max(axis=1)).all():
        return
    index = surest_mistakes(logits, labels).index
    if not len(index):
        return
    # A comparison on fixed features has a FeatureSet in the place of images.
    test = cast("Images | FeatureSet", sources.test)
    paths = () if test.paths is None else tuple(test.paths[i] for i in index.tolist())
    write_mistake_pictures(
        run, MistakePictures(index, paths, _pixels(test, torch.from_numpy(index), paths, sources.root))
    )


def _pixels(
    test: Images | FeatureSet, index: Tensor, paths: tuple[str, ...], root: Path | None
) -> NDArray[np.uint8] | None:
    try:
        if not isinstance(test, FeatureSet):
            return _scaled_down(test.take(index)).numpy()
        # Ids of embeddings may be anything; only those inside the folder are taken for paths of images.
        inside = all(not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts for path in paths)
        if root is None or not paths or not inside:
            return None
        return decode_batch(root, paths, PICTURE_SIDE, 3).numpy()
    except (UnreadableImageError, OSError):  # the images were moved since they were read
        return None


def _scaled_down(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    if max(height, width) <= PICTURE_SIDE:
        return images
    small = F.interpolate(images.float(), size=(PICTURE_SIDE, PICTURE_SIDE), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)
