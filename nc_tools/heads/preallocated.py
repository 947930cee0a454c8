"""The head whose future classes already have their place."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from nc_tools.heads.etf import ETFHead
from nc_tools.heads.scale import LearnedScale


class PreallocatedHead(ETFHead):
    """The first K of C vertices of one fixed simplex ETF: classes are added later without moving a class vector.

    An ETF of more classes is another ETF, so a head that is rebuilt at each growth moves every old vector, and with it
    the features that were stored or indexed. Here the frame is drawn once for C classes; :meth:`grow` only brings more
    of its rows into use, and features of model versions trained before and after stay comparable.

        z_k = s m_k . u,    k = 1..K,    m_i . m_j = -1 / (C - 1)

    Source: Biondi et al. (2023, CoReS, "Compatible representations via stationarity", section 3) after Pernici et al.
    (2021, "Class-incremental learning with pre-allocated fixed classifiers"). Their softmax runs over all C vertices
    from the start, which keeps features out of the places of classes to come; this one runs over the K in use. For
    theirs, use ``ETFHead(feature_dim, C)`` with labels below K. Features here are normalized and scaled by default.

    A checkpoint of fewer classes loads into a head of more, and one of more grows the head that loads it: the larger
    number counts. The scale is chosen for C classes, so that growing does not change it.

    Args:
        feature_dim: D; without a projection at least C - 1.
        num_classes: K in use, at least 2; grows.
        capacity: C, at least K. None takes the most that fit: the width before the frame plus one.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale` of C classes.
        projection: Learn a linear map before the frame: True to C dimensions, or a number of dimensions >= C - 1.
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
                f"capacity must be at least the {num_classes} classes in use, got {capacity}: "
                f"give it room for all that will ever come"
            )
        super().__init__(
            feature_dim, capacity, scale=scale, projection=projection, normalize=normalize, frame_seed=frame_seed,
            generator=generator,
        )  # fmt: skip
        self.num_classes = num_classes

    @property
    def capacity(self) -> int:
        """C, the classes that the frame has a vertex for."""
        return len(self.frame)

    @property
    def weight(self) -> Tensor:
        """Vectors of the classes in use (K, D')."""
        return self.frame[: self.num_classes]

    def grow(self, num_classes: int) -> None:
        """Bring more classes into use; no row moves, and the optimizer has nothing to learn of it.

        Args:
            num_classes: The new K.

        Raises:
            ValueError: If it is below the present K or above the capacity.
        """
        if num_classes > self.capacity:
            raise ValueError(
                f"this head was built for at most {self.capacity} classes, cannot grow to {num_classes}: an ETF of "
                f"more would move every class vector, so build a head with capacity={num_classes} and train anew"
            )
        if num_classes < self.num_classes:
            raise ValueError(
                f"{self.num_classes} classes are in use, cannot shrink to {num_classes}: read the first columns of the "
                f"logits instead"
            )
        self.num_classes = num_classes

    def get_extra_state(self) -> Tensor:
        """Say beside the frame what it is and how much of it is in use."""
        told = {"geometry": self.geometry, "frame_seed": self.frame_seed, "capacity": self.capacity,
                "num_classes": self.num_classes}  # fmt: skip
        return torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the frame's seed; grow to the checkpoint's classes where those are more."""
        super().set_extra_state(state)
        told = json.loads(bytes(state.cpu().tolist()).decode())
        if told["capacity"] != self.capacity:
            raise ValueError(
                f"this head has room for {self.capacity} classes, the checkpoint's for {told['capacity']}, and their "
                f"frames differ: build the head with capacity={told['capacity']}"
            )
        self.num_classes = max(self.num_classes, int(told["num_classes"]))

    def extra_repr(self) -> str:
        """Show the capacity in the model's printout."""
        return f"{super().extra_repr()}, capacity={self.capacity}"
