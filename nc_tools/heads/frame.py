"""Base classes of heads with fixed class vectors."""

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
    """Base class of heads with fixed unit class vectors, stored as a matrix or in any other form.

    The logits are z_k = s * (w_k . u), u the projected and normalized feature.

    The state dict contains a description of the geometry beside the vectors.
    Loading a checkpoint of another geometry, or one with a learned layer, raises an error, with ``strict=False`` too.

    Subclasses store the vectors and define ``geometry`` and :meth:`check_state`.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, ``LEARNED_PER_CLASS``, or None for
            :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the vectors: True to K dimensions, or a number of dimensions. It has no
            bias, which on small features would give all samples the same direction.
        normalize: Scale the (projected) features to unit length. Otherwise cross-entropy gives no gradient to
            directions outside the span of the vectors, and no learning rate and scale suit all heads.
        frame_seed: Draws the vectors; heads with the same seed have the same vectors, whatever else was drawn.
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
                f"{type(self).__name__} of {num_classes} classes cannot normalize features of width 1, which would "
                f"keep only their sign and have no gradient: pass normalize=False, or a projection to more dimensions"
            )
        self.normalize = normalize
        self.frame_seed = frame_seed
        self._assignment: tuple[int, ...] | None = None
        self.scale_of = Scale(scale, num_classes)
        self.projection: nn.Linear | None = None
        if projection:
            # On the meta device, so that nn.Linear does not draw initial weights from the global generator.
            empty = nn.Linear(feature_dim, self.width, bias=False, device="meta")
            self.projection = empty.to_empty(device=torch.get_default_device())
            draw_linear(self.projection.weight, None, generator)

    @abstractmethod
    def check_state(self, state: dict[str, Tensor], assignment: Tensor | None) -> str | None:
        """Return what is wrong with the class vectors of a checkpoint, or None if they are valid.

        Args:
            state: This head's part of a checkpoint, without the prefix.
            assignment: The assignment in the checkpoint, if it has one.
        """

    @property
    def scale(self) -> Tensor | float:  # type: ignore[override]
        """The factor s of the logits: it multiplies the products of features and class vectors."""
        return self.scale_of.value()

    @property
    def assignment(self) -> tuple[int, ...] | None:
        """The number of the vertex (fixed class vector) that each class has; None if class k has vertex k."""
        return self._assignment

    def embed(self, features: Tensor) -> Tensor:
        """Project features (N, D) and normalize them, which gives (N, D')."""
        projected = self._project(features)
        return normalize(projected) if self.normalize else projected

    def _project(self, features: Tensor) -> Tensor:
        if self.projection is None:
            return features
        return nn.functional.linear(features, self.projection.weight.to(features.dtype))

    def _follow(self, permutation: Tensor) -> None:
        """Update the assignment: class k now has the vertex that class permutation[k] had."""
        current = self._assignment
        self._assignment = tuple(int(p) if current is None else current[p] for p in permutation.tolist())

    def description(self) -> dict[str, Any]:
        """Return what a checkpoint stores about the class vectors, as JSON-serializable values."""
        values: dict[str, Any] = {"geometry": self.geometry, "frame_seed": self.frame_seed}
        return values if self._assignment is None else values | {"assignment": self._assignment}

    def get_extra_state(self) -> Tensor:
        """Return :meth:`description` for a checkpoint: its JSON text as a tensor of bytes, for safetensors too."""
        return torch.frombuffer(bytearray(json.dumps(self.description()).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Load ``frame_seed`` and ``assignment`` from a checkpoint; raise ValueError if its geometry differs."""
        values = read_description(state)
        if values["geometry"] != self.geometry:
            raise ValueError(
                f"the checkpoint has a {values['geometry']} frame, but {type(self).__name__} has a {self.geometry} "
                f"frame: load it into the head class that it was saved from"
            )
        self.frame_seed = int(values["frame_seed"])
        self._assignment = tuple(values["assignment"]) if "assignment" in values else None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # torch raises for error_msgs with strict=False too, unlike for missing keys.
        error_msgs: list[str] = args[-1]
        own = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        error = self._load_error(own, prefix)
        if error is not None:
            error_msgs.append(error)
            return  # keep the current vectors
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _load_error(self, state: dict[str, Tensor], prefix: str) -> str | None:
        if "weight" in state:
            return (
                f"{prefix.rstrip('.') or type(self).__name__} has a fixed {self.geometry} frame, but the checkpoint "
                f"has a learned {prefix}weight: remove {prefix}weight and {prefix}bias from the checkpoint to load "
                f"only the backbone"
            )
        values = read_description(state["_extra_state"]) if "_extra_state" in state else {}
        if values.get("geometry", self.geometry) != self.geometry:
            return None  # set_extra_state raises and names both geometries
        order = torch.tensor(values["assignment"], device="cpu") if "assignment" in values else None
        error = self.check_state(state, order)
        return None if error is None else prefix + error

    def extra_repr(self) -> str:
        """Return the geometry for ``print(model)``."""
        return f"{super().extra_repr()}, geometry={self.geometry}, frame_seed={self.frame_seed}"


class FixedFrameHead(FixedHead):
    """Base class of heads whose fixed unit class vectors are stored as a matrix.

    The matrix is a persistent buffer called ``frame``: it is moved, copied and saved with the model, but never trained,
    decayed or reduced. It is not called ``weight``, so the learned layer of an old checkpoint cannot load into it, and
    loading checks that the new values have this geometry, with ``strict=False`` too.

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
        """Return the class vectors as the unit rows of a float64 matrix (K, D')."""

    @abstractmethod
    def frame_error(self, frame: Tensor) -> float:
        """Return how far class vectors (K, D') are from this head's geometry, 0 if exact; row k is vertex k."""

    @property
    def weight(self) -> Tensor:
        """Class vectors (K, D')."""
        return self.frame

    @torch.no_grad()
    def assign(self, permutation: Assignment) -> None:
        """Permute the class vectors: class k gets the one that class ``permutation[k]`` has now.

        Checkpoints contain the order.

        Args:
            permutation: (K,), such as :func:`~nc_tools.geometry.assign_by_means` and
                :func:`~nc_tools.geometry.assign_by_similarity` return, or ``RANDOM``.

        Raises:
            ValueError: If it is not a permutation of 0 to K - 1.

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
        """Return the dot product of each sample's embedded features and its own class vector (N,)."""
        if not self.normalize:
            return super().label_scores(features, labels)
        return dot_normalized(self._project(features), self.frame.index_select(0, labels).to(features.dtype))

    def check_state(self, state: dict[str, Tensor], assignment: Tensor | None) -> str | None:
        """Return an error message if a checkpoint's class vectors do not have this head's geometry, else None."""
        frame = state.get("frame")
        if frame is None or frame.shape != self.frame.shape:  # torch reports both
            return None
        if assignment is not None:
            frame = torch.empty_like(frame).index_copy_(0, assignment.to(frame.device), frame)
        error = self.frame_error(frame)
        if error < 1e-2:
            return None
        return (
            f"frame must be a {self.geometry} frame, but the checkpoint's is off by {error:.2g}: the checkpoint is "
            f"damaged or from another head. Load one that was saved from {type(self).__name__}"
        )


def probe(frame: Tensor) -> Tensor:
    """Return a random vector (K,), always the same: a product with it tests a Gram matrix without storing it."""
    drawn = torch.randn(len(frame), dtype=frame.dtype, generator=stream(0, "frame", 1), device="cpu")
    return drawn.to(frame.device)


def read_description(state: Tensor) -> dict[str, Any]:
    """Return the :meth:`FixedHead.description` stored in a checkpoint."""
    values: dict[str, Any] = json.loads(bytes(state.cpu().tolist()).decode())
    return values
