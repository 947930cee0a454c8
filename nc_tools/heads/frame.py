"""What heads with fixed class vectors have in common."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nc_tools.heads.head import Head, draw_linear
from nc_tools.heads.normalize import dot_normalized, normalize
from nc_tools.heads.scale import LearnedScale, Scale
from nc_tools.heads.vertex_order import Assignment, as_permutation
from nc_tools.seeds import stream


class FixedHead(Head):
    """A head with fixed unit class vectors, in whatever form they are kept: z_k = s w_k . u.

    u is the projected and normalized feature. The state says beside the vectors what they are; loading refuses another
    geometry and the learned layer of an old checkpoint, with ``strict=False`` too.

    Subclasses keep the vectors, and define ``geometry`` and :meth:`state_fault`.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, ``LEARNED_PER_CLASS``, or None for
            :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the vectors: True to K dimensions, or a number of dimensions. Without a
            bias, which on small features would give all samples one direction.
        normalize: Scale the (projected) features to unit length. Without it, every direction outside the span of the
            vectors gets no gradient under cross-entropy, and one rate and scale no longer serve all.
        frame_seed: Draws the vectors; two heads of one seed have the same, whatever else was drawn before.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, the scale is not positive, or the vectors would have one dimension and be normalized.
    """

    geometry: ClassVar[str]
    bias = None

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        scale: float | LearnedScale | None = None,
        projection: bool | int = False,
        normalize: bool = True,
        frame_seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(feature_dim, num_classes)
        self.width = num_classes if projection is True else int(projection) or feature_dim
        if self.width == 1 and normalize:
            raise ValueError(
                f"{type(self).__name__} of {num_classes} classes would normalize features of one dimension, which "
                f"leaves their sign and no gradient: give normalize=False, or a projection to more dimensions"
            )
        self.normalize = normalize
        self.frame_seed = frame_seed
        self._assignment: tuple[int, ...] | None = None
        self.scale_of = Scale(scale, num_classes)
        self.projection: nn.Linear | None = None
        if projection:
            # Without nn.Linear's own initial weights, which would be drawn from the global generator.
            empty = nn.Linear(feature_dim, self.width, bias=False, device="meta")
            self.projection = empty.to_empty(device=torch.get_default_device())
            draw_linear(self.projection.weight, None, generator)

    @abstractmethod
    def state_fault(self, state: dict[str, Tensor], assignment: Tensor | None) -> str | None:
        """Say what is wrong with class vectors about to be loaded, or None.

        Args:
            state: This head's part of a checkpoint, prefix removed.
            assignment: The checkpoint's, where it has one.
        """

    @property
    def scale(self) -> Tensor | float:  # type: ignore[override]
        """The scale s."""
        return self.scale_of.value()

    @property
    def assignment(self) -> tuple[int, ...] | None:
        """Which vertex of the frame that ``frame_seed`` draws each class has; None where class k has vertex k."""
        return self._assignment

    def embed(self, features: Tensor) -> Tensor:
        """Project and normalize: (N, D) to (N, D')."""
        projected = self._project(features)
        return normalize(projected) if self.normalize else projected

    def _project(self, features: Tensor) -> Tensor:
        if self.projection is None:
            return features
        return nn.functional.linear(features, self.projection.weight.to(features.dtype))

    def _follow(self, permutation: Tensor) -> None:
        """Note that class k now has what class permutation[k] had."""
        before = self._assignment
        self._assignment = tuple(int(p) if before is None else before[p] for p in permutation.tolist())

    def described(self) -> dict[str, Any]:
        """Return what the state says beside the vectors, as JSON values."""
        told: dict[str, Any] = {"geometry": self.geometry, "frame_seed": self.frame_seed}
        return told if self._assignment is None else told | {"assignment": self._assignment}

    def get_extra_state(self) -> Tensor:
        """Say beside the vectors what they are, as bytes: a tensor, so that safetensors can hold it."""
        return torch.frombuffer(bytearray(json.dumps(self.described()).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the frame's seed and assignment; refuse another geometry."""
        told = read_description(state)
        if told["geometry"] != self.geometry:
            raise ValueError(
                f"{type(self).__name__} holds a {self.geometry} frame, the checkpoint a {told['geometry']} frame: "
                f"build the head that the checkpoint was saved from"
            )
        self.frame_seed = int(told["frame_seed"])
        self._assignment = tuple(told["assignment"]) if "assignment" in told else None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # torch reports what is in error_msgs whether strict or not; missing keys only when strict.
        error_msgs: list[str] = rest[-1]
        own = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        fault = self._fault(own, prefix)
        if fault is not None:
            error_msgs.append(fault)
            return  # with the vectors as they were
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _fault(self, state: dict[str, Tensor], prefix: str) -> str | None:
        if "weight" in state:
            return (
                f"{prefix.rstrip('.') or type(self).__name__} is a fixed {self.geometry} frame, but the checkpoint "
                f"holds a learned {prefix}weight: remove {prefix}weight and {prefix}bias from it to load the backbone "
                f"alone"
            )
        told = read_description(state["_extra_state"]) if "_extra_state" in state else {}
        order = torch.tensor(told["assignment"], device="cpu") if "assignment" in told else None
        # Another geometry is refused by name, in set_extra_state, before anybody measures how far it is from this one.
        same = told.get("geometry", self.geometry) == self.geometry
        fault = self.state_fault(state, order) if same else None
        return None if fault is None else prefix + fault

    def extra_repr(self) -> str:
        """Show the geometry in the model's printout."""
        return f"{super().extra_repr()}, geometry={self.geometry}, frame_seed={self.frame_seed}"


class FixedFrameHead(FixedHead):
    """A head whose fixed unit class vectors are a matrix.

    The frame is a persistent buffer called ``frame``: moved, copied, saved and averaged with the model, but never
    trained, decayed or reduced. It is not called ``weight``, so that the learned layer of an old checkpoint cannot slip
    into it, and loading checks that what arrives has this geometry, with ``strict=False`` too.

    Subclasses define :meth:`draw_frame`, :meth:`frame_error` and ``geometry``.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        scale: As for :class:`FixedHead`.
        projection: As for :class:`FixedHead`.
        normalize: As for :class:`FixedHead`.
        assignment: Which vertex each class takes: a permutation, ``RANDOM``, or None for class k on vertex k.
        frame_seed: Draws the frame; two heads of one seed have the same frame, whatever else was drawn before.
        generator: Draws the projection's initial weights; the global one if None.
    """

    _dtype_source = "frame"
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
        frame = self.draw_frame(num_classes, self.width, stream(frame_seed, "frame"))
        self.register_buffer("frame", frame.to(torch.get_default_device(), torch.get_default_dtype()))
        if assignment is not None:
            self.assign(assignment)

    @staticmethod
    @abstractmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator, /) -> Tensor:
        """Return the class vectors (K, D'), float64, unit rows."""

    @abstractmethod
    def frame_error(self, frame: Tensor) -> float:
        """Return how far a (K, D') matrix, in the order of the vertices, is from this geometry: 0 where it has it."""

    @property
    def weight(self) -> Tensor:
        """Class vectors (K, D')."""
        return self.frame

    @torch.no_grad()
    def assign(self, permutation: Assignment) -> None:
        """Give class k the vector that class ``permutation[k]`` has now; the state keeps the order.

        Args:
            permutation: (K,), such as :func:`~nc_tools.geometry.assign_by_means` and
                :func:`~nc_tools.geometry.assign_by_similarity` return, or ``RANDOM``.

        Raises:
            ValueError: If it does not name each vertex once.

        Example:
            >>> from nc_tools.heads import ETFHead
            >>> head, other = ETFHead(8, 3), ETFHead(8, 3, assignment=(2, 0, 1))
            >>> head.assign([2, 0, 1])
            >>> bool((head.weight == other.weight).all()), head.assignment
            (True, (2, 0, 1))
        """
        order = as_permutation(permutation, len(self.frame), self.frame_seed)
        self.frame.copy_(self.frame.index_select(0, order.to(self.frame.device)))
        self._follow(order)

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return w_y . embed(features) for each sample's own class (N,), without forming the unit features."""
        if not self.normalize:
            return super().label_scores(features, labels)
        return dot_normalized(self._project(features), self.frame.index_select(0, labels).to(features.dtype))

    def state_fault(self, state: dict[str, Tensor], assignment: Tensor | None) -> str | None:
        """Say how far the checkpoint's frame is from this geometry, where it is."""
        frame = state.get("frame")
        if frame is None or frame.shape != self.frame.shape:  # torch names both
            return None
        if assignment is not None:
            frame = torch.empty_like(frame).index_copy_(0, assignment.to(frame.device), frame)
        error = self.frame_error(frame)
        if error < 1e-2:
            return None
        return f"frame must be a {self.geometry} frame, but the checkpoint's is off by {error:.2g}"


def probe(frame: Tensor) -> Tensor:
    """Return one random vector (K,), always the same, to multiply a Gram matrix with instead of forming it."""
    drawn = torch.randn(len(frame), dtype=frame.dtype, generator=stream(0, "frame", 1), device="cpu")
    return drawn.to(frame.device)


def read_description(state: Tensor) -> dict[str, Any]:
    """Return what :meth:`FixedHead.described` wrote down."""
    told: dict[str, Any] = json.loads(bytes(state.cpu().tolist()).decode())
    return told
