"""A simplex ETF without its matrix."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nc_tools.geometry.hadamard import FACTOR, hadamard
from nc_tools.geometry.random_hadamard import (
    check_structured,
    draw_signed_permutation,
    hadamard_etf,
    permute,
    project,
)
from nc_tools.heads.frame import FixedHead, read_description
from nc_tools.heads.scale import LearnedScale
from nc_tools.heads.vertex_order import Assignment, as_permutation
from nc_tools.records import autocast_off
from nc_tools.seeds import stream


class StructuredETFHead(FixedHead):
    """Fixed simplex-ETF head for many classes: the geometry of ETFHead, with no K x D matrix to keep or multiply by.

    W = sqrt(K / (K - 1)) (I - 11^T / K) P^T with P^T P = I, so that logits are K coordinates u = P^T h, less their
    mean: z_k = s sqrt(K / (K - 1)) (u_k - mean(u)). P is a random signed permutation and a Hadamard transform
    (:func:`~nc_tools.geometry.random_hadamard.project`): O(D + K log K) a sample instead of O(K D), and memory for
    3 D numbers. An exact ETF, whatever is drawn.

    The rotations it draws from are fewer than the Haar rotations of :class:`~nc_tools.heads.ETFHead`: every class
    vector before centering has entries of one size, with random signs. Behind a ReLU that is what a rotation is for; a
    comparison that asks about draws of *all* rotations takes ETFHead.

    Args:
        feature_dim: D; without a projection at least K.
        num_classes: K, at least 2.
        rotated: False takes the first K features as they are for u (slice and center): cheaper still. Then class k
            reads feature k alone, features beyond K are read by none, and behind a ReLU no feature can point away from
            a class: best behind a projection or a linear layer.
        scale: s: a positive number, ``LEARNED``, ``LEARNED_PER_CLASS``, or None for
            :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before it: True to K dimensions, or a number of dimensions >= K.
        normalize: Scale the (projected) features to unit length.
        assignment: Which vertex each class takes: a permutation (K,), ``RANDOM``, or None for class k on vertex k.
        frame_seed: Draws the signed permutation.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, the width before the ETF is below K, the scale is not positive, or the assignment is no
            permutation.

    Example:
        >>> head = StructuredETFHead(64, 10)
        >>> head(torch.randn(2, 64)).shape, list(head.state_dict())
        (torch.Size([2, 10]), ['order', 'signs', '_extra_state'])
        >>> [round(float(v), 3) for v in (head.weight @ head.weight.T)[0, :2]]
        [1.0, -0.111]
    """

    geometry = "structured simplex ETF"
    _dtype_source = "factor"
    order: Tensor
    signs: Tensor
    factor: Tensor
    classes: Tensor | None

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        rotated: bool = True,
        scale: float | LearnedScale | None = None,
        projection: bool | int = False,
        normalize: bool = True,
        assignment: Assignment | None = None,
        frame_seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            feature_dim,
            num_classes,
            scale=scale,
            projection=projection,
            normalize=normalize,
            frame_seed=frame_seed,
            generator=generator,
        )
        check_structured(num_classes, self.width)
        self.rotated = rotated
        device, kind = torch.get_default_device(), torch.get_default_dtype()
        if rotated:
            order, signs = draw_signed_permutation(self.width, generator=stream(frame_seed, "frame"))
            self.register_buffer("order", order.to(device))
            self.register_buffer("signs", signs.to(device, kind))
        self.register_buffer("factor", hadamard(FACTOR).to(device, kind), persistent=False)
        self.register_buffer("classes", None, persistent=False)
        if assignment is not None:
            self.assign(assignment)

    @property
    def weight(self) -> Tensor:
        """Class vectors (K, D'), formed when asked for; nothing here needs them."""
        kind = torch.promote_types(self.factor.dtype, torch.float32)
        with autocast_off(self.factor.device.type):
            if self.rotated:
                rows = hadamard_etf(self.num_classes, self.order, self.signs.to(kind))
            else:
                eye = torch.eye(self.num_classes, self.width, device=self.factor.device, dtype=kind)
                rows = self._stretch() * (eye - eye.mean(0))
        rows = rows.to(self.factor.dtype)
        return rows if self.classes is None else rows.index_select(0, self.classes)

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Score embedded features (N, D') against the classes: (N, K)."""
        return (self.scale * self._stretch()) * self._centered(embedded)

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return w_y . embed(features) (N,), read off all classes' products: a class vector costs more than those."""
        all_classes = self._centered(self.embed(features))
        return self._stretch() * all_classes.gather(-1, labels.unsqueeze(-1)).squeeze(-1)

    def assign(self, permutation: Assignment) -> None:
        """Give class k the vertex that class ``permutation[k]`` has now; the state keeps the order.

        Args:
            permutation: (K,), such as :func:`~nc_tools.geometry.assign_by_means` returns, or ``RANDOM``.

        Raises:
            ValueError: If it does not name each vertex once.
        """
        self._follow(as_permutation(permutation, self.num_classes, self.frame_seed))
        self._place_classes()

    def _centered(self, embedded: Tensor) -> Tensor:
        if self.rotated:
            kind = embedded.dtype
            u = project(embedded, self.num_classes, self.order, self.signs.to(kind), self.factor.to(kind))
        else:
            u = embedded[..., : self.num_classes]
        centered = u - u.mean(-1, keepdim=True)
        return centered if self.classes is None else permute(centered, self.classes)

    def _stretch(self) -> float:
        return math.sqrt(self.num_classes / (self.num_classes - 1))

    def _place_classes(self) -> None:
        order = None if self.assignment is None else torch.tensor(self.assignment, device=self.factor.device)
        self.register_buffer("classes", order, persistent=False)

    def described(self) -> dict[str, Any]:
        """Return what the state says: also whether there is a rotation."""
        return super().described() | {"rotated": self.rotated}

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the seed and assignment; refuse another geometry."""
        super().set_extra_state(state)
        if (rotated := read_description(state)["rotated"]) != self.rotated:
            raise ValueError(f"the checkpoint holds an ETF with rotated={rotated}: build this head so, to load it")
        self._place_classes()

    def state_fault(self, state: dict[str, Tensor], assignment: Tensor | None) -> str | None:  # noqa: ARG002
        """Say what is wrong with a checkpoint's signed permutation."""
        order, signs = state.get("order"), state.get("signs")
        if not self.rotated:
            return None if order is None else "order belongs to a rotated ETF, this one has none: build it rotated=True"
        if order is not None and not torch.equal(order.sort().values.cpu(), torch.arange(len(order), device="cpu")):
            return f"order must be a permutation of {self.width} coordinates: the checkpoint is damaged"
        if signs is not None and not bool((signs.abs() == 1).all()):
            return "signs must be +1 or -1: the checkpoint is damaged"
        return None
