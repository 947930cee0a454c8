"""Lower and upper bounds on the largest minimal angle of K unit vectors in D dimensions."""

import math
from dataclasses import dataclass

from nc_tools.geometry.known_codes import BEST_KNOWN


@dataclass(frozen=True)
class AngleBounds:
    """Bounds on the largest minimal angle that K unit vectors in D dimensions can have.

    Attributes:
        lower: The largest minimal angle of a known code, in degrees; None if no code is tabulated for these sizes.
        upper: An angle that no code exceeds, in degrees.
    """

    lower: float | None
    upper: float


def minimal_angle_bounds(num_classes: int, feature_dim: int) -> AngleBounds:
    """Return bounds on the largest minimal angle of K unit vectors in D dimensions.

    Use it to judge a spherical code: compare its minimal angle with the best known code and with the upper bound.

    - K <= D + 1: the simplex, arccos(-1 / (K - 1)); D + 2 <= K <= 2 D: 90 degrees (Rankin 1955). Both are attained.
    - D = 2: 360 / K degrees, attained.
    - otherwise, the upper bound is Levenshtein's, or for D = 3 that of Fejes Toth if it is smaller; the lower bound
      comes from tables.

    The Welch bound sqrt((K - D) / (D (K - 1))) is not used: it bounds max |w_i . w_j|, for which opposite vectors are
    as bad as equal ones. A classifier scores the signed product, for which opposite class vectors are the best.

    Args:
        num_classes: K, at least 2.
        feature_dim: D; at least 2, or 1 for two classes.

    Returns:
        Both bounds, in degrees; equal if the optimum has a closed form.

    Raises:
        ValueError: If K < 2, or if D is too small: D < 1, or D < 2 for K > 2.

    Example:
        >>> minimal_angle_bounds(10, 5)
        AngleBounds(lower=90.0, upper=90.0)
        >>> bounds = minimal_angle_bounds(12, 3)  # the icosahedron
        >>> round(bounds.lower, 3), round(bounds.upper, 3)
        (63.435, 63.435)
    """
    check_sizes(num_classes, feature_dim)
    exact = closed_form_angle(num_classes, feature_dim)
    if exact is not None:
        return AngleBounds(exact, exact)
    upper = math.degrees(math.acos(levenshtein_cosine(num_classes, feature_dim)))
    if feature_dim == 3:
        upper = min(upper, fejes_toth_angle(num_classes))
    return AngleBounds(BEST_KNOWN.get((num_classes, feature_dim)), upper)


def check_sizes(num_classes: int, feature_dim: int) -> None:
    """Raise ValueError if K < 2 or D < 1, or if more than two vectors would lie on a line."""
    if num_classes < 2:
        raise ValueError(f"a spherical code needs at least 2 classes, got {num_classes}")
    if feature_dim < (1 if num_classes == 2 else 2):
        raise ValueError(
            f"a spherical code of {num_classes} classes needs feature_dim >= {1 if num_classes == 2 else 2}, "
            f"got {feature_dim}: on a line there are only two directions"
        )


def closed_form_angle(num_classes: int, feature_dim: int) -> float | None:
    """Return the largest minimal angle in degrees if it has a closed form (K <= 2 D, or D = 2), else None.

    Example:
        >>> closed_form_angle(3, 2), closed_form_angle(8, 2), closed_form_angle(7, 3)
        (120.0, 45.0, None)
    """
    if feature_dim == 2 or num_classes == 2:
        return 360 / num_classes if num_classes != 4 else 90.0
    if num_classes <= feature_dim + 1:
        return math.degrees(math.acos(-1 / (num_classes - 1)))
    return 90.0 if num_classes <= 2 * feature_dim else None


def fejes_toth_angle(num_classes: int) -> float:
    """Return an upper bound on the minimal angle of K >= 3 points on the sphere in three dimensions, in degrees.

    arccos((cot(w)^2 - 1) / 2), w = (K / (K - 2)) 30 degrees (Fejes Toth 1943): attained at K = 3, 4, 6, 12.

    Example:
        >>> [round(fejes_toth_angle(k), 4) for k in (4, 6, 13)]
        [109.4712, 90.0, 60.9197]
    """
    omega = num_classes / (num_classes - 2) * math.pi / 6
    return math.degrees(math.acos((1 / math.tan(omega) ** 2 - 1) / 2))


def levenshtein_cosine(num_classes: int, feature_dim: int) -> float:
    """Return a lower bound s on the largest inner product of two among K unit vectors in D >= 3 dimensions.

    Levenshtein's functions L_t(D, s) bound the number of vectors whose products are at most s. L_t is valid on an
    interval of s; at its ends L_t equals R_t and R_(t+1), the smallest sizes of spherical designs of strength t and
    t + 1. This function picks the interval that contains K and inverts its L_t. With P_k the Gegenbauer polynomials
    of D dimensions, P_k(1) = 1, and C binomial coefficients:

    - L_(2k-1) = C(k+D-3, k-1) [(2k+D-3)/(D-1) - (P_(k-1) - P_k) / ((1-s) P_k)]
    - L_(2k) = C(k+D-2, k) [(2k+D-1)/(D-1) - (1+s) (P_k - P_(k+1)) / ((1-s) (P_k + P_(k+1)))]

    Source: Levenshtein (1979; 1992, "Designs as maximum codes in polynomial metric spaces"); R_t: Delsarte, Goethals &
    Seidel (1977). Attained by the icosahedron, the roots of E8, the Leech lattice's vectors and the other sharp codes.

    Args:
        num_classes: K, at least 2.
        feature_dim: D, at least 3.

    Example:
        >>> round(levenshtein_cosine(240, 8), 9), round(levenshtein_cosine(196560, 24), 9)
        (0.5, 0.5)
    """
    from scipy.optimize import brentq
    from scipy.special import roots_jacobi

    strength = 1
    while _smallest_design(strength + 1, feature_dim) < num_classes:
        strength += 1
    k, a = (strength + 1) // 2, (feature_dim - 3) / 2

    def largest_root(degree: int, at_one: int, at_minus_one: int) -> float:
        return float(roots_jacobi(degree, a + at_one, a + at_minus_one)[0][-1]) if degree else -1.0

    odd = strength % 2 == 1
    low = largest_root(k - 1, 1, 1) if odd else largest_root(k, 1, 0)
    high = largest_root(k, 1, 0) if odd else largest_root(k, 1, 1)

    def excess(s: float) -> float:
        bound = _levenshtein_odd(k, feature_dim, s) if odd else _levenshtein_even(k, feature_dim, s)
        return bound / num_classes - 1

    if excess(low) >= 0 or excess(high) <= 0:  # K at an end of the interval, up to rounding
        return low if abs(excess(low)) <= abs(excess(high)) else high
    return float(brentq(excess, low, high, xtol=1e-14))


def _smallest_design(strength: int, dim: int) -> int:
    """Return R_t, the smallest size that a spherical design of strength t can have."""
    half = strength // 2
    if strength % 2:
        return 2 * math.comb(half + dim - 1, dim - 1)
    return math.comb(half + dim - 1, dim - 1) + math.comb(half + dim - 2, dim - 1)


def _gegenbauer(degree: int, dim: int, s: float) -> tuple[float, float]:
    """Return P_degree and P_(degree + 1) at s, scaled so that P(1) = 1."""
    current, following = 1.0, s
    for j in range(1, degree + 1):
        current, following = following, ((2 * j + dim - 2) * s * following - j * current) / (j + dim - 2)
    return current, following


def _levenshtein_odd(k: int, dim: int, s: float) -> float:
    """Return L_(2k-1)(D, s) of :func:`levenshtein_cosine`."""
    p, following = _gegenbauer(k - 1, dim, s)
    return math.comb(k + dim - 3, k - 1) * ((2 * k + dim - 3) / (dim - 1) - (p - following) / ((1 - s) * following))


def _levenshtein_even(k: int, dim: int, s: float) -> float:
    """Return L_(2k)(D, s) of :func:`levenshtein_cosine`."""
    p, following = _gegenbauer(k, dim, s)
    ratio = (1 + s) * (p - following) / ((1 - s) * (p + following))
    return math.comb(k + dim - 2, k) * ((2 * k + dim - 1) / (dim - 1) - ratio)
