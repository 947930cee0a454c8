"""Run a model over a data loader, and get the features at its head and its layers batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nc_tools._support.labels import check_labels
from nc_tools.heads.head import Head
from nc_tools.measuring.loader_batches import first_two, to_device, unpack
from nc_tools.measuring.two_pass_stats import TwoPassStats
from nc_tools.surgery.example_inputs import Example
from nc_tools.surgery.find_head import FoundHead, locate
from nc_tools.surgery.layers import Pool, call, captured_features, device_of, features_of, layer_pools
from nc_tools.surgery.trace import logits_of
from nc_tools.surgery.untouched import eval_mode

_NO_LABEL = -100  # the label of a token that does not count, as in PyTorch


class BatchFeatures(NamedTuple):
    """The model's results for one batch: features by layer, predicted classes (N,), and the labels of each kind.

    For tokens, N is the number of tokens with a label.
    """

    features: dict[str, Tensor]
    decisions: Tensor
    labels: dict[str, Tensor]


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
        model: Inputs to logits (N, K), or (N, T, K) for tokens.
        loader: Yields inputs and labels; see `nc_tools.measuring.loader_batches.unpack`.
        layers: Dotted names of layers to measure besides the head's input.
        clean: True labels of the whole set (N,), or None.
        head: Dotted path of the head, or None to find it by its logits.
        pool: Turns a layer's output into features (N, D).
    """

    def __init__(
        self, model: nn.Module, loader: Iterable[Any], layers: tuple[str, ...], clean: Tensor | None,
        head: str | None, pool: Pool | None,
    ) -> None:  # fmt: skip
        self.model, self.loader, self.layers, self.clean, self.pool = unwrap(model), loader, layers, clean, pool
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
                self._find_head(first_two(inputs), tokens=labels.ndim == 2)
            result = self._forward(inputs, labels.to(self.device))
            if self.clean is not None:
                where = torch.arange(start, start + len(labels)) if positions is None else positions.cpu()
                if len(where) and int(where.max()) >= len(self.clean):
                    raise ValueError(
                        f"clean must hold the true label of every sample, got {len(self.clean)} labels and a sample at "
                        f"position {int(where.max())}. Pass the labels of the whole data set"
                    )
                clean = self.clean[where].to(self.device)
                result.labels["_clean"] = clean[labels.to(self.device) != _NO_LABEL] if labels.ndim == 2 else clean
            start += len(labels)
            yield result

    def _find_head(self, example: Example, *, tokens: bool) -> None:
        head = locate(self.model, example, self._requested_head)
        self._found, self.head, self._path = head, head.module, head.name
        pool = _rows_of_tokens if tokens and self.pool is None else self.pool
        self._pools = layer_pools(self.model, example, self.layers, pool)

    def _forward(self, inputs: Any, labels: Tensor) -> BatchFeatures:
        with captured_features(self.model, self._pools, self._path) as calls, eval_mode(self.model):
            logits = logits_of(call(self.model, inputs))
            if logits is not None and logits.ndim == 2:
                check_labels(labels, len(logits))
            if logits is None or logits.ndim not in (2, 3) or logits.shape[:-1] != labels.shape:
                raise ValueError(_wrong_shapes(logits, labels))
            head_input = calls[""][0] if len(calls[""]) == 1 else None
            if head_input is None or head_input.shape[:-1] != labels.shape:
                raise ValueError(
                    f"the head {self._path!r} must be called once in a forward pass, with one feature vector per "
                    "sample (N, D) or token (N, T, D). Pass the name of the classifier layer, as in head='fc'"
                )
            kept = _counted(inputs, labels)
            features = {"nc": head_input if kept is None else head_input[kept]}
            decisions, labels = logits.argmax(dim=-1), labels.long()
            if kept is not None:
                decisions, labels = decisions[kept], labels[kept]
            check_labels(labels, len(decisions))
            self.num_classes = logits.shape[-1]
            if isinstance(self.head, Head):
                embedded = self.head.outputs(features["nc"]).embedded
                if embedded.shape != features["nc"].shape or not torch.equal(embedded, features["nc"].to(embedded)):
                    features["nc_embedded"] = embedded
            for name in self.layers:
                of_layer = features_of(name, calls[name], logits[..., 0].numel())
                features[name] = of_layer if kept is None else of_layer[kept.flatten()]
        return BatchFeatures(features, decisions, {"": labels})


def _rows_of_tokens(output: Tensor) -> Tensor:
    """Return a layer's output on tokens (N, T, C) with a row for each token."""
    return output.flatten(0, 1) if output.ndim == 3 else output


def _counted(inputs: Any, labels: Tensor) -> Tensor | None:
    """Return which tokens have a label (N, T), bool; None for labels of samples (N,).

    Raises:
        ValueError: If the labels of tokens are the tokens themselves, as for a language model that shifts them.
    """
    if labels.ndim == 1:
        return None
    kept = labels != _NO_LABEL
    ids = inputs.get("input_ids") if isinstance(inputs, Mapping) else inputs
    if isinstance(ids, Tensor) and ids.shape == labels.shape and bool(kept.any() and (ids == labels)[kept].all()):
        raise ValueError(
            "the label of a token is the class that its logits must predict, but these labels are the tokens "
            "themselves. For next tokens pass labels = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)"
        )
    return kept


def _wrong_shapes(logits: Tensor | None, labels: Tensor) -> str:
    shape = None if logits is None else tuple(logits.shape)
    return (
        f"the model must return logits of shape ({len(labels)}, K) for a batch, or ({len(labels)}, T, K) with labels "
        f"({len(labels)}, T) for tokens, got {shape} for labels {tuple(labels.shape)}. Pass a model that classifies"
    )
