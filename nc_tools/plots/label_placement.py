"""Placement of labels beside points so that they do not cover each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_LETTER_WIDTH, _LINE_HEIGHT, _GAP = 6.0, 11.0, 3.0
# Where a label can be relative to its point, best first: shift to the right, shift down, text anchor.
_OFFSETS = (
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
_MARK_RADIUS = 4.0


class LabelPlace(NamedTuple):
    """The place of a label: a point, and which part of the text is at that point (the SVG text-anchor)."""

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
) -> list[LabelPlace]:
    """Choose a place for the text of each point in a figure, one after another, with as little overlap as possible.

    A label should not cover marks or labels that were placed before it, and should be inside the area.

    Args:
        points: The labeled points, in the picture's units.
        names: The label of each point.
        marks: All marks that a label should not cover.
        area: Left, top, right and bottom of the area for labels.

    Example:
        >>> points = [(50.0, 50.0), (52.0, 50.0)]
        >>> [(place.x, place.y) for place in place_labels(points, ["a", "b"], points, (0, 0, 100, 100))]
        [(50.0, 41.0), (52.0, 68.0)]
    """
    occupied = [_Box(x - _MARK_RADIUS, y - _MARK_RADIUS, x + _MARK_RADIUS, y + _MARK_RADIUS) for x, y in marks]
    places = []
    for (x, y), name in zip(points, names, strict=True):
        candidates = [LabelPlace(x + dx, y + dy, anchor) for dx, dy, anchor in _OFFSETS]
        boxes = [_box(place, name) for place in candidates]
        costs = [sum(box.overlap(other) for other in occupied) + _outside(box, _Box(*area)) for box in boxes]
        best = costs.index(min(costs))
        places.append(candidates[best])
        occupied.append(boxes[best])
    return places


def _box(place: LabelPlace, name: str) -> _Box:
    length = _LETTER_WIDTH * len(name)
    left = place.x - {"start": 0.0, "middle": length / 2, "end": length}[place.anchor]
    return _Box(left - _GAP, place.y - _LINE_HEIGHT + 2, left + length + _GAP, place.y + 2)


def _outside(box: _Box, area: _Box) -> float:
    """Return the penalty of a label box that is partly outside: five times the area outside."""
    return 5 * ((box.right - box.left) * (box.bottom - box.top) - box.overlap(area))
