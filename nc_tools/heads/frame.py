"""Base class of heads whose fixed class vectors are stored as a matrix."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from nc_tools.heads.fixed_head import FixedHead
from nc_tools.heads.normalize import dot_normalized
from nc_tools.heads.scale import LearnedScale
from nc_tools.heads.vertex_order import Assignment, as_permutation
from nc_tools.seeds import stream

# A frame that was rounded to bfloat16 is off by up to 4e-3; a frame of another geometry or a damaged one by far more.
_TOLERANCE = 1e-2


class FixedFrameHead(FixedHead):
    """Base class of heads whose fixed unit class vectors are stored as a matrix.

    The matrix is a persistent buffer called ``frame``: it is moved, copied and saved with the model, but gets no
    gradient, no weight decay and no all-reduce. It is not called ``weight``, so the learned layer of an old checkpoint
    cannot load into it. Loading checks that the new values have this geometry, with ``strict=False`` too. ``weight`` is
    a copy, so that code which initializes or scales the ``weight`` of every layer does not change the frame.

    Subclasses define :meth:`draw_frame`, :meth:`frame_error` and ``geometry``.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        scale: As for :class:`FixedHead`.
        projection: As for :class:`FixedHead`.
        normalize: As for :class:`FixedHead`.
        assignment: Which vertex each class takes: a permutation, ``RANDOM``, or None for class k on vertex k.
        frame_seed: Draws the frame; heads with the same seed have the same frame, whatever else was drawn.
        generator: Draws the projection's initial weights; the global one if None.
    """

    _dtype_source = "frame"
    # The name of the buffer. A geometry that its values do not identify has another name, so that no other loads there.
    _stored_as = "frame"
    frame: Tensor

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
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
        self._num_vertices = num_classes  # a head with reserved vertices reduces its num_classes later
        self._assignment = None if assignment is None else as_permutation(assignment, num_classes, frame_seed)
        frame = self.new_frame().to(torch.get_default_device(), torch.get_default_dtype())
        self.register_buffer(self._stored_as, frame)

    def new_frame(self) -> Tensor:
        """Return the class vectors (K, D') that ``frame_seed`` draws, in the order of the assignment, in float64."""
        frame = self.draw_frame(self._num_vertices, self.width, stream(self.frame_seed, "frame"))
        return frame if self._assignment is None else frame.index_select(0, self._assignment)

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return the frame that ``frame_seed`` draws."""
        return {self._stored_as: self.new_frame()}

    @staticmethod
    @abstractmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator, /) -> Tensor:
        """Return the class vectors as the unit rows of a float64 matrix (K, D')."""

    @abstractmethod
    def frame_error(self, frame: Tensor) -> float:
        """Return how far class vectors (K, D') are from this head's geometry, 0 if exact.

        The order of the rows does not matter, as any class may have any vertex.
        """

    @property
    def weight(self) -> Tensor:
        """A copy of the class vectors (K, D'): writing to it changes nothing."""
        return self.class_vectors().clone()

    def class_vectors(self) -> Tensor:
        """Return the class vectors (K, D') themselves."""
        return self.frame

    @torch.no_grad()
    def assign(self, permutation: Assignment) -> None:
        """Permute the class vectors: class k gets the one that class ``permutation[k]`` has now.

        Checkpoints contain the permuted frame. :meth:`reset_parameters` goes back to the assignment that the head was
        built with.

        Args:
            permutation: (K,), such as :func:`~nc_tools.geometry.assign_by_means` and
                :func:`~nc_tools.geometry.assign_by_similarity` return, or ``RANDOM``.

        Raises:
            ValueError: If it is not a permutation of 0 to K - 1.

        Example:
            >>> from nc_tools.heads import ETFHead
            >>> head, other = ETFHead(8, 3), ETFHead(8, 3, assignment=(2, 0, 1))
            >>> head.assign([2, 0, 1])
            >>> bool((head.weight == other.weight).all())
            True
        """
        order = as_permutation(permutation, len(self.frame), self.frame_seed)
        self.frame.copy_(self.frame.index_select(0, order.to(self.frame.device)))

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the dot product of each sample's embedded features and its own class vector (N,)."""
        if not self.normalize:
            return super().label_scores(features, labels)
        return dot_normalized(self._project(features), self.frame.index_select(0, labels).to(features.dtype))

    def check_state(self, state: Mapping[str, Tensor]) -> str | None:
        """Return an error message if a checkpoint's class vectors do not have this head's geometry, else None."""
        frame = state[self._stored_as]
        if frame.shape != self.frame.shape:  # load_state_dict then raises an error with both shapes
            return None
        error = self.frame_error(frame)
        if error < _TOLERANCE:
            return None
        return (
            f"{self._stored_as} must be a {self.geometry} frame, but the checkpoint's is off by {error:.2g}: the "
            f"checkpoint is damaged or from another head. Load one that was saved from {type(self).__name__}"
        )
