"""Run a model over a data loader, and get the features at its head and its layers batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nc_tools._support.labels import check_labels
from nc_tools.heads.head import Head
from nc_tools.heads.pixel_head import PixelHead
from nc_tools.measuring.loader_batches import first_two, to_device, unpack
from nc_tools.measuring.pixel_maps import at_pixels, head_maps, layer_map, map_pools, returned_by
from nc_tools.measuring.two_pass_stats import TwoPassStats
from nc_tools.surgery.example_inputs import Example
from nc_tools.surgery.find_head import FoundHead, locate
from nc_tools.surgery.layers import (
    Pool,
    call,
    captured_features,
    device_of,
    features_of,
    layer_pools,
)
from nc_tools.surgery.trace import logits_of
from nc_tools.surgery.untouched import eval_mode

# Pixels that are yielded at once: float64 copies of all pixels of a batch could take more memory than the model.
_PIXELS = 1 << 15


class BatchFeatures(NamedTuple):
    """The model's results for samples of one batch.

    A sample is an image, token or pixel whose label is not ignored. The pixels of a batch come in several of these
    records: first those of the map at the head, under "nc", then those of each layer's map, which may have another
    size.

    Attributes:
        features: Features (N, D) by the layer's name; "nc" and "nc_embedded" are those at the head.
        decisions: Predicted classes (N,).
        labels: Labels (N,) by their kind: "" for the given and "_clean" for the true ones.
    """

    features: dict[str, Tensor]
    decisions: Tensor
    labels: dict[str, Tensor]

    @property
    def samples(self) -> int:
        """Number of samples; 0 for pixels of a layer, so that no pixel counts twice."""
        return len(self.decisions) if "nc" in self.features else 0


def locate_to_measure(model: nn.Module, example: Example, head: str | None) -> FoundHead:
    """Return the head of a model; error messages call the argument with its path ``head``.

    Raises:
        ValueError: As :func:`~nc_tools.surgery.find_head`, whose argument is called ``name``.
    """
    try:
        return locate(model, example, head)
    except ValueError as error:
        raise ValueError(str(error).replace("name=", "head=")) from None


def unwrap(model: nn.Module) -> nn.Module:
    """Return the original model inside DDP, DataParallel or ``torch.compile``, so that its layers can have hooks."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


class ModelPass:
    """Runs a model over a data loader, as often as needed, and yields the features of each batch.

    Args:
        model: Maps inputs to logits (N, K), or (N, T, K) for tokens, or has a head that runs on maps (N, D, H, W).
        loader: Yields inputs and labels; see :func:`~nc_tools.measuring.loader_batches.unpack`.
        layers: Dotted names of layers to measure besides the head's input.
        clean: True labels of the whole set (N,), or None.
        head: Dotted path of the head, or None to find it by its logits.
        pool: Turns a layer's output into features (N, D); None as for :func:`~nc_tools.measure`.
        ignore_index: The label of samples, tokens or pixels that are left out.
    """

    def __init__(
        self, model: nn.Module, loader: Iterable[Any], layers: tuple[str, ...], clean: Tensor | None,
        head: str | None, pool: Pool | None, ignore_index: int,
    ) -> None:  # fmt: skip
        self.model, self.loader, self.layers, self.clean, self.pool = unwrap(model), loader, layers, clean, pool
        self.ignore_index = ignore_index
        self.labelings = ("",) if clean is None else ("", "_clean")
        self.device = device_of(self.model)
        self._requested_head = head
        self.head: nn.Module | None = None
        self._found: FoundHead | None = None
        self._path, self.num_classes = "", 0
        self._pools: dict[str, Pool] = {}

    @property
    def weight(self) -> Tensor | None:
        """The class vectors of the head, a matrix (K, D'), or None if the head has no such matrix."""
        return None if self._found is None else self._found.class_vectors

    def weight_for(self, width: int) -> Tensor | None:
        """Return the class vectors of the head if they apply to features of this width, otherwise None."""
        return self.weight if self.weight is not None and self.weight.shape[1] == width else None

    def new_stats(self, name: str, width: int) -> TwoPassStats:
        """Return empty statistics for the features of a layer, or for those at the head ("nc", "nc_embedded")."""
        of_layer = name in self.layers
        title = f"layer {name!r}" if of_layer else f"the features at the head {self._path!r}"
        return TwoPassStats(title, self.num_classes, width, self.device, index=not of_layer)

    def check_reiterable(self) -> None:
        """Raise a ValueError if the data loader can be iterated only once."""
        if iter(self.loader) is self.loader:
            raise ValueError(
                "the features do not fit into keep_gb, so the loader must be iterated twice, but it is an iterator. "
                "Pass the DataLoader itself instead of iter(loader), or raise keep_gb"
            )

    def run(self) -> Iterator[BatchFeatures]:
        """Iterate over the data loader once, and yield the model's results for each batch."""
        start = 0
        for batch in self.loader:
            inputs, labels, positions = unpack(batch)
            inputs = to_device(inputs, self.device)
            if self.head is None:
                self._find_head(first_two(inputs), labels.ndim)
            given = {"": labels}
            if self.clean is not None:
                where = torch.arange(start, start + len(labels)) if positions is None else positions.cpu()
                given["_clean"] = self._true_labels(self.clean, where)
            start += len(labels)
            results = self._pixels(inputs, given) if labels.ndim == 3 else iter([self._rows(inputs, given)])
            yield from (result for result in results if len(result.decisions))

    def _true_labels(self, clean: Tensor, where: Tensor) -> Tensor:
        if len(where) and int(where.max()) >= len(clean):
            raise ValueError(
                f"clean must hold the true label of every sample, got {len(clean)} labels and a sample at "
                f"position {int(where.max())}. Pass the labels of the whole data set"
            )
        return clean[where]

    def _find_head(self, example: Example, label_dims: int) -> None:
        head = locate_to_measure(self.model, example, self._requested_head)
        self._found, self.head, self._path = head, head.module, head.name
        if label_dims == 3 and self.pool is None:
            self._pools = map_pools(self.model, example, self.layers)
        else:
            pool = _rows_of_tokens if label_dims == 2 and self.pool is None else self.pool
            self._pools = layer_pools(self.model, example, self.layers, pool)

    def _rows(self, inputs: Any, labels: dict[str, Tensor]) -> BatchFeatures:
        """Return the results for a batch of samples with labels (N,), or of tokens with labels (N, T)."""
        given = labels[""]
        with captured_features(self.model, self._pools, self._path) as calls, eval_mode(self.model):
            logits = logits_of(call(self.model, inputs))
        if logits is not None and logits.ndim == 2:
            check_labels(given, len(logits))
        if logits is None or logits.ndim not in (2, 3) or logits.shape[:-1] != given.shape:
            raise ValueError(_wrong_shapes(logits, given))
        head_input = calls[""][0] if len(calls[""]) == 1 else None
        if head_input is None or head_input.shape[:-1] != given.shape:
            raise ValueError(
                f"the head {self._path!r} must be called once in a forward pass, with one feature vector per "
                "sample (N, D) or token (N, T, D). Pass the name of the classifier layer, as in head='fc'"
            )
        _check_not_inputs(inputs, given, self.ignore_index)
        features = {"nc": head_input.flatten(0, -2)}
        features |= {name: features_of(name, calls[name], given.numel()) for name in self.layers}
        self.num_classes = logits.shape[-1]
        return self._counted(features, logits.argmax(dim=-1), labels)

    def _pixels(self, inputs: Any, labels: dict[str, Tensor]) -> Iterator[BatchFeatures]:
        """Yield the results for a batch of images with labels of pixels (N, H, W), from the map at the head."""
        assert self.head is not None  # noqa: S101 (found before)
        with (
            captured_features(self.model, self._pools, self._path) as calls,
            returned_by(self.head) as outputs,
            eval_mode(self.model),
        ):
            call(self.model, inputs)
        features, logits = head_maps(self.head, self._path, calls[""], outputs, labels[""])
        self.num_classes = logits.shape[-1]
        decisions = logits.argmax(dim=-1)
        maps = {"nc": features}
        for name in self.layers:
            if self.pool is None:
                maps[name] = layer_map(name, calls[name], len(decisions))
            else:
                maps[name] = features_of(name, calls[name], decisions.numel()).view(*decisions.shape, -1)
        for name, part in maps.items():
            size = part.shape[1:3]
            here = {labeling: at_pixels(given, size).flatten() for labeling, given in labels.items()}
            rows, predicted = part.flatten(0, 2), at_pixels(decisions, size).flatten()
            for start in range(0, len(rows), _PIXELS):
                block = slice(start, start + _PIXELS)
                of_block = {labeling: given[block] for labeling, given in here.items()}
                yield self._counted({name: rows[block]}, predicted[block], of_block)

    def _counted(self, features: dict[str, Tensor], decisions: Tensor, labels: dict[str, Tensor]) -> BatchFeatures:
        """Return the results of samples whose label is not ignored, with the embedded features if they differ."""
        decisions, labels = decisions.flatten(), {labeling: given.flatten() for labeling, given in labels.items()}
        check_labels(labels[""], len(decisions))
        kept = labels[""] != self.ignore_index
        if not bool(kept.all()):  # this waits for no GPU if the loader's labels are on the CPU
            here = kept.to(self.device)
            decisions, features = decisions[here], {name: rows[here] for name, rows in features.items()}
            labels = {labeling: given[kept.to(given.device)] for labeling, given in labels.items()}
        head = self.head.head if isinstance(self.head, PixelHead) else self.head
        if isinstance(head, Head) and "nc" in features:
            with eval_mode(head):
                embedded = head.outputs(features["nc"]).embedded
            if embedded.shape != features["nc"].shape or not torch.equal(embedded, features["nc"].to(embedded)):
                features["nc_embedded"] = embedded
        return BatchFeatures(features, decisions, {k: given.to(self.device).long() for k, given in labels.items()})


def _rows_of_tokens(output: Tensor) -> Tensor:
    """Return a layer's output on tokens (N, T, C) as one row for each token (N T, C)."""
    return output.flatten(0, 1) if output.ndim == 3 else output


def _check_not_inputs(inputs: Any, labels: Tensor, ignore_index: int) -> None:
    """Raise ValueError if the labels of tokens are the tokens themselves, as for a model that shifts labels."""
    ids = inputs.get("input_ids") if isinstance(inputs, Mapping) else inputs
    if labels.ndim == 1 or not isinstance(ids, Tensor) or ids.shape != labels.shape:
        return
    kept = labels != ignore_index
    if bool(kept.any() and (ids.to(labels.device) == labels)[kept].all()):
        raise ValueError(
            "the label of a token is the class that its logits must predict, but these labels are the tokens "
            "themselves. For next tokens pass labels = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)"
        )


def _wrong_shapes(logits: Tensor | None, labels: Tensor) -> str:
    shape = None if logits is None else tuple(logits.shape)
    return (
        f"the model must return logits of shape ({len(labels)}, K) for a batch, or ({len(labels)}, T, K) with labels "
        f"({len(labels)}, T) for tokens, or maps with labels ({len(labels)}, H, W) for pixels, got {shape} for labels "
        f"{tuple(labels.shape)}. Pass a model that classifies"
    )
