"""Pass a data set through a model, and collect features, logits and labels of all samples."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch, Collected
from nc_tools.surgery.untouched import eval_mode
from nc_tools.training.in_steps import autocast

_LARGEST_BATCH, _PIXELS = 512, 64 * 64


def evaluation_batch(image_size: int) -> int:
    """Return the number of images in a batch that is only evaluated: 512 up to 64 pixels, fewer for larger images.

    Example:
        >>> evaluation_batch(32), evaluation_batch(224)
        (512, 41)
    """
    return max(16, min(_LARGEST_BATCH, _LARGEST_BATCH * _PIXELS // image_size**2))


@torch.no_grad()
def collect(model: Classifier, batches: Iterable[Batch], *, dtype: torch.dtype = torch.float32) -> Collected:
    """Pass a data set through a model in eval mode, and return features, embedded features, logits and labels.

    The modes of all modules (train or eval) are restored afterwards, also after an error.

    Args:
        model: The classifier.
        batches: The set in its own order, without augmentation.
        dtype: Arithmetic of the backbone, as in training.

    Returns:
        Features and logits in float32, on the model's device, and the labels of the batches.

    Raises:
        ValueError: If there is no batch.
    """
    rows: list[tuple[torch.Tensor, ...]] = []
    with eval_mode(model):
        for batch in batches:
            with autocast(batch.inputs.device, dtype):
                features = model.backbone(batch.inputs)
            outputs = model.head.outputs(features)
            rows.append((features.float(), outputs.embedded.float(), outputs.logits.float(), batch.labels))
    if not rows:
        raise ValueError("cannot evaluate an empty data set: give at least one batch")
    return Collected(*(torch.cat(column) for column in zip(*rows, strict=True)))
