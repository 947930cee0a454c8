"""Collapse of any classifier over any loader, in one line of a user's own loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nc_tools.measuring.model_pass import BatchFeatures, ModelPass
from nc_tools.measuring.two_pass_stats import TwoPassStats
from nc_tools.metrics import minority_collapse, seli_distance
from nc_tools.surgery.layers import Pool

# Of a layer that is not the head's, these say how far collapse has come.
_OF_LAYERS = ("nc1_pinv", "nc1_trace", "cdnv", "nc2_equinorm", "nc2_equiangular", "nc4_disagreement", "cosine_within",
              "cosine_between")  # fmt: skip
_COSINES_UP_TO = 2000


@dataclass(frozen=True, eq=False)
class CollapseMeasurement:
    """What was found of one set.

    Attributes:
        values: Every quantity by its key.
        layers: Quantities of each named layer, in the order asked for.
        samples: N.
        counts: Samples of each class (K,).
        spread: Variance of each class over the mean squared length of the centered means (K,): their mean over classes
            is ``nc1_trace``. NaN for a class without a sample.
        cosines: Of the centered class means (K, K), NaN where a class has no sample; None for more than 2,000 classes.
    """

    values: dict[str, float]
    layers: dict[str, dict[str, float]]
    samples: int
    counts: Tensor
    spread: Tensor
    cosines: Tensor | None


def measure(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layers: Sequence[str] = (),
    prefix: str = "",
    clean: Tensor | None = None,
    class_counts: Tensor | Sequence[int] | None = None,
    head: str | None = None,
    pool: Pool | None = None,
    keep_gb: float = 2.0,
) -> dict[str, float]:
    """Measure the collapse of any classifier over a set: ``nc_tools.measure(model, loader)``.

    The model runs over the set in eval mode, once where its features fit into ``keep_gb`` and twice where they do not;
    either way with the same result, and afterwards it is as it was. Its head is found by its logits. Keys:

        accuracy            share of right decisions
        nc/...              of the features that reach the head: ``neural_collapse``, gnc2, nc3_uniform, vci, cosines
        nc_embedded/...     the same behind the head's own projection and normalization, where it has one
        layer/NAME/...      of a named layer's pooled output
        nc_clean/...        under true labels, where ``clean`` is given; likewise accuracy_clean and nc_embedded_clean
        head/...            minority collapse and SELI distance of the head's rows, where ``class_counts`` is given

    Measure training and test images both, without augmentation: the set's name goes into ``prefix``, as "train".

    Args:
        model: Inputs to logits (N, K), on any device.
        loader: Yields (inputs, labels), mappings with ``labels``, or :class:`~nc_tools.records.Batch`.
        layers: Dotted names of layers to look into.
        prefix: Put before each key, as "train" in ``train/nc/nc1_pinv``.
        clean: True labels of the whole set (N,), where the loader's are noisy: by the batch's own ``index`` if it has
            one, else in the order of the loader, which must then be that of the set.
        class_counts: Training samples of each class (K,).
        head: Dotted path of the head, where it cannot be told.
        pool: Turns a layer's output into features (N, D). None: the mean over all positions, at the channel axis that
            :func:`~nc_tools.surgery.channel_axes` finds for the layer.
        keep_gb: Features kept in memory between the two rounds, in 10^9 bytes.

    Returns:
        The quantities by key. What the set does not define has no key.

    Raises:
        TypeError: If the model is no module or the loader yields something else.
        ValueError: If a layer is unknown (candidates are named) or does not run once, the head cannot be told, a
            feature is NaN or inf (its layer and the number are named), a label is out of range, fewer than two classes
            have samples, or a loader that must be read twice is not the same the second time.

    Example:
        >>> import nc_tools
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> found = nc_tools.measure(model, [(torch.randn(8, 4), torch.arange(8) % 2)], layers=["0"])
        >>> 0 <= found["nc/nc4_disagreement"] <= 1, "layer/0/nc1_trace" in found
        (True, True)
    """
    found = measure_in_detail(
        model, loader, layers=layers, clean=clean, class_counts=class_counts, head=head, pool=pool, keep_gb=keep_gb
    )
    values = found.values | {f"layer/{n}/{key}": v for n, told in found.layers.items() for key, v in told.items()}
    return {f"{prefix}/{key}" if prefix else key: value for key, value in values.items()}


def measure_in_detail(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layers: Sequence[str] = (),
    clean: Tensor | None = None,
    class_counts: Tensor | Sequence[int] | None = None,
    head: str | None = None,
    pool: Pool | None = None,
    keep_gb: float = 2.0,
    progress: Callable[[int], None] | None = None,
) -> CollapseMeasurement:
    """Return what :func:`measure` finds, with what a figure needs besides; arguments and errors as there.

    Args:
        model: As for :func:`measure`.
        loader: As for :func:`measure`.
        layers: As for :func:`measure`.
        clean: As for :func:`measure`.
        class_counts: As for :func:`measure`.
        head: As for :func:`measure`.
        pool: As for :func:`measure`.
        keep_gb: As for :func:`measure`.
        progress: Called with the number of samples after each batch of each round.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a model to measure must be a torch module, got {model!r}: build it first")
    pupil = ModelPass(model, loader, tuple(layers), clean, head, pool)
    said = progress or (lambda _number: None)
    first = _first_round(pupil, keep_gb * 1e9, said)
    for space in first.spaces.values():
        space.begin_second()
    for seen in pupil.run() if first.kept is None else first.kept:
        for (name, labeling), space in first.spaces.items():
            space.see(seen.features[name], seen.labels[labeling], seen.decisions)
        said(len(seen.decisions))
    return _told(pupil, first, class_counts)


class _First(NamedTuple):
    """What the first round found: a space for each layer and labeling, right decisions, N, and features kept."""

    spaces: dict[tuple[str, str], TwoPassStats]
    right: dict[str, Tensor]
    samples: int
    kept: list[BatchFeatures] | None


def _first_round(pupil: ModelPass, room: float, said: Callable[[int], None]) -> _First:
    spaces: dict[tuple[str, str], TwoPassStats] = {}
    kept: list[BatchFeatures] | None = []
    right = {labeling: torch.zeros((), device=pupil.device) for labeling in pupil.labelings}
    samples = 0
    for seen in pupil.run():
        for labeling, labels in seen.labels.items():
            right[labeling] += (seen.decisions == labels).sum()
            for name, features in seen.features.items():
                if (name, labeling) not in spaces:
                    spaces[name, labeling] = pupil.space(name, features.shape[1])
                spaces[name, labeling].meet(features, labels)
        samples += len(seen.decisions)
        room -= sum(part.numel() * part.element_size() for part in seen.features.values())
        if room < 0:
            kept = None
            pupil.check_can_go_again()
        if kept is not None:
            kept.append(seen)
        said(len(seen.decisions))
    if not samples:
        raise ValueError("a set to measure needs at least one sample, got none")
    return _First(spaces, right, samples, kept)


def _told(
    pupil: ModelPass,
    first: _First,
    class_counts: Tensor | Sequence[int] | None,
) -> CollapseMeasurement:
    values = {f"accuracy{labeling}": float(number) / first.samples for labeling, number in first.right.items()}
    layers: dict[str, dict[str, float]] = {}
    for (name, labeling), space in first.spaces.items():
        if name in pupil.layers:
            found = space.values(None)
            layers[name + labeling] = {key: found[key] for key in _OF_LAYERS if key in found}
        else:
            found = space.values(pupil.weight_for(space.means.shape[1]))
            values |= {f"{name}{labeling}/{key}": value for key, value in found.items()}
    if class_counts is not None and pupil.weight is not None:
        head = minority_collapse(pupil.weight, class_counts) | seli_distance(class_counts, weight=pupil.weight)
        values |= {f"head/{key}": value for key, value in head.items()}
    main = first.spaces["nc", ""]
    counts, means = main.counts, main.means
    some = counts > 0
    centered = torch.full_like(means, torch.nan)
    centered[some] = means[some] - means[some].mean(dim=0)
    between = centered[some].square().sum(dim=1).mean()
    units = centered / torch.linalg.vector_norm(centered, dim=1, keepdim=True)
    return CollapseMeasurement(
        values=values,
        layers=layers,
        samples=first.samples,
        counts=counts.cpu(),
        spread=torch.where(some, main.variances / between, torch.nan).cpu(),
        cosines=(units @ units.T).cpu() if len(units) <= _COSINES_UP_TO else None,
    )
