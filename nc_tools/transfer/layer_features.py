"""Compute the features of several layers of a backbone over a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from nc_tools.records import Batch
from nc_tools.surgery.layer_choice import backbone_blocks
from nc_tools.surgery.layers import Pool, captured_features, features_of, layer_pools
from nc_tools.surgery.untouched import eval_mode
from nc_tools.training.in_steps import autocast

FEATURES = "features"
"""The name under which the backbone's own output is returned."""


def layer_features(
    backbone: nn.Module,
    batches: Iterable[Batch],
    layers: Sequence[str] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the features of several layers of a backbone over a data set, from one pass in eval mode.

    Outputs are averaged over their positions, see :func:`~nc_tools.surgery.layers.pooled`. If a layer runs several
    times in one forward pass, its last output counts.

    Args:
        backbone: Maps images to features (N, D).
        batches: The set, in its own order and not augmented.
        layers: Names as in ``named_modules``. None: :func:`~nc_tools.surgery.backbone_blocks`.
        dtype: Arithmetic of the backbone, as in training.

    Returns:
        Features (N, C) by layer, float32, with the backbone's own output last, under "features"; and the labels (N,).

    Raises:
        ValueError: If there is no such layer (similar names are suggested), a layer never runs or its output has no
            channel axis, or there is no batch.

    Example:
        >>> from nc_tools.models import ConvNet
        >>> batch = Batch(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), torch.arange(2))
        >>> {name: tuple(values.shape) for name, values in layer_features(ConvNet(1, 8), [batch])[0].items()}
        {'layers.0': (2, 16), 'layers.3': (2, 32), 'layers.6': (2, 64), 'features': (2, 64)}
    """
    names = backbone_blocks(backbone) if layers is None else tuple(layers)
    parts: dict[str, list[Tensor]] = {name: [] for name in (*names, FEATURES)}
    labels = []
    pools: dict[str, Pool] | None = None
    with eval_mode(backbone):
        for batch in batches:
            with autocast(batch.inputs.device, dtype):
                if pools is None:
                    pools = layer_pools(backbone, batch.inputs[:2], names)
                with captured_features(backbone, pools) as calls:
                    features = backbone(batch.inputs)
            for name in names:
                parts[name].append(features_of(name, calls[name][-1:], len(batch.inputs)).float())
            parts[FEATURES].append(features.float())
            labels.append(batch.labels)
    if not labels:
        raise ValueError("layer features need at least one sample, got an empty data set")
    return {name: torch.cat(values) for name, values in parts.items()}, torch.cat(labels)
