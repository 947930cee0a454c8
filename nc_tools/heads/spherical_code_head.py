"""The head for more classes than dimensions: class vectors of a spherical code."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from nc_tools.geometry.code_bounds import minimal_angle_bounds
from nc_tools.geometry.spherical_code import SOLVER_LIMIT, code_angle, minimal_angle, spherical_code
from nc_tools.heads.frame import FixedFrameHead
from nc_tools.seeds import stream

ROWS_CHECKED = 256  # of a frame of 50,000 rows that is loaded: a second or two


class SphericalCodeHead(FixedFrameHead):
    """Fixed spherical-code head: any number of classes in any number of dimensions, class vectors far apart.

    The heir of :class:`ETFHead` where K > D + 1 and no simplex ETF exists: the class vectors minimize max_{i != j}
    w_i . w_j as far as :func:`~nc_tools.geometry.spherical_code.spherical_code` can; at K <= D + 1 they are the simplex
    ETF. The printout shows the minimal angle beside what no code can exceed. Fixed heads of this kind, for many
    classes: Jiang et al. (2024, "Generalized Neural Collapse for a Large Number of Classes").

    Costs: the frame is solved once for each (K, D) in a process: a second or two up to K = 60, about a minute at 2,000,
    and seconds again beyond, where the code is written down instead. Logits are a dense product: at
    (N, D, K) = (256, 768, 50,000) 10 G multiplications a step forward and as many backward, and 154 MB of frame in
    float32, without a learned layer's product for the weight's gradient, that gradient, and its optimizer state.

    With many classes in few dimensions neighbors are near: set a larger ``scale`` than the default, which is made for
    a simplex. A projection to fewer dimensions than classes is what this head is for.

    Args:
        feature_dim: D; without a projection at least 2 where K > 2.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the frame: a number of dimensions; True to K, where the code is a simplex.
        normalize: Scale the (projected) features to unit length.
        frame_seed: Draws the Haar rotation of the code.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, the width before the frame is 1 where K > 2 or features are normalized, or the scale is
            not positive.

    Example:
        >>> round(SphericalCodeHead(64, 12, projection=3).minimal_angle, 1)  # an icosahedron
        63.4
        >>> SphericalCodeHead(1, 3, normalize=False)
        Traceback (most recent call last):
        ...
        ValueError: a spherical code of 3 classes needs feature_dim >= 2, got 1: on a line there are only two directions
    """

    geometry = "spherical code"
    _told_angle: float | None = None

    @staticmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator) -> Tensor:
        """Return a Haar-rotated spherical code (K, D')."""
        return spherical_code(num_classes, width, generator=generator)

    @property
    def minimal_angle(self) -> float:
        """The smallest angle between two class vectors, degrees: of the code as built, or as told by a checkpoint."""
        if self._told_angle is None:
            return code_angle(self.num_classes, self.frame.shape[1])
        return self._told_angle

    def frame_error(self, frame: Tensor) -> float:
        """Return the larger of a row's deviation from unit length and what the minimal angle lacks, in radians.

        Of a frame with more rows than the solver makes, the angles of 256 random rows are checked.
        """
        uneven = float((torch.linalg.vector_norm(frame.detach().to(torch.float64), dim=1) - 1).abs().max())
        if not uneven < 1:  # a zero row has no angle
            return uneven
        some = torch.randperm(len(frame), generator=stream(0, "frame", 1), device="cpu")[:ROWS_CHECKED]
        angle = minimal_angle(frame, rows=some if len(frame) > SOLVER_LIMIT else None)
        return max(uneven, math.radians(self.minimal_angle - angle))

    def get_extra_state(self) -> Tensor:
        """Say the minimal angle beside the geometry and the seed."""
        told = _told(super().get_extra_state()) | {"minimal_angle": self.minimal_angle}
        return torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the frame's seed and minimal angle; refuse another geometry."""
        super().set_extra_state(state)
        self._told_angle = float(_told(state)["minimal_angle"])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The frame is held to the angle it was saved with: another version's solver may have found another code.
        state = state_dict.get(prefix + "_extra_state")
        if state is not None and (told := _told(state))["geometry"] == self.geometry:
            self._told_angle = float(told["minimal_angle"])
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Show the minimal angle in the model's printout."""
        upper = minimal_angle_bounds(self.num_classes, self.frame.shape[1]).upper
        return f"{super().extra_repr()}, minimal_angle={self.minimal_angle:.2f} deg (at most {upper:.2f})"


def _told(state: Tensor) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(bytes(state.cpu().tolist()).decode())
    return told
