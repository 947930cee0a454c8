"""Heads with fixed class vectors: vertices of a simplex, an orthoplex or a cube, or rows of a Hadamard matrix."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from nc_tools.geometry import cube, haar_frame, hadamard, orthoplex, simplex_etf
from nc_tools.geometry.hadamard import power_of_two
from nc_tools.heads.frame import FixedFrameHead
from nc_tools.heads.frame_errors import error_of_cosines, probe, simplex_error
from nc_tools.heads.scale import LearnedScale
from nc_tools.heads.vertex_order import Assignment
from nc_tools.seeds import stream


class PolytopeHead(FixedFrameHead):
    """Base class of heads whose class vectors are vertices of a polytope, after a learned projection to its width.

    Source: Pernici et al. (2021, "Regular polytope networks"). They change the width of the backbone's last layer; here
    a projection without bias or nonlinearity does the same for any backbone. The frame needs no rotation, because the
    projection can learn any. Without a projection, ``frame_seed`` draws a Haar rotation of the frame: otherwise
    features after a ReLU could not reach a vertex with negative coordinates.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, ``LEARNED_PER_CLASS``, or None for
            :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map to D'; False for features that have this width already.
        normalize: Scale the (projected) features to unit length.
        assignment: Which vertex each class takes: a permutation (K,), ``RANDOM``, or None for class k on vertex k.
        frame_seed: Draws the rotation if there is no projection, and the order if the assignment is ``RANDOM``;
            otherwise all seeds give the same frame.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, D' = 1 with normalized features, the scale is not positive, or there is no projection and
            the features are not D' wide.
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        scale: float | LearnedScale | None = None,
        projection: bool | int = True,
        normalize: bool = True,
        assignment: Assignment | None = None,
        frame_seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        width = self.own_width(max(num_classes, 2)) if projection is True else int(projection) or feature_dim
        self.check_width(max(num_classes, 2), width)
        super().__init__(
            feature_dim,
            num_classes,
            scale=scale,
            projection=width if projection else False,
            normalize=normalize,
            assignment=assignment,
            frame_seed=frame_seed,
            generator=generator,
        )

    def new_frame(self) -> Tensor:
        """Return the vertices (K, D') in the order of the assignment; rotated if there is no projection."""
        vertices = super().new_frame()
        if self.projection is not None:
            return vertices
        return vertices @ haar_frame(self.width, self.width, generator=stream(self.frame_seed, "frame")).T

    @staticmethod
    @abstractmethod
    def own_width(num_classes: int) -> int:
        """Return the width D' of the polytope: the fewest dimensions in which it has K vertices."""

    @classmethod
    def check_width(cls, num_classes: int, width: int) -> None:
        """Raise a ValueError if the width of the features is not that of the polytope, D'."""
        if width != (own := cls.own_width(num_classes)):
            raise ValueError(
                f"{cls.__name__} of {num_classes} classes needs features of width {own}, got {width}: use "
                f"projection=True for a learned map to {own}, or ETFHead or SphericalCodeHead for other widths"
            )

    @abstractmethod
    def frame_error(self, frame: Tensor) -> float:
        """Return how far class vectors (K, D') are from the vertices, in any order and rotation."""


class SimplexHead(PolytopeHead):
    """Minimal simplex head: the ETF of :class:`~nc_tools.heads.ETFHead` in the fewest dimensions, D' = K - 1.

    In a layer this narrow, the class vectors span all directions of the embedded features. Source: Kasarla et al.
    (2022, "Maximum class separation as inductive bias in one matrix", eq. 1 and 3): z = radius P^T h' with h' the
    features after a linear layer to K - 1 dimensions, not normalized. ``radius`` gives that form; without it features
    are normalized and scaled as in the other heads. The vertices have a closed form instead of the paper's recursion.

    The frame is dense: 400 MB at K = 10,000. For thousands of classes use
    :class:`~nc_tools.heads.StructuredETFHead`, which stores no matrix.

    Args:
        feature_dim: D.
        num_classes: K, at least 2; 2 only with ``radius`` or ``normalize=False``, because D' = 1.
        radius: Length of the class vectors for features that are not normalized, a positive number (the paper: 0.1
            for a ResNet, 1 for an AlexNet). It replaces ``scale`` and implies ``normalize=False``.
        scale: As for :class:`PolytopeHead`.
        projection: As for :class:`PolytopeHead`.
        normalize: As for :class:`PolytopeHead`.
        assignment: As for :class:`PolytopeHead`.
        frame_seed: As for :class:`PolytopeHead`.
        generator: As for :class:`PolytopeHead`.

    Raises:
        ValueError: As for :class:`PolytopeHead`, or if both a scale and a radius are given.

    Example:
        >>> head = SimplexHead(64, 10, radius=0.1)
        >>> head.weight.shape, head.scale
        (torch.Size([10, 9]), tensor([0.1000]))
    """

    geometry = "minimal simplex"

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        radius: float | None = None,
        scale: float | LearnedScale | None = None,
        projection: bool = True,
        normalize: bool = True,
        assignment: Assignment | None = None,
        frame_seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        if radius is not None and scale is not None:
            raise ValueError(f"pass only one of radius and scale, got radius={radius} and scale={scale}")
        super().__init__(
            feature_dim,
            num_classes,
            scale=scale if radius is None else radius,
            projection=projection,
            normalize=normalize and radius is None,
            assignment=assignment,
            frame_seed=frame_seed,
            generator=generator,
        )

    @staticmethod
    def own_width(num_classes: int) -> int:
        """Return K - 1, the fewest dimensions of a simplex with K vertices."""
        return num_classes - 1

    @staticmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator) -> Tensor:  # noqa: ARG004
        """Return the simplex ETF without a rotation, of shape (K, K - 1)."""
        return simplex_etf(num_classes, width)

    def frame_error(self, frame: Tensor) -> float:
        """Return how far class vectors W (K, D') are from a simplex ETF: the relative error of W W^T v, v random."""
        return simplex_error(frame)


class OrthoplexHead(PolytopeHead):
    """Cross-polytope head: two opposite class vectors on each axis, D' = ceil(K / 2).

    It needs half the width of a simplex, and its angles are nearly as large: at least 90 degrees between any two
    vectors, against 90 + O(1 / K) in the simplex. The two classes of an axis are opposite. By default classes 0 and 1,
    2 and 3, and so on share an axis; choose others with ``assignment`` (``RANDOM``, or
    :func:`~nc_tools.geometry.assign_by_similarity`). Source: Pernici et al. (2021, "Regular polytope networks").

    Arguments and errors are those of :class:`PolytopeHead`.

    Example:
        >>> head = OrthoplexHead(64, 10)
        >>> (head.weight @ head.weight.T)[0, :3].tolist()
        [1.0, -1.0, 0.0]
    """

    geometry = "orthoplex"

    @staticmethod
    def own_width(num_classes: int) -> int:
        """Return ceil(K / 2), the fewest dimensions of a cross-polytope with K vertices."""
        return (num_classes + 1) // 2

    @staticmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator) -> Tensor:  # noqa: ARG004
        """Return the first K vertices of the cross-polytope, of shape (K, ceil(K / 2))."""
        return orthoplex(num_classes)

    def frame_error(self, frame: Tensor) -> float:
        """Return how far the cosines of the class vectors (K, D') are from 0 and -1, and their lengths from 1.

        K unit vectors with these cosines in ceil(K / 2) dimensions are on that many axes, so they are the vertices.
        """
        return error_of_cosines(frame, torch.tensor([-1.0, 0.0]))


class CubeHead(PolytopeHead):
    """Hypercube head: class vectors at the corners of a cube, with entries +-1 / sqrt(D'), D' = ceil(log2 K).

    The narrowest of these heads: a thousand classes in ten dimensions, each class a binary code. Two classes that
    differ in one sign have cosine 1 - 2 / D', so it matters which classes are neighbors: choose with ``assignment``.
    Source: Pernici et al. (2021, "Regular polytope networks").

    Arguments and errors are those of :class:`PolytopeHead`.

    Example:
        >>> CubeHead(64, 1000).weight.shape
        torch.Size([1000, 10])
    """

    geometry = "cube"

    @staticmethod
    def own_width(num_classes: int) -> int:
        """Return ceil(log2 K), the fewest dimensions of a cube with K corners."""
        return (num_classes - 1).bit_length()

    @staticmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator) -> Tensor:  # noqa: ARG004
        """Return the first K corners of the cube, of shape (K, ceil(log2 K))."""
        return cube(num_classes)

    def frame_error(self, frame: Tensor) -> float:
        """Return how far the class vectors are from the corners, in any order and rotation.

        This is the larger of two errors. The first is that of lengths and cosines, which must be 1 and 1 - 2 h / D' for
        h = 1..D'. The second is that of the eigenvalues of W^T W, which tell the K corners from other points with such
        cosines.
        """
        classes, width = frame.shape
        w = frame.detach().to(torch.float64)
        error = error_of_cosines(w, 1 - 2 * torch.arange(width, 0, -1) / width)
        if not error < 1:  # NaN too, of which eigenvalues cannot be computed
            return error
        given, expected = (torch.linalg.eigvalsh(rows.T @ rows) for rows in (w, cube(classes).to(w)))
        return max(error, float((given - expected).abs().max()) * width / classes)


class HadamardHead(PolytopeHead):
    """Hadamard head: orthogonal class vectors, the first K rows of a Hadamard matrix divided by sqrt(D').

    The fixed classifier of Hoffer, Hubara & Soudry (2018, "Fix your classifier", section 3). Here rows are complete, so
    they are orthogonal for any K; the paper cuts them to the backbone's width. With a softmax this *is* a simplex ETF:
    subtracting the mean of the rows changes no probability and gives an ETF of length sqrt((K - 1) / K). The two differ
    for losses that use only the vector of a sample's own class, such as dot regression.

    D' is a power of two, at least K: the smallest one, or the number given as ``projection``, or with
    ``projection=False`` the width of the features. Other arguments and errors are those of :class:`PolytopeHead`.

    Example:
        >>> head = HadamardHead(64, 10)
        >>> head.weight.shape, bool((head.weight.abs() == 0.25).all())
        (torch.Size([10, 16]), True)
    """

    geometry = "Hadamard"

    @staticmethod
    def own_width(num_classes: int) -> int:
        """Return the smallest power of two that is at least K."""
        return power_of_two(num_classes)

    @classmethod
    def check_width(cls, num_classes: int, width: int) -> None:
        """Check that the width of the features is a power of two and at least K.

        Raises:
            ValueError: If it is not.
        """
        if width < num_classes or width != power_of_two(width):
            raise ValueError(
                f"{cls.__name__} of {num_classes} classes needs features of a width that is a power of two and at "
                f"least {num_classes}, got {width}: use projection=True for a learned map to "
                f"{power_of_two(num_classes)}, or ETFHead or SphericalCodeHead for other widths"
            )

    @staticmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator) -> Tensor:  # noqa: ARG004
        """Return the first K rows of the Hadamard matrix, scaled to unit length, of shape (K, D')."""
        block = power_of_two(num_classes)  # the first rows of a larger matrix repeat those of this one
        rows = hadamard(block)[:num_classes].repeat(1, width // block)
        return rows.mul_(width**-0.5)

    def frame_error(self, frame: Tensor) -> float:
        """Return the relative error of W W^T v, W the class vectors (K, D') and v random: W W^T must be I."""
        w = frame.detach().to(torch.float64)
        v = probe(w)
        return float(torch.linalg.vector_norm(w @ (w.T @ v) - v) / torch.linalg.vector_norm(v))
