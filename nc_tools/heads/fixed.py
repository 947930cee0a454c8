"""Heads whose class vectors are fixed before training."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nc_tools.geometry import simplex_etf
from nc_tools.heads.base import Head, draw_linear
from nc_tools.heads.scale import LearnedScale, Scale
from nc_tools.heads.unit import dot_with_unit, unit
from nc_tools.seeds import stream


class FixedFrameHead(Head):
    """A head with fixed unit class vectors: z_k = s w_k . u, u the projected and normalised feature.

    The frame is a persistent buffer called ``frame``: moved, copied, saved and averaged with the model, but never
    trained, decayed or reduced. It is not called ``weight``, so that the learned layer of an old checkpoint cannot slip
    into it, and loading checks that what arrives has this geometry, with ``strict=False`` too.

    Subclasses define :meth:`draw_frame` and ``geometry``.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the frame: True to K dimensions, or a number of dimensions. Without a
            bias, which on small features would give all samples one direction.
        normalise: Scale the (projected) features to unit length. Without it, every direction outside the frame's span
            gets no gradient under cross-entropy, and one rate and scale no longer serve all.
        frame_seed: Draws the frame; two heads of one seed have the same frame, whatever else was drawn before.
        generator: Draws the projection's initial weights; the global one if None.
    """

    geometry: ClassVar[str]
    bias = None
    frame: Tensor

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        scale: float | LearnedScale | None = None,
        projection: bool | int = False,
        normalise: bool = True,
        frame_seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(feature_dim, num_classes)
        width = num_classes if projection is True else int(projection) or feature_dim
        self.normalise = normalise
        self.frame_seed = frame_seed
        self.scale_of = Scale(scale, num_classes)
        frame = self.draw_frame(num_classes, width, stream(frame_seed, "frame"))
        self.register_buffer("frame", frame.to(torch.get_default_device(), torch.get_default_dtype()))
        self.projection: nn.Linear | None = None
        if projection:
            # Without nn.Linear's own initial weights, which would be drawn from the global generator.
            empty = nn.Linear(feature_dim, width, bias=False, device="meta")
            self.projection = empty.to_empty(device=torch.get_default_device())
            draw_linear(self.projection.weight, None, generator)

    @staticmethod
    @abstractmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator) -> Tensor:
        """Return the class vectors (K, D'), float64, unit rows."""

    @abstractmethod
    def frame_error(self, frame: Tensor) -> float:
        """Return how far a (K, D') matrix is from this geometry: 0 where it has it exactly."""

    @property
    def weight(self) -> Tensor:
        """Class vectors (K, D')."""
        return self.frame

    @property
    def scale(self) -> Tensor | float:  # type: ignore[override]
        """The scale s."""
        return self.scale_of.value()

    def embed(self, features: Tensor) -> Tensor:
        """Project and normalise: (N, D) to (N, D')."""
        projected = self._project(features)
        return unit(projected) if self.normalise else projected

    def own_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return w_y . embed(features) for each sample's own class (N,), without forming the unit features."""
        if not self.normalise:
            return super().own_scores(features, labels)
        return dot_with_unit(self._project(features), self.frame.index_select(0, labels).to(features.dtype))

    def _project(self, features: Tensor) -> Tensor:
        if self.projection is None:
            return features
        return nn.functional.linear(features, self.projection.weight.to(features.dtype))

    def get_extra_state(self) -> Tensor:
        """Say beside the frame what it is, as bytes: a tensor, so that safetensors and weights-only loading take it."""
        told = json.dumps({"geometry": self.geometry, "frame_seed": self.frame_seed}).encode()
        return torch.frombuffer(bytearray(told), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the frame's seed; refuse another geometry."""
        told = json.loads(bytes(state.cpu().tolist()).decode())
        if told["geometry"] != self.geometry:
            raise ValueError(
                f"{type(self).__name__} holds a {self.geometry} frame, the checkpoint a {told['geometry']} frame: "
                f"build the head that the checkpoint was saved from"
            )
        self.frame_seed = int(told["frame_seed"])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # torch reports what is in error_msgs whether strict or not; missing keys only when strict.
        error_msgs: list[str] = rest[-1]
        frame = state_dict.get(prefix + "frame")
        name = prefix.rstrip(".") or type(self).__name__
        if prefix + "weight" in state_dict:
            error_msgs.append(
                f"{name} is a fixed {self.geometry} frame, but the checkpoint holds a learned {prefix}weight: "
                f"remove {prefix}weight and {prefix}bias from it to load the backbone alone"
            )
        elif frame is not None and frame.shape == self.frame.shape:
            error = self.frame_error(frame)
            if not error < 1e-2:
                error_msgs.append(
                    f"{prefix}frame must be a {self.geometry} frame, but the checkpoint's is off by {error:.2g}"
                )
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Show the geometry in the model's printout."""
        return f"{super().extra_repr()}, geometry={self.geometry}, frame_seed={self.frame_seed}"


class ETFHead(FixedFrameHead):
    """Fixed simplex-ETF head: class vectors that are all as far apart as can be, never trained.

    Spares K x D parameters and their optimiser state, and keeps rare classes from merging (minority collapse). Whether
    it helps on given data is what the comparison is for: see benchmarks/results for what we measured.

    With ``projection=True, scale=LEARNED`` and a prior-adjusted loss this is the head of FedETF (Li et al. 2023, eq. 5
    to 7), with unit rows: the public matrix lacks the factor sqrt(K / (K - 1)). Without, and with
    :class:`~nc_tools.losses.DotRegression`, it is the head of Yang et al. (2022, eq. 2 and 8).

    Args:
        feature_dim: D; without a projection at least K - 1.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the frame: True to K dimensions, or a number of dimensions >= K - 1.
        normalise: Scale the (projected) features to unit length.
        frame_seed: Draws the Haar rotation of the frame.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, the width before the frame is below K - 1, or the scale is not positive.

    Example:
        >>> head = ETFHead(64, 10)
        >>> [round(float(v), 3) for v in (head.weight @ head.weight.T)[0, :2]]
        [1.0, -0.111]
        >>> ETFHead(8, 10)
        Traceback (most recent call last):
        ...
        ValueError: a simplex ETF of 10 classes needs feature_dim >= 9, got 8: put a projection to at least 9 \
dimensions before it (projection=9)
    """

    geometry = "simplex ETF"

    @staticmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator) -> Tensor:
        """Return a Haar-rotated simplex ETF (K, D')."""
        return simplex_etf(num_classes, width, generator=generator)

    def frame_error(self, frame: Tensor) -> float:
        """Compare W W^T v with (K v - sum(v)) / (K - 1) for one random v: O(K D'), no K x K Gram matrix."""
        w = frame.detach().to(torch.float64)
        v = torch.randn(w.shape[0], dtype=w.dtype, generator=stream(0, "frame", 1), device="cpu").to(w.device)
        expected = (w.shape[0] * v - v.sum()) / (w.shape[0] - 1)
        return float(torch.linalg.vector_norm(w @ (w.T @ v) - expected) / torch.linalg.vector_norm(expected))


class FrozenRandomHead(FixedFrameHead):
    """Fixed random unit class vectors: the control that tells the ETF from the freezing.

    Whatever an :class:`ETFHead` gains that this head gains too is not owed to the geometry. Rows are independent
    Gaussian directions; everything else (scale, projection, normalisation) is as in :class:`ETFHead`.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the frame: True to K dimensions, or a number of dimensions.
        normalise: Scale the (projected) features to unit length.
        frame_seed: Draws the frame.
        generator: Draws the projection's initial weights; the global one if None.

    Example:
        >>> head = FrozenRandomHead(64, 10)
        >>> bool(torch.allclose(head.weight.norm(dim=1), torch.ones(10)))
        True
    """

    geometry = "random"

    @staticmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator) -> Tensor:
        """Return independent random unit rows (K, D')."""
        return unit(torch.randn(num_classes, width, dtype=torch.float64, generator=generator, device="cpu"))

    def frame_error(self, frame: Tensor) -> float:
        """Return the largest deviation of a row's norm from one."""
        return float((torch.linalg.vector_norm(frame.detach().to(torch.float64), dim=1) - 1).abs().max())
