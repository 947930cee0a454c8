"""Measure the neural collapse of any classifier over any data loader."""

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
from nc_tools.surgery.untouched import untouched

# The measures of a layer other than the head's input.
_LAYER_MEASURES = ("nc1_pinv", "nc1_trace", "cdnv", "nc2_equinorm", "nc2_equiangular", "nc4_disagreement",
                   "cosine_within", "cosine_between")  # fmt: skip
_MAX_CLASSES_OF_COSINES = 2000


@dataclass(frozen=True, eq=False)
class CollapseMeasurement:
    """The measured collapse of one data set, with the data for the report's plots.

    Attributes:
        values: Every measure by its key.
        layers: Measures of each named layer, in the given order. Those under true labels have the name with ``_clean``.
        samples: N.
        counts: Samples of each class (K,).
        spread: Variance of each class, divided by the mean squared length of the centered class means (K,); NaN for a
            class without a sample. The mean over classes is ``nc1_trace``.
        cosines: Cosines of the centered class means (K, K), NaN for classes without a sample; None for more than 2,000
            classes.
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
    ignore_index: int = -100,
    keep_gb: float = 2.0,
) -> dict[str, float]:
    """Measure the neural collapse of any classifier on a data set: ``nc_tools.measure(model, loader)``.

    The model runs over the set in eval mode: once if its features fit into ``keep_gb``, otherwise twice, with the same
    result. Afterwards the model is as before, with its mode, buffers and attributes. The head is found by its logits.
    Keys:

        accuracy            share of correct predictions
        nc/...              of the features that reach the head: ``neural_collapse``, gnc2, nc3_uniform, vci, cosines
        nc_embedded/...     the same after the head's own projection and normalization, if it has one
        layer/NAME/...      of a named layer's pooled output
        nc_clean/...        under true labels, if ``clean`` is given; likewise accuracy_clean, nc_embedded_clean/... and
                            layer/NAME_clean/...
        head/...            minority collapse and SELI distance of the head's rows, if ``class_counts`` is given

    Measure both training and test images, without augmentation, and write the set's name into ``prefix``.

    Args:
        model: Maps inputs to logits (N, K), on any device; or to logits (N, T, K), to measure tokens. To measure
            pixels, its head runs on maps (N, D, H, W), as a 1 x 1 convolution does.
        loader: Yields (inputs, labels), mappings with ``labels``, or :class:`~nc_tools.records.Batch`. Labels of tokens
            are (N, T), at the place of the logits that predict them. For a large vocabulary, K x D sums are kept in
            float64; a K x K matrix is computed only for ``class_counts``. Labels of pixels are (N, H, W): if the map at
            the head is smaller, each of its pixels takes the label at its center.
        layers: Dotted names of layers to measure besides the head's input.
        prefix: Put before each key, as "train" in ``train/nc/nc1_pinv``.
        clean: True labels of the whole set (N,), for a loader with noisy labels. They are matched by the batch's
            ``index`` if it has one, otherwise in the order of the loader, which must then be that of the set.
        class_counts: Training samples of each class (K,).
        head: Dotted path of the head, if it cannot be found.
        pool: Turns a layer's output into features (N, D). None: the mean over all positions;
            :func:`~nc_tools.surgery.channel_axes` finds the channel axis of the layer. With labels of tokens or pixels,
            there is no mean: each token or pixel of the layer's output is a sample.
        ignore_index: The label of samples, tokens and pixels that are left out.
        keep_gb: Memory for features that are kept for a second pass, in 10^9 bytes.

    Returns:
        The measures by key. A measure that the set does not define has no key.

    Raises:
        TypeError: If the model is not a module or the loader yields something else.
        ValueError: If a layer does not exist (the message suggests some) or does not run exactly once, the head cannot
            be found, a feature is NaN or inf (the message names its layer), a label is out of range, fewer than two
            classes have samples, or a loader that is needed twice yields other samples the second time.

    Example:
        >>> import nc_tools
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> values = nc_tools.measure(model, [(torch.randn(8, 4), torch.arange(8) % 2)], layers=["0"])
        >>> 0 <= values["nc/nc4_disagreement"] <= 1, "layer/0/nc1_trace" in values
        (True, True)
    """
    result = measure_in_detail(
        model, loader, layers=layers, clean=clean, class_counts=class_counts, head=head, pool=pool,
        ignore_index=ignore_index, keep_gb=keep_gb,
    )  # fmt: skip
    of_layers = {f"layer/{name}/{key}": v for name, values in result.layers.items() for key, v in values.items()}
    return {f"{prefix}/{key}" if prefix else key: value for key, value in (result.values | of_layers).items()}


def measure_in_detail(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layers: Sequence[str] = (),
    clean: Tensor | None = None,
    class_counts: Tensor | Sequence[int] | None = None,
    head: str | None = None,
    pool: Pool | None = None,
    ignore_index: int = -100,
    keep_gb: float = 2.0,
    progress: Callable[[int], None] | None = None,
) -> CollapseMeasurement:
    """Return the results of :func:`measure` with the data for plots; arguments and errors are the same.

    Args:
        model: As for :func:`measure`.
        loader: As for :func:`measure`.
        layers: As for :func:`measure`.
        clean: As for :func:`measure`.
        class_counts: As for :func:`measure`.
        head: As for :func:`measure`.
        pool: As for :func:`measure`.
        ignore_index: As for :func:`measure`.
        keep_gb: As for :func:`measure`.
        progress: Called with the number of samples after each batch of each of the two passes.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, got {model!r}. Pass the model object")
    model_pass = ModelPass(model, loader, tuple(layers), clean, head, pool, ignore_index)
    report = progress or (lambda _number: None)
    with untouched(model_pass.model):
        first = _first_pass(model_pass, keep_gb * 1e9, report)
        for stats in first.stats.values():
            stats.start_second_pass()
        for batch in model_pass.run() if first.kept is None else first.kept:
            for (name, labeling), stats in first.stats.items():
                if name in batch.features:
                    stats.update_second_pass(batch.features[name], batch.labels[labeling], batch.decisions)
            report(batch.samples)
    return _result(model_pass, first, class_counts)


class _FirstPass(NamedTuple):
    """Result of the first pass over the data.

    Attributes:
        stats: Statistics by name of the features and kind of labels ("" or "_clean").
        right: Number of correct predictions, by kind of labels.
        samples: N.
        kept: The features of all batches, or None if they do not fit into memory.
    """

    stats: dict[tuple[str, str], TwoPassStats]
    right: dict[str, Tensor]
    samples: int
    kept: list[BatchFeatures] | None


def _first_pass(model_pass: ModelPass, free_bytes: float, report: Callable[[int], None]) -> _FirstPass:
    stats: dict[tuple[str, str], TwoPassStats] = {}
    kept: list[BatchFeatures] | None = []
    right = {labeling: torch.zeros((), device=model_pass.device) for labeling in model_pass.labelings}
    samples = 0
    for batch in model_pass.run():
        for labeling, labels in batch.labels.items():
            if batch.samples:
                right[labeling] += (batch.decisions == labels).sum()
            for name, features in batch.features.items():
                if (name, labeling) not in stats:
                    stats[name, labeling] = model_pass.new_stats(name, features.shape[1])
                stats[name, labeling].update_first_pass(features, labels)
        samples += batch.samples
        free_bytes -= sum(part.numel() * part.element_size() for part in batch.features.values())
        if free_bytes < 0:
            kept = None
            model_pass.check_reiterable()
        if kept is not None:
            kept.append(batch)
        report(batch.samples)
    if not samples:
        raise ValueError("the loader must yield at least one sample, got none. Check its data set")
    return _FirstPass(stats, right, samples, kept)


def _result(
    model_pass: ModelPass,
    first: _FirstPass,
    class_counts: Tensor | Sequence[int] | None,
) -> CollapseMeasurement:
    values = {f"accuracy{labeling}": float(number) / first.samples for labeling, number in first.right.items()}
    layers: dict[str, dict[str, float]] = {}
    for (name, labeling), stats in first.stats.items():
        if name in model_pass.layers:
            measures = stats.compute(None)
            layers[name + labeling] = {key: measures[key] for key in _LAYER_MEASURES if key in measures}
        else:
            measures = stats.compute(model_pass.weight_for(stats.means.shape[1]))
            values |= {f"{name}{labeling}/{key}": value for key, value in measures.items()}
    weight = model_pass.weight
    if class_counts is not None and weight is not None:
        head = minority_collapse(weight, class_counts) | seli_distance(class_counts, weight=weight)
        values |= {f"head/{key}": value for key, value in head.items()}
    main = first.stats["nc", ""]
    counts, means = main.counts, main.means
    present = counts > 0
    centered = torch.full_like(means, torch.nan)
    centered[present] = means[present] - means[present].mean(dim=0)
    between = centered[present].square().sum(dim=1).mean()
    units = centered / torch.linalg.vector_norm(centered, dim=1, keepdim=True)
    return CollapseMeasurement(
        values=values,
        layers=layers,
        samples=first.samples,
        counts=counts.cpu(),
        spread=torch.where(present, main.variances / between, torch.nan).cpu(),
        cosines=(units @ units.T).cpu() if len(units) <= _MAX_CLASSES_OF_COSINES else None,
    )
