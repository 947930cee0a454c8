"""A simplex-ETF head for many classes, without a stored matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nc_tools._support.precision import autocast_off
from nc_tools.geometry.hadamard import FACTOR, hadamard
from nc_tools.geometry.random_hadamard import (
    check_structured,
    draw_signed_permutation,
    hadamard_etf,
    permute_centered,
    project,
)
from nc_tools.heads.fixed_head import FixedHead
from nc_tools.heads.scale import LearnedScale
from nc_tools.heads.vertex_order import Assignment, as_permutation
from nc_tools.seeds import stream


class StructuredETFHead(FixedHead):
    """Fixed simplex-ETF head for many classes: the geometry of ETFHead without a K x D matrix.

    W = sqrt(K / (K - 1)) (I - 11^T / K) P^T with P^T P = I. So the logits are the coordinates u = P^T h minus their
    mean: z_k = s sqrt(K / (K - 1)) (u_k - mean(u)). P is a random signed permutation and a Hadamard transform
    (:func:`~nc_tools.geometry.random_hadamard.project`): O(D + K log K) per sample instead of O(K D), and memory for
    3 D + K numbers. Every draw is an exact ETF.

    It draws from fewer rotations than the Haar rotations of :class:`~nc_tools.heads.ETFHead`: before centering, all
    entries of a class vector have the same size and random signs. This is enough for features after a ReLU. To compare
    draws of *all* rotations, use ETFHead.

    Args:
        feature_dim: D; without a projection at least K.
        num_classes: K, at least 2.
        rotated: False takes the first K features for u (slice and center), which is faster. Class k then depends on
            feature k and the mean alone, and features after the first K are not used. After a ReLU no feature can point
            away from a class: use ``rotated=False`` after a projection or a linear layer.
        scale: s: a positive number, ``LEARNED``, ``LEARNED_PER_CLASS``, or None for
            :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the ETF: True (to K dimensions) or the number of dimensions, >= K.
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
        (torch.Size([2, 10]), ['classes', 'order', 'signs', 'scale_of.fixed'])
        >>> [round(float(v), 3) for v in (head.weight @ head.weight.T)[0, :2]]
        [1.0, -0.111]
    """

    geometry = "structured simplex ETF"
    _dtype_source = "factor"
    order: Tensor
    signs: Tensor
    factor: Tensor
    classes: Tensor

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
        self._assignment = None if assignment is None else as_permutation(assignment, num_classes, frame_seed)
        device, dtype = torch.get_default_device(), torch.get_default_dtype()
        for name, tensor in self.initial_buffers().items():
            placed = tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
            self.register_buffer(name, placed, persistent=name != "factor")

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return the signed permutation that ``frame_seed`` draws, the order of the classes, and a Hadamard matrix."""
        # The order is there without an assignment too: weight averages and distributed checkpoints only fill buffers
        # that exist.
        in_order = torch.arange(self.num_classes, device="cpu")
        classes = in_order if self._assignment is None else self._assignment
        buffers = {"classes": classes, "factor": hadamard(FACTOR)}
        if self.rotated:
            order, signs = draw_signed_permutation(self.width, generator=stream(self.frame_seed, "frame"))
            buffers |= {"order": order, "signs": signs}
        return buffers

    @property
    def weight(self) -> Tensor:
        """Class vectors (K, D'), computed at each access; the head itself does not use them."""
        dtype = torch.promote_types(self.factor.dtype, torch.float32)
        with autocast_off(self.factor.device.type):
            if self.rotated:
                rows = hadamard_etf(self.num_classes, self.order, self.signs.to(dtype))
            else:
                eye = torch.eye(self.num_classes, self.width, device=self.factor.device, dtype=dtype)
                rows = self._length() * (eye - eye.mean(0))
        return rows.to(self.factor.dtype).index_select(0, self.classes)

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Return the logits (N, K) of embedded features (N, D')."""
        return (self.scale * self._length()) * self._centered(embedded)

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the dot product of each sample's embedded features and the class vector of its label (N,).

        It is taken from the products with all classes, which cost less than to compute one class vector.
        """
        all_classes = self._centered(self.embed(features))
        return self._length() * all_classes.gather(-1, labels.unsqueeze(-1)).squeeze(-1)

    def assign(self, permutation: Assignment) -> None:
        """Permute the class vectors: class k gets the one that class ``permutation[k]`` has now.

        Checkpoints contain the order.

        Args:
            permutation: (K,), such as :func:`~nc_tools.geometry.assign_by_means` returns, or ``RANDOM``.

        Raises:
            ValueError: If it is not a permutation of 0 to K - 1.
        """
        order = as_permutation(permutation, self.num_classes, self.frame_seed)
        self.classes = self.classes.index_select(0, order.to(self.classes.device))

    def _centered(self, embedded: Tensor) -> Tensor:
        """Return u - mean(u) (N, K) of embedded features (N, D'), in the order of the classes."""
        if self.rotated:
            dtype = embedded.dtype
            embedded = project(embedded, self.num_classes, self.order, self.signs.to(dtype), self.factor.to(dtype))
        return permute_centered(embedded, self.classes)

    def _length(self) -> float:
        """Return the factor that gives the centered class vectors unit length."""
        return math.sqrt(self.num_classes / (self.num_classes - 1))

    def check_state(self, state: Mapping[str, Tensor]) -> str | None:
        """Return what is wrong with the rotation and the class order in a checkpoint; None if they are valid."""
        orders = {"order": self.width, "classes": self.num_classes} if self.rotated else {"classes": self.num_classes}
        for name, length in orders.items():
            order = state[name].cpu()
            if torch.equal(order.sort().values, torch.arange(length, device="cpu").to(order)):
                continue
            return f"{name} must be a permutation of 0 to {length - 1}: the checkpoint is damaged, load another"
        if self.rotated and not bool((state["signs"].abs() == 1).all()):
            return "signs must be +1 or -1: the checkpoint is damaged, load another"
        return None

    def from_former(self, state: dict[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint of version 0.2, which stored the order of the classes beside them."""
        if description["rotated"] != self.rotated:
            raise ValueError(
                f"the checkpoint has an ETF with rotated={description['rotated']}, but this head has "
                f"rotated={self.rotated}: build the head with rotated={description['rotated']}"
            )
        order = description.get("assignment", range(self.num_classes))
        return state | {"classes": torch.tensor(order, dtype=torch.int64, device="cpu")}
