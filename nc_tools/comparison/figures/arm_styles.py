"""The color and the line of each arm in figures that show all arms, and which arms they show at first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nc_tools.comparison.result import Comparison

_COLORS, _LINES = 8, 3
_SHOWN = 8


@dataclass(frozen=True)
class ArmStyle:
    """How an arm is drawn.

    Attributes:
        number: Its place among the arms; the script of the page switches arms on and off by it.
        kind: Classes of its lines and dots in the page's style sheet.
        shown: Whether it is visible at first.
    """

    number: int
    kind: str
    shown: bool


def arm_styles(comparison: Comparison) -> Mapping[str, ArmStyle]:
    """Return the style of each arm: eight colors, then the same colors with another kind of line.

    Of more than eight arms the baseline and those with the best mean are shown at first.
    """
    leading = {comparison.baseline, *comparison.ranked[: _SHOWN - 1]}
    styles = {}
    others = [arm for arm in comparison.arms if arm != comparison.baseline]
    for number, arm in enumerate(comparison.arms):
        place = others.index(arm) if arm in others else 0
        line = place // _COLORS % _LINES
        kind = "arm-base" if arm == comparison.baseline else f"arm-{place % _COLORS} line-{line}"
        styles[arm] = ArmStyle(number, kind, arm in leading)
    return styles
