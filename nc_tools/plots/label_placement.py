"""Names beside points, kept off each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_WIDTH_OF_A_LETTER, _LINE, _GAP = 6.0, 11.0, 3.0
# Where a name may stand, best first: how far right and down of its point its anchor lies, and which end that is.
_OFFERS = (
    (0.0, -9.0, "middle"),
    (0.0, 18.0, "middle"),
    (8.0, 4.0, "start"),
    (-8.0, 4.0, "end"),
    (7.0, -8.0, "start"),
    (-7.0, -8.0, "end"),
    (7.0, 16.0, "start"),
    (-7.0, 16.0, "end"),
    (0.0, -22.0, "middle"),
    (0.0, 31.0, "middle"),
    (0.0, -35.0, "middle"),
    (0.0, 44.0, "middle"),
)
_MARK = 4.0


class Place(NamedTuple):
    """Where a text is written: its anchor, and which end of it that is."""

    x: float
    y: float
    anchor: str


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: _Box) -> float:
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(across, 0.0) * max(down, 0.0)


def place_labels(
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    marks: Sequence[tuple[float, float]],
    area: tuple[float, float, float, float],
) -> list[Place]:
    """Choose a place for each name, in turn the one that covers least of other names, of marks and of the border.

    Args:
        points: What is named, in the picture's units.
        names: One for each.
        marks: All marks that a name had better not cover.
        area: Left, top, right and bottom of where names belong.

    Example:
        >>> points = [(50.0, 50.0), (52.0, 50.0)]
        >>> [(place.x, place.y) for place in place_labels(points, ["a", "b"], points, (0, 0, 100, 100))]
        [(50.0, 41.0), (52.0, 68.0)]
    """
    taken = [_Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in marks]
    found = []
    for (x, y), name in zip(points, names, strict=True):
        offers = [Place(x + dx, y + dy, anchor) for dx, dy, anchor in _OFFERS]
        boxes = [_box(place, name) for place in offers]
        costs = [sum(box.overlap(other) for other in taken) + _outside(box, _Box(*area)) for box in boxes]
        best = costs.index(min(costs))
        found.append(offers[best])
        taken.append(boxes[best])
    return found


def _box(place: Place, name: str) -> _Box:
    length = _WIDTH_OF_A_LETTER * len(name)
    left = place.x - {"start": 0.0, "middle": length / 2, "end": length}[place.anchor]
    return _Box(left - _GAP, place.y - _LINE + 2, left + length + _GAP, place.y + 2)


def _outside(box: _Box, area: _Box) -> float:
    """Return how much of a box lies outside the area, counted five times: cut letters cannot be read at all."""
    return 5 * ((box.right - box.left) * (box.bottom - box.top) - box.overlap(area))
