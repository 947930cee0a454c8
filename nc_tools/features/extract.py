"""Compute the features of images with a frozen backbone; features that are in the cache are not computed again."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nc_tools._support.precision import autocast_off
from nc_tools.data.decode import Progress
from nc_tools.data.image_set import Images
from nc_tools.features.feature_cache import FeatureCache, RowsFile
from nc_tools.features.feature_set import FeatureSet
from nc_tools.features.image_content import ImageContent
from nc_tools.features.image_views import ImageViews
from nc_tools.models.pretrained import PretrainedBackbone

BATCH = 64
"""Images in a pass through the backbone; on a CPU larger batches are slower."""
CHUNK_BATCHES = 8
"""Passes after which the features are written to the cache."""
ONE_VIEW = ImageViews()
"""The image itself, without augmentation."""
_VERSIONS = ("torch", "torchvision", "timm", "transformers", "pillow", "numpy")
# Largest relative difference between cached and computed features, which is a cosine of .9999. Rounding to float16
# changes features by .0005, another batch size by less.
_LARGEST_ERROR = 0.015
_TESTED = 8  # cached rows that are computed again before the cache is used


@dataclass(frozen=True)
class Extraction:
    """The features of an image set, and how many of them had to be computed.

    Attributes:
        features: The set with features in place of images.
        computed: Images that went through the backbone, each of their views counted.
        file: The memory-mapped file that holds the rows.
        notes: What the user should know, such as that cached rows were not used.
    """

    features: FeatureSet
    computed: int
    file: RowsFile
    notes: tuple[str, ...] = ()


def extract_features(
    images: Images,
    backbone: PretrainedBackbone,
    cache: Path,
    *,
    views: ImageViews = ONE_VIEW,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Extraction:
    """Return the features of images: those in the cache, and the rest computed by the backbone and added to it.

    An image is resized and cropped by the backbone's preprocessing, and passed through the backbone in eval mode,
    without augmentation. Rows are found by the content of the image (its pixels), the hash of the backbone's tensors
    and the preprocessing. So an image that changed is computed again, and one that was renamed or is in several sets is
    not. Rows are float16, or float32 if a feature is too large for that. Before cached rows are used, a few are
    computed again: if they differ by more than 1.5 %, all are discarded.

    With several views, each image passes through the backbone once more for every further view, which is augmented
    before it is resized. Views are cached one by one: more or fewer of them use what is there.

    If the process is killed or the disk is full, only the chunk of images in progress is lost.

    Args:
        images: Images in memory or files.
        backbone: The backbone with its preprocessing.
        cache: Folder of all caches.
        views: The views of each image: one, without augmentation, unless more are requested.
        device: Where the backbone runs.
        progress: Called as ``progress(done, total)``, counting the views that have to be computed.

    Raises:
        UnreadableImageError: If a file cannot be decoded.
        ValueError: If the backbone gives features that are not finite.
        OSError: If the disk is full.
    """
    content = ImageContent(images, backbone.preprocessing, views)
    try:
        return _extract(images, content, views, backbone, cache, torch.device(device), progress, "float16")
    except OverflowError:
        result = _extract(images, content, views, backbone, cache, torch.device(device), progress, "float32")
        note = "a feature is too large for float16, so that features are stored in float32"
        return dataclasses.replace(result, notes=(*result.notes, note))


def cache_key(backbone: PretrainedBackbone) -> dict[str, Any]:
    """Return what decides the features of an image: weights, architecture and preprocessing."""
    return {
        "weights": backbone.identity.sha256,
        "model": backbone.identity.name,
        "module": type(backbone.module).__qualname__,
        "preprocessing": dataclasses.asdict(backbone.preprocessing),
    }


def _extract(
    images: Images,
    content: ImageContent,
    views: ImageViews,
    backbone: PretrainedBackbone,
    cache_root: Path,
    device: torch.device,
    progress: Progress | None,
    dtype: str,
) -> Extraction:
    compute = _FeaturePass(backbone, device, content)
    notes = []
    with FeatureCache(cache_root, cache_key(backbone), width=backbone.feature_dim, dtype=dtype) as cache:
        rows = cache.rows_of(content.digests)
        if not _still_valid(cache, rows, content, compute, views.count):
            notes.append("the cached features are not those that the backbone computes now: all are computed again")
            cache.clear()
            rows = cache.rows_of(content.digests)
        cached = int((rows >= 0).sum())
        missing = _first_of_each((rows < 0).nonzero().flatten(), content.digests)
        if cached and len(missing):
            counted = "images" if views.count == 1 else "views of images"
            notes.append(f"{cached} of {len(rows)} {counted} have cached features; the others are new or have changed")
        if not cached and not notes and (others := cache.differences(content.digests[0])):
            nearest = min(others, key=len)
            changed = " and ".join(nearest)
            notes.append(f"the cached features of these images were computed with other {changed}: they are not used")
        if len(missing):
            cache.describe(_how(backbone, device, views))
        done = 0
        for index, pixels in content.read_chunks(missing, BATCH * CHUNK_BATCHES):
            parts = zip(torch.split(index, BATCH), torch.split(pixels, BATCH), strict=True)
            cache.append(content.digests[index], torch.cat([compute(*part) for part in parts]))
            done += len(index)
            if progress is not None:
                progress(done, len(missing))
        pool, rows = cache.features(), cache.rows_of(content.digests).view(-1, views.count)
    features = FeatureSet(
        pool,
        images.labels,
        images.classes,
        images.name,
        images.clean_labels,
        images.paths,
        rows=rows[:, 0].contiguous(),
        groups=images.groups,
        further_rows=rows[:, 1:].T.contiguous() if views.count > 1 else None,
    )
    return Extraction(features, len(missing), cache.rows_file, tuple(notes))


class _FeaturePass:
    """The backbone in eval mode, on its device, in float32. Features come back to the CPU."""

    def __init__(self, backbone: PretrainedBackbone, device: torch.device, content: ImageContent) -> None:
        self._content = content
        module = backbone.module.to(device)
        self._module = module.to(memory_format=torch.channels_last).eval()
        self._device = device

    @torch.inference_mode()
    def __call__(self, index: Tensor, pixels: Tensor) -> Tensor:
        """Return the features (B, D) of the views at ``index`` (B,), whose pixels are (B, 3, side, side), uint8."""
        inputs = self._content.normalized(index, pixels.to(self._device)).contiguous(memory_format=torch.channels_last)
        with autocast_off(self._device.type):
            features: Tensor = self._module(inputs).float().cpu()
        if not bool(torch.isfinite(features).all()):
            raise ValueError(
                "the backbone gives features that are not finite: check that the weights belong to this model"
            )
        return features


def _still_valid(cache: FeatureCache, rows: Tensor, content: ImageContent, compute: _FeaturePass, views: int) -> bool:
    """Compute a few cached rows again, with and without augmentation; return whether they are the same up to rounding.

    Args:
        cache: The cache.
        rows: The row of every view (N V,), -1 for those that are not in the cache.
        content: The images.
        compute: Computes features.
        views: V.
    """
    index = (rows >= 0).nonzero().flatten()
    if not len(index):
        return True
    parts = [part for part in (index[index % views == 0], index[index % views > 0]) if len(part)]
    index = torch.cat([part[torch.linspace(0, len(part) - 1, min(_TESTED, len(part))).long()] for part in parts])
    ((_, pixels),) = content.read_chunks(index, len(index))
    cached, now = cache.features()[rows[index]].float(), compute(index, pixels)
    distance, length = (torch.linalg.vector_norm(x, dim=1) for x in (cached - now, now))
    return bool((distance <= _LARGEST_ERROR * length + 1e-3).all())


def _first_of_each(index: Tensor, digests: Tensor) -> Tensor:
    """Return the first of the views at ``index`` with each content: equal images are computed once."""
    first: dict[bytes, int] = {}
    for i in index.tolist():
        first.setdefault(digests[i].numpy().tobytes(), i)
    return torch.tensor(list(first.values()), dtype=torch.int64)


def _how(backbone: PretrainedBackbone, device: torch.device, views: ImageViews) -> dict[str, Any]:
    """Return how rows are computed, for the record: versions, device and settings that may change them by rounding."""
    versions = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "identity": dataclasses.asdict(backbone.identity),
        "output": "the module without its classifier, eval mode, not normalized",
        "views": str(views),
        "device": str(device),
        "batch_size": BATCH,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "versions": versions,
    }
