"""What each number of a collapse report says, in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Shown:
    """A row of the report's table.

    Attributes:
        key: Of the quantity.
        label: What people call it.
        read: Its value in words.
        spreads: Whether the test value as a multiple of the training value is worth a word.
    """

    key: str
    label: str
    read: Callable[[float], str]
    spreads: bool = False


def steps(first: float, near: str, second: float, middle: str, far: str) -> Callable[[float], str]:
    """Return words for a number that is good near 0: below the first bound, below the second, above."""
    return lambda value: near if value < first else middle if value < second else far


ROWS = (
    Shown("nc1_pinv", "NC1, pseudo-inverse",
          steps(0.1, "classes are nearly points", 1.0, "classes are tight but no points", "classes are spread"), True),
    Shown("nc1_trace", "NC1, trace ratio",
          steps(0.1, "far smaller within than between", 1.0, "smaller within classes than between",
                "wider within classes than between"), True),
    Shown("cdnv", "CDNV",
          steps(0.1, "class pairs lie far apart for their width", 1.0, "class pairs overlap little",
                "class pairs overlap"), True),
    Shown("vci", "variability index",
          steps(0.05, "no linear map could separate more", 0.3, "a little spread no linear map removes",
                "much spread that no linear map removes"), True),
    Shown("cosine_within", "cosine within classes",
          lambda v: f"{'one direction a class' if v > 0.9 else 'directions differ within a class'}; 1 is collapsed"),
    Shown("cosine_between", "cosine between classes", lambda _: "the simplex has -1/(K - 1)"),
    Shown("nc2_equinorm", "NC2, equal norms",
          steps(0.05, "class means equally long", 0.25, "class means roughly equally long",
                "class means of unequal length")),
    Shown("nc2_equiangular", "NC2, equal angles",
          steps(0.03, "class means at equal angles", 0.12, "class means at roughly equal angles",
                "some classes much nearer than others")),
    Shown("nc2_gram", "NC2, distance to simplex",
          steps(0.1, "class means form a simplex", 0.4, "class means near a simplex", "class means form no simplex")),
    Shown("gnc2", "GNC2, uniformity",
          steps(0.1, "classes evenly spread", 0.4, "classes fairly evenly spread", "classes unevenly spread")),
    Shown("nc3_distance", "NC3, head to means",
          steps(0.1, "head rows are the class means", 0.5, "head rows near the class means",
                "head rows differ from the class means")),
    Shown("nc3_cosine", "NC3, 1 - cosine",
          steps(0.05, "head rows point along class means", 0.3, "head rows lean to class means",
                "head rows point elsewhere")),
    Shown("nc3_uniform", "NC3, uniform",
          steps(0.05, "all classes equally aligned", 0.3, "classes aligned unlike", "some classes far less aligned")),
    Shown("nc4_disagreement", "NC4, other than nearest mean",
          lambda v: "head decides as the nearest class mean" if v == 0 else
          f"{100 * v:.1f} % decided otherwise than by nearest mean"),
    Shown("nc0", "NC0, common direction",
          steps(1e-3, "head rows sum to nothing", 0.1, "head rows nearly sum to nothing",
                "head rows share a direction")),
)  # fmt: skip

# Key, label, what it is.
HEAD_ROWS = {
    "minority_cosine": ("cosine, rare classes", "mean over pairs; the simplex has -1/(K - 1)"),
    "minority_cosine_max": ("largest of them", "1 is merged"),
    "minority_angle_min": ("smallest angle, degrees", "between two rare classes"),
    "majority_cosine": ("cosine, other classes", "mean over pairs"),
    "cross_cosine": ("cosine, rare and other", "mean over pairs"),
    "minority_norm_ratio": ("norm, rare over other", "below 1 the head holds rare classes back"),
    "seli_weight": ("distance to SELI", "the limit of imbalanced cross-entropy; 0 is reached"),
    "etf_weight": ("distance to simplex", "0 is reached"),
}


def reading(row: Shown, train: float | None, test: float | None) -> str:
    """Return one line on a quantity: the training value in words, and how the test value compares."""
    value = train if train is not None else test
    if value is None:
        return ""
    said = row.read(value)
    if not row.spreads or train is None or test is None or train <= 0:
        return said
    factor = test / train
    if factor > 1.5:
        return f"{said}; {factor:.1f} times as much on test" if factor < 100 else f"{said}; far more on test"
    return f"{said}; alike on test" if factor > 0.67 else f"{said}; less on test"


def collapse_headline(train: dict[str, float] | None, test: dict[str, float] | None) -> str:
    """Return the report's first sentence."""
    shown = train or test or {}
    value = shown.get("nc/nc1_pinv")
    if value is None:
        return "These images do not define NC1: a class with two of them is needed, and class means that differ."
    row = ROWS[0]
    where = "training" if train else "these"
    first = f"On {where} images {row.read(value)} (NC1 {value:.3g})"
    if train and test and "nc/nc1_pinv" in test:
        factor = test["nc/nc1_pinv"] / value if value > 0 else float("inf")
        then = "test images are alike" if factor < 1.5 else f"test images {min(factor, 999):.3g} times as spread"
        return f"{first}; {then}."
    return f"{first}."
