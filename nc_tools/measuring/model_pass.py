"""A model under measurement: what reaches its head and leaves its layers, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nc_tools.heads.head import Head
from nc_tools.measuring.loader_batches import first_two, moved, unpack
from nc_tools.measuring.two_pass_stats import TwoPassStats
from nc_tools.surgery.find_head import find
from nc_tools.surgery.layers import Pool, call, captured_features, device_of, features_of, layer_pools
from nc_tools.surgery.trace import eval_mode, logits_of


class BatchFeatures(NamedTuple):
    """One batch after the model: features by layer, the classes it chose (N,), and labels by labeling."""

    features: dict[str, Tensor]
    decisions: Tensor
    labels: dict[str, Tensor]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the plain model inside DDP, DataParallel or ``torch.compile``, whose modules hooks can see."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


class ModelPass:
    """A model under measurement: runs over its loader and says what it saw."""

    def __init__(
        self, model: nn.Module, loader: Iterable[Any], layers: tuple[str, ...], clean: Tensor | None,
        head: str | None, pool: Pool | None,
    ) -> None:  # fmt: skip
        self.model, self.loader, self.layers, self.clean, self.pool = unwrap(model), loader, layers, clean, pool
        self.labelings = ("",) if clean is None else ("", "_clean")
        self.device = device_of(self.model)
        self._asked = head
        self.head: nn.Module | None = None
        self._path, self.num_classes = "", 0
        self._pools: dict[str, Pool] = {}

    @property
    def weight(self) -> Tensor | None:
        """The head's class vectors (K, D')."""
        weight = getattr(self.head, "weight", None)
        return weight.detach() if isinstance(weight, Tensor) and weight.ndim == 2 else None

    def weight_for(self, width: int) -> Tensor | None:
        """The same, where it acts on features of this width."""
        return self.weight if self.weight is not None and self.weight.shape[1] == width else None

    def space(self, name: str, width: int) -> TwoPassStats:
        """Make room for the features of a layer, or of the head ("nc", "nc_embedded")."""
        of_layer = name in self.layers
        said = f"layer {name!r}" if of_layer else f"the features at the head {self._path!r}"
        return TwoPassStats(said, self.num_classes, width, self.device, index=not of_layer)

    def check_can_go_again(self) -> None:
        """Refuse a loader that can be gone through once only, as soon as it is known that twice is needed."""
        if iter(self.loader) is self.loader:
            raise ValueError(
                "features that do not fit into keep_gb need a loader that can be gone through twice, and this one is "
                "an iterator: pass the DataLoader itself, or raise keep_gb"
            )

    def run(self) -> Iterator[BatchFeatures]:
        """Go through the loader once."""
        start = 0
        for batch in self.loader:
            inputs, labels, place = unpack(batch)
            inputs = moved(inputs, self.device)
            if self.head is None:
                found = find(self.model, None if self._asked else first_two(inputs), self._asked)
                self.head, self._path = found.module, found.name
                self._pools = layer_pools(self.model, first_two(inputs), self.layers, self.pool)
            seen = self._look(inputs, labels.to(self.device))
            if self.clean is not None:
                where = torch.arange(start, start + len(labels)) if place is None else place.cpu()
                if len(where) and int(where.max()) >= len(self.clean):
                    raise ValueError(f"clean must hold a label for every sample, got {len(self.clean)}: too few")
                seen.labels["_clean"] = self.clean[where].to(self.device)
            start += len(labels)
            yield seen

    def _look(self, inputs: Any, labels: Tensor) -> BatchFeatures:
        with captured_features(self.model, self._pools, self._path) as calls, eval_mode(self.model):
            logits = logits_of(call(self.model, inputs))
            if logits is None or logits.ndim != 2 or len(logits) != len(labels):
                shape = None if logits is None else tuple(logits.shape)
                raise ValueError(f"the model must give logits ({len(labels)}, K) for a batch, got {shape}")
            if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
                raise TypeError(
                    f"labels must be integer class indices (N,), got {labels.dtype} of shape {tuple(labels.shape)}: "
                    f"for soft labels give labels.argmax(1)"
                )
            self.num_classes = logits.shape[1]
            features = calls[""][0] if len(calls[""]) == 1 else None
            if features is None or features.ndim != 2:
                raise ValueError(
                    f"the head {self._path!r} must score one feature vector (N, D) of each sample, once in a pass: "
                    "give head= with the layer that does"
                )
            found = {"nc": features}
            if isinstance(self.head, Head):
                embedded = self.head.outputs(features).embedded
                if embedded.shape != features.shape or not torch.equal(embedded, features.to(embedded)):
                    found["nc_embedded"] = embedded
            for name in self.layers:
                found[name] = features_of(name, calls[name], len(labels))
        return BatchFeatures(found, logits.argmax(dim=1), {"": labels})
