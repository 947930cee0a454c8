"""A head for more classes than dimensions, with the fixed class vectors of a spherical code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nc_tools.geometry.code_bounds import minimal_angle_bounds
from nc_tools.geometry.spherical_code import SOLVER_LIMIT, code_angle, minimal_angle, spherical_code
from nc_tools.heads.frame import FixedFrameHead
from nc_tools.heads.scale import LearnedScale
from nc_tools.heads.vertex_order import Assignment
from nc_tools.seeds import stream

ROWS_CHECKED = 256  # to check this many rows of a loaded frame of 50,000 rows takes a second or two


class SphericalCodeHead(FixedFrameHead):
    """Fixed spherical-code head: any number of classes in any number of dimensions, class vectors far apart.

    Use it instead of :class:`ETFHead` if K > D + 1, where no simplex ETF exists. The class vectors approximately
    minimize max_{i != j} w_i . w_j (:func:`~nc_tools.geometry.spherical_code.spherical_code`); for K <= D + 1 they are
    the simplex ETF. ``print(head)`` shows the minimal angle and its upper bound. Fixed heads of this kind for many
    classes: Jiang et al. (2024, "Generalized Neural Collapse for a Large Number of Classes").

    Cost: the frame is solved once per (K, D) and process, in a second or two up to K = 60 and about a minute at
    K = 2,000; for larger K the code is constructed in seconds. Logits are a dense product. At
    (N, D, K) = (256, 768, 50,000) this is 10 G multiplications per step forward and as many backward, and 154 MB of
    frame in float32. A learned layer would also need the product for its weight gradient, the gradient and its
    optimizer state.

    With many classes in few dimensions, the angles between neighbors are small: set a larger ``scale`` than the
    default, which is that of a simplex. The main use is a projection to fewer dimensions than classes.

    Args:
        feature_dim: D; without a projection at least 2 where K > 2.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the frame: the number of dimensions, or True (to K dimensions, in which
            the code is a simplex).
        normalize: Scale the (projected) features to unit length.
        assignment: Which class vector each class takes: a permutation (K,), ``RANDOM``, or None for the order in which
            the code is constructed.
        frame_seed: Draws the Haar rotation of the code.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, the width before the frame is 1 with K > 2 or normalized features, the scale is not
            positive, or the assignment is no permutation.

    Example:
        >>> round(SphericalCodeHead(64, 12, projection=3).minimal_angle, 1)  # an icosahedron
        63.4
        >>> SphericalCodeHead(1, 3, normalize=False)
        Traceback (most recent call last):
        ...
        ValueError: a spherical code of 3 classes needs feature_dim >= 2, got 1: on a line there are only two directions
    """

    geometry = "spherical code"
    angle: Tensor

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
            feature_dim, num_classes, scale=scale, projection=projection, normalize=normalize, assignment=assignment,
            frame_seed=frame_seed, generator=generator,
        )  # fmt: skip
        # Checkpoints contain the angle, and their frame is checked against it: the solver of another version may find
        # another angle.
        self.register_buffer("angle", torch.full((1,), code_angle(num_classes, self.width)))

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return the code that ``frame_seed`` draws, and its minimal angle in degrees."""
        angle = torch.full((1,), code_angle(self.num_classes, self.width), device="cpu")
        return super().initial_buffers() | {"angle": angle}

    @staticmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator) -> Tensor:
        """Return a spherical code in a uniformly random rotation, of shape (K, D')."""
        return spherical_code(num_classes, width, generator=generator)

    @property
    def minimal_angle(self) -> float:
        """The smallest angle between two class vectors in degrees; after loading, that of the checkpoint."""
        return code_angle(self.num_classes, self.width) if self.angle.is_meta else float(self.angle)

    def frame_error(self, frame: Tensor) -> float:
        """Return the largest error of a row's norm, or by how many radians the minimal angle is too small, if larger.

        For a frame of more than 2,000 rows, the angles of 256 random rows are checked.
        """
        return _code_error(frame, self.minimal_angle)

    def check_state(self, state: Mapping[str, Tensor]) -> str | None:
        """Return an error if a checkpoint's class vectors do not have the minimal angle that it says they have."""
        frame, angle = state["frame"], float(state["angle"])
        if frame.shape != self.frame.shape or (error := _code_error(frame, angle)) < 1e-2:
            return None
        return (
            f"frame must be a spherical code frame, but the checkpoint's is off by {error:.2g}: the checkpoint is "
            f"damaged or from another head. Load one that was saved from {type(self).__name__}"
        )

    def from_former(self, state: dict[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint of version 0.2, which stored the minimal angle beside them."""
        return state | {"angle": torch.tensor([float(description["minimal_angle"])])}

    def extra_repr(self) -> str:
        """Return the minimal angle for ``print(model)``."""
        upper = minimal_angle_bounds(self.num_classes, self.frame.shape[1]).upper
        return f"{super().extra_repr()}, minimal_angle={self.minimal_angle:.2f} deg (at most {upper:.2f})"


def _code_error(frame: Tensor, degrees: float) -> float:
    """Return the error of :meth:`SphericalCodeHead.frame_error` for class vectors (K, D') with this minimal angle."""
    norm_error = float((torch.linalg.vector_norm(frame.detach().to(torch.float64), dim=1) - 1).abs().max())
    if not norm_error < 1:  # a zero row has no angle
        return norm_error
    rows = torch.randperm(len(frame), generator=stream(0, "frame", 1), device="cpu")[:ROWS_CHECKED]
    angle = minimal_angle(frame, rows=rows if len(frame) > SOLVER_LIMIT else None)
    return max(norm_error, math.radians(degrees - angle))
