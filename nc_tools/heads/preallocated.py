"""A head with class vectors reserved for classes that are added later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nc_tools.heads.etf import ETFHead
from nc_tools.heads.scale import LearnedScale


class PreallocatedHead(ETFHead):
    """Simplex-ETF head with class vectors reserved for later classes; adding classes moves no class vector.

    The ETF has C vertices, of which the first K are in use.

    An ETF of more classes is another ETF. A head that is rebuilt for more classes moves every old vector, and stored or
    indexed features no longer match. Here the frame is drawn once for C classes. :meth:`grow` only puts more of its
    rows into use, so features of models trained before and after stay comparable.

        z_k = s m_k . u,    k = 1..K,    m_i . m_j = -1 / (C - 1)

    Source: Biondi et al. (2023, CoReS, "Compatible representations via stationarity", section 3) after Pernici et al.
    (2021, "Class-incremental learning with pre-allocated fixed classifiers"). Their softmax runs over all C vertices
    from the start, which keeps features away from the vertices of later classes. This one runs over the K in use. For
    theirs, use ``ETFHead(feature_dim, C)`` with labels below K. Features here are normalized and scaled by default.

    A checkpoint of fewer classes loads into a head of more; a checkpoint of more classes grows the head. The default
    scale is that of C classes, so growing does not change it.

    Args:
        feature_dim: D; without a projection at least C - 1.
        num_classes: K, the classes in use, at least 2.
        capacity: C, at least K. None takes the largest possible, the width before the frame plus one; D + 1 with
            ``projection=True``.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale` of C classes.
        projection: Learn a linear map before the frame: True (to C dimensions) or the number of dimensions, >= C - 1.
        normalize: Scale the (projected) features to unit length.
        frame_seed: Draws the Haar rotation of the frame.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, C < K, the width before the frame is below C - 1, or the scale is not positive.

    Example:
        >>> head = PreallocatedHead(64, 3, capacity=10)
        >>> before = head.weight.clone()
        >>> head.grow(5)
        >>> head(torch.zeros(2, 64)).shape, bool((head.weight[:3] == before).all())
        (torch.Size([2, 5]), True)
    """

    geometry = "pre-allocated simplex ETF"
    in_use: Tensor

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        capacity: int | None = None,
        scale: float | LearnedScale | None = None,
        projection: bool | int = False,
        normalize: bool = True,
        frame_seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        if num_classes < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 classes, got {num_classes}")
        if capacity is None:
            width = feature_dim if projection is True else int(projection) or feature_dim
            capacity = max(width + 1, num_classes)
        if capacity < num_classes:
            raise ValueError(
                f"capacity must be at least num_classes={num_classes}, got {capacity}: pass the largest number of "
                f"classes that the head will ever have"
            )
        super().__init__(
            feature_dim, capacity, scale=scale, projection=projection, normalize=normalize, frame_seed=frame_seed,
            generator=generator,
        )  # fmt: skip
        self.num_classes = num_classes
        # 1 for each class in use, so that checkpoints tell their number. Half precision would round the number itself.
        self.register_buffer("in_use", (torch.arange(capacity) < num_classes).to(torch.get_default_dtype()))

    @property
    def capacity(self) -> int:
        """The largest number of classes that the head can have: C, the number of class vectors drawn."""
        return len(self.frame)

    def class_vectors(self) -> Tensor:
        """Return the class vectors of the classes in use (K, D')."""
        return self.frame[: self.num_classes]

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return the frame that ``frame_seed`` draws, and which of its rows are in use."""
        return super().initial_buffers() | {"in_use": torch.arange(self.capacity, device="cpu") < self.num_classes}

    def grow(self, num_classes: int) -> None:
        """Add classes, up to the capacity; no class vector moves, and the optimizer needs no change.

        Args:
            num_classes: The new K.

        Raises:
            ValueError: If it is below the current K or above the capacity.
        """
        if num_classes > self.capacity:
            raise ValueError(
                f"this head has at most {self.capacity} classes, cannot grow to {num_classes}: build a head with "
                f"capacity={num_classes} and train it from the start, because all its class vectors differ"
            )
        if num_classes < self.num_classes:
            raise ValueError(
                f"this head has {self.num_classes} classes in use, cannot shrink to {num_classes}: use the first "
                f"{num_classes} columns of the logits"
            )
        self.num_classes = num_classes
        with torch.no_grad():
            self.in_use[:num_classes] = 1

    def from_former(self, state: dict[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint of version 0.2, which stored the number of classes beside them."""
        in_use = torch.arange(description["capacity"], device="cpu") < description["num_classes"]
        return state | {"in_use": in_use.to(self.in_use.dtype)}

    def check_state(self, state: Mapping[str, Tensor]) -> str | None:
        """Return what is wrong with the class vectors of a checkpoint, or None if they are valid."""
        if (capacity := len(state["in_use"])) != self.capacity:
            return (
                f"in_use is of a head with capacity={capacity}, but this head has capacity={self.capacity}: build the "
                f"head with capacity={capacity}"
            )
        return super().check_state(state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = self.num_classes
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not self.in_use.is_meta:
            self.num_classes = max(own, int((self.in_use > 0).sum()))
            with torch.no_grad():
                self.in_use[: self.num_classes] = 1

    def extra_repr(self) -> str:
        """Return the capacity for ``print(model)``."""
        return f"{super().extra_repr()}, capacity={self.capacity}"
