"""Confusion matrices as maps: one of the baseline and one of the arm with the best mean."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from nc_tools.comparison.class_accuracy import class_names
from nc_tools.comparison.figures.figure_data import DataFigure, csv_link
from nc_tools.comparison.result import Comparison
from nc_tools.plots import svg

_SIDE = 300.0
_LETTER = 6.2
_MOST_CLASSES = 30
_LONGEST_NAME = 12


def confusion_figures(comparison: Comparison) -> list[DataFigure]:
    """Draw the confusion of the baseline and of the best arm; none for more than thirty classes."""
    figures: list[DataFigure] = []
    for arm, counts in comparison.confusion.items():
        if len(counts) > _MOST_CLASSES:
            return []
        names = class_names(comparison, len(counts))
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        title = f"{arm} (baseline)" if arm == comparison.baseline else f"{arm} (best mean)"
        data = csv_link(f"confusion {arm}", _rows(counts, names))
        figures.append(DataFigure(title, _map(share, names, title), _caption(share, names), data))
    return figures


def _map(share: NDArray[np.float64], names: list[str], title: str) -> Markup:
    size = len(names)
    cell = _SIDE / size
    margin = 12 + _LETTER * min(_LONGEST_NAME, max(map(len, names)))
    top, right = 6.0, margin + _SIDE
    parts = [svg.rect(margin, top, _SIDE, _SIDE, "frame")]
    for i, j in np.argwhere(share > 0):
        kind = "pos" if i == j else "neg"
        about = f"{names[i]} taken for {names[j]}" if i != j else f"{names[i]} right"
        # The square root makes rare errors visible.
        opacity = float(share[i, j]) ** 0.5 if i != j else 0.75 * float(share[i, j])
        parts.append(svg.rect(margin + j * cell, top + i * cell, cell - 0.5, cell - 0.5, kind,
                              title=f"{about}: {100 * share[i, j]:.1f} %", opacity=opacity))  # fmt: skip
        if i == j and cell >= 24:
            parts.append(
                svg.text(margin + (j + 0.5) * cell, top + (i + 0.5) * cell + 4, f"{100 * share[i, j]:.0f}", "name")
            )
    for k, name in enumerate(names):
        short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
        parts.append(svg.text(margin - 5, top + (k + 0.5) * cell + 3.5, short, "tick", "end"))
        parts.append(svg.text(margin + (k + 0.5) * cell + 3.5, top + _SIDE + 6, short, "tick", "end", turned=True))
    parts.append(svg.text(right, top + _SIDE + margin + 10, "predicted class", "label", "end"))
    return svg.picture(right + 6, top + _SIDE + margin + 18, f"Confusion of {title}; {_caption(share, names)}", parts)


def _caption(share: NDArray[np.float64], names: list[str]) -> str:
    wrong = share.copy()
    np.fill_diagonal(wrong, 0.0)
    if not wrong.any():
        return "no image is taken for another class"
    i, j = divmod(int(wrong.argmax()), len(names))
    return f"most often: {names[i]} taken for {names[j]}, {100 * wrong[i, j]:.1f} % of its images"


def _rows(counts: NDArray[np.int64], names: list[str]) -> list[tuple[object, ...]]:
    return [("true class", *names), *((name, *map(int, row)) for name, row in zip(names, counts, strict=True))]
