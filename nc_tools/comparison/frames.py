"""Which random frames (fixed class vectors) the runs of an arm had, and what an interval over its seeds then covers.

If every seed has frames of its own, the means of the seeds are independent and the t interval over seeds covers another
seed and another frame. If the same frames are used at several seeds, the spread over seeds does not show how much
frames differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from nc_tools.comparison.compared_run import ComparedRun

FrameDesign = Literal["none", "own", "crossed", "fixed", "shared", "unknown"]
"""How frames are spread over seeds.

"none": the heads have no random frame. "own": no frame is at two seeds. "crossed": the same two or more frames at every
seed. "fixed": one frame at all seeds. "shared": some frames are at several seeds, but not every frame at every seed.
"unknown": the records do not say.
"""

FrameKey = int | str
"""What identifies a frame: its seed; for a run without a frame a text with its seed and draw; "unknown" if the record
does not say."""

FrameTable = dict[int, dict[FrameKey, float]]
"""seed -> frame -> value."""


@dataclass(frozen=True)
class FrameDifferences:
    """The differences between an arm and its reference, by seed and frame.

    Attributes:
        table: seed -> frame -> arm minus reference.
        design: How the frames of the differences are spread over the seeds.
        scale: Largest absolute value of the metric in the two arms.
        unpaired: Seeds that both arms have but that cannot be paired, since their frames differ.
    """

    table: FrameTable
    design: FrameDesign
    scale: float = 1.0
    unpaired: tuple[int, ...] = ()

    @property
    def by_seed(self) -> dict[int, float]:
        """Mean difference of each seed."""
        return {seed: _mean(row) for seed, row in self.table.items()}


def frame_of(run: ComparedRun, *, several: bool) -> FrameKey:
    """Return what identifies the frame of a run.

    Records of version 0.1 hold no frame seed. There the number of the draw was the seed of the frame, if the arm has
    ``several`` draws.
    """
    if isinstance(run.frame_seed, int):
        return run.frame_seed
    if run.frame_seed is None:
        return f"seed {run.seed}, draw {run.draw}"
    return run.draw if several else "unknown"


@dataclass(frozen=True)
class FrameValues:
    """The values of an arm in one metric: by seed and frame, and whether its runs have random frames."""

    table: FrameTable
    have_frames: bool

    @cached_property
    def means(self) -> dict[int, float]:
        """Mean of each seed over its frames."""
        return {seed: _mean(row) for seed, row in self.table.items()}

    @cached_property
    def largest(self) -> float:
        """Largest absolute value; 0 without a value."""
        return max((max(map(abs, row.values())) for row in self.table.values()), default=0.0)


@dataclass(frozen=True)
class FramedRuns:
    """The runs of an arm, each with what identifies its frame; hundreds of metrics can be read from them.

    Attributes:
        runs: (seed, frame, run), sorted by seed and draw.
        have_frames: Whether they have random frames, as far as the records say.
        only: The one metric that is read; None for any number of them.
    """

    runs: tuple[tuple[int, FrameKey, ComparedRun], ...]
    have_frames: bool
    only: str | None = None

    @classmethod
    def of(cls, cells: Mapping[tuple[int, int], ComparedRun], only: str | None = None) -> FramedRuns:
        """Return the runs of an arm, which are given by seed and draw."""
        several = any(draw > 0 for _, draw in cells)
        runs = tuple((seed, frame_of(run, several=several), run) for (seed, _), run in sorted(cells.items()))
        return cls(runs, any(isinstance(frame, int) for _, frame, _ in runs), only)

    def values(self, metric: str) -> FrameValues:
        """Return the finite values by seed and frame; runs of one seed with the same frame are averaged."""
        rows: dict[int, dict[FrameKey, list[float]]] = {}
        table: FrameTable = {}
        for seed, frame, value in self._values.get(metric, ()):
            if self._are_distinct:
                table.setdefault(seed, {})[frame] = value
            else:
                rows.setdefault(seed, {}).setdefault(frame, []).append(value)
        averaged = {seed: {frame: math.fsum(v) / len(v) for frame, v in row.items()} for seed, row in rows.items()}
        return FrameValues(table or averaged, self.have_frames)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in ascending order."""
        return tuple(dict.fromkeys(seed for seed, _, _ in self.runs))

    def has_all(self, metric: str) -> bool:
        """Return True if every run has a finite value of a metric."""
        return len(self._values.get(metric, ())) == len(self.runs)

    @cached_property
    def one_frame_a_seed(self) -> bool:
        """Whether every seed has one run."""
        return len({seed for seed, _, _ in self.runs}) == len(self.runs)

    def columns(self, metrics: Sequence[str]) -> FrameValues:
        """Return the values of M metrics at once: an array (M,) by seed and frame, if every seed has one run."""
        table: dict[int, dict[FrameKey, Any]] = {
            seed: {frame: np.array([run.final[metric] for metric in metrics])} for seed, frame, run in self.runs
        }
        return FrameValues(table, self.have_frames)

    @cached_property
    def _values(self) -> Mapping[str, list[tuple[int, FrameKey, float]]]:
        """The finite values by metric, in the order of the runs, from one pass over the runs, which is fast."""
        by_metric: dict[str, list[tuple[int, FrameKey, float]]] = {}
        for seed, frame, run in self.runs:
            final = run.final if self.only is None else {key: run.final[key] for key in {self.only} & run.final.keys()}
            for metric, value in final.items():
                if math.isfinite(value):
                    by_metric.setdefault(metric, []).append((seed, frame, value))
        return by_metric

    @cached_property
    def _are_distinct(self) -> bool:
        """Whether no two runs have the same seed and frame, so that nothing is averaged."""
        return len({(seed, frame) for seed, frame, _ in self.runs}) == len(self.runs)


def frame_table(cells: Mapping[tuple[int, int], ComparedRun], metric: str) -> FrameTable:
    """Return the finite values of an arm by seed and frame; runs of one seed with the same frame are averaged."""
    return FramedRuns.of(cells, metric).values(metric).table


def means_by_seed(cells: Mapping[tuple[int, int], ComparedRun], metric: str) -> dict[int, float]:
    """Return one value per seed, the mean over its frames; values that are not finite are left out."""
    return FramedRuns.of(cells, metric).values(metric).means


def design_of(frames: Mapping[int, frozenset[FrameKey]]) -> FrameDesign:
    """Return how frames are spread over seeds.

    Args:
        frames: seed -> its frames.

    Example:
        >>> design_of({0: frozenset({11}), 1: frozenset({12})}), design_of({0: frozenset({7}), 1: frozenset({7})})
        ('own', 'fixed')
        >>> design_of({0: frozenset({0, 1}), 1: frozenset({0, 1})})
        'crossed'
    """
    sets = list(frames.values())
    every = frozenset().union(*sets)
    if "unknown" in every:
        return "unknown"
    if not any(isinstance(frame, int) for frame in every):
        return "none"
    if len(every) == sum(map(len, sets)):
        return "own"
    if len(every) == 1:
        return "fixed"
    return "crossed" if all(row == every for row in sets) else "shared"


def frame_differences(arm: FrameValues, reference: FrameValues) -> FrameDifferences:
    """Pair an arm with its reference at their common seeds and, if both have frames, at their common frames.

    If only one of them has frames, each of its values is paired with the other's mean at the seed. If both have frames
    but none in common at a seed, their means are paired only if no frame is at two seeds; otherwise the seed cannot be
    paired, since the difference could come from the frames.
    """
    table, unpaired = paired_table(arm, reference)
    scale = max(arm.largest, reference.largest) if arm.table or reference.table else 1.0
    return FrameDifferences(table, design_of(_frames(table)) if table else "none", scale, tuple(unpaired))


def paired_table(arm: FrameValues, reference: FrameValues) -> tuple[FrameTable, list[int]]:
    """Return the differences by seed and frame, and the seeds that cannot be paired; see :func:`frame_differences`."""
    values, expected = arm.table, reference.table
    both = arm.have_frames and reference.have_frames
    independent = "own" == design_of(_frames(values)) == design_of(_frames(expected)) if both else False
    table: FrameTable = {}
    unpaired = []
    for seed in sorted(values.keys() & expected.keys()):
        row = _row(arm, reference, seed, both=both, independent=independent)
        if row:
            table[seed] = row
        else:
            unpaired.append(seed)
    return _complete(table), unpaired


def _row(
    arm: FrameValues, reference: FrameValues, seed: int, *, both: bool, independent: bool
) -> dict[FrameKey, float]:
    """Return the differences of one seed by frame; none if its frames cannot be paired."""
    values, expected = arm.table[seed], reference.table[seed]
    if both:
        common = [frame for frame in values if frame in expected]
        if common:
            return {frame: values[frame] - expected[frame] for frame in common}
        if not independent:
            return {}
    elif arm.have_frames:
        return {frame: value - reference.means[seed] for frame, value in values.items()}
    elif any(isinstance(frame, int) for frame in expected):
        return {frame: arm.means[seed] - value for frame, value in expected.items()}
    frame = "unknown" if "unknown" in values or "unknown" in expected else f"seed {seed}"
    return {frame: arm.means[seed] - reference.means[seed]}


def _complete(table: FrameTable) -> FrameTable:
    """Return an incomplete crossed table without the seeds, or without the frames, that make it incomplete.

    Of the two complete tables the one with more values is returned; the table itself if neither has two seeds and two
    frames.
    """
    frames = _frames(table)
    if len(table) < 2 or design_of(frames) != "shared":
        return table
    every, common = frozenset().union(*frames.values()), frozenset.intersection(*frames.values())
    seeds = [seed for seed, row in frames.items() if row == every]
    fewer_seeds = len(seeds) * len(every) if len(seeds) > 1 else 0
    fewer_frames = len(table) * len(common) if len(common) > 1 else 0
    if fewer_seeds == fewer_frames == 0:
        return table
    if fewer_seeds > fewer_frames:
        return {seed: table[seed] for seed in seeds}
    return {seed: {frame: value for frame, value in row.items() if frame in common} for seed, row in table.items()}


def _frames(table: FrameTable) -> dict[int, frozenset[FrameKey]]:
    return {seed: frozenset(row) for seed, row in table.items()}


def _mean(row: Mapping[FrameKey, float]) -> float:
    return next(iter(row.values())) if len(row) == 1 else math.fsum(row.values()) / len(row)
