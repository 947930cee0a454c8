"""Means and differences in many metrics at once: those of which every run has a value.

A comparison of a thousand runs has hundreds of metrics. Which runs are paired is the same for all of these, so it is
found once, for arrays with one number for each metric in place of single numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nc_tools.comparison.frames import FramedRuns, FrameValues, paired_table
from nc_tools.comparison.statistics import PairedDifference, mean_difference


class CompleteMetrics:
    """The mean and spread of an arm, and its difference from the baseline, in the metrics that all runs of both have.

    Args:
        runs: The runs of the arm.
        pair: The runs of the arm and of the baseline that can be paired; None for the baseline itself.
        metrics: Keys of metrics.
        test_per_train: As for `mean_difference`.

    Attributes:
        metrics: The keys that can be read here: none if frames are crossed with seeds or a seed has several of them.
    """

    def __init__(
        self,
        runs: FramedRuns,
        pair: tuple[FramedRuns, FramedRuns] | None,
        metrics: Sequence[str],
        *,
        test_per_train: float,
    ) -> None:
        sides = [runs, *(pair or ())]
        self.metrics: dict[str, int] = {}
        self._test_per_train = test_per_train
        self._differences: list[list[float]] | None = None
        if not all(side.runs and side.one_frame_a_seed for side in sides):
            return
        keys = [metric for metric in metrics if all(side.has_all(metric) for side in sides)]
        if not keys:
            return
        values = np.stack([row for of_seed in runs.columns(keys).table.values() for row in of_seed.values()])
        self._columns: list[list[float]] = values.T.tolist()
        self.metrics = {key: place for place, key in enumerate(keys)}
        if pair is not None:
            arm, reference = (side.columns(keys) for side in pair)
            table, _ = paired_table(arm, reference)
            if table:
                self._differences = np.stack([row for of_seed in table.values() for row in of_seed.values()]).T.tolist()
                self._scales = np.maximum(_largest(arm), _largest(reference)).tolist()

    def mean(self, metric: str) -> float:
        """Return the mean over seeds."""
        column = self._columns[self.metrics[metric]]
        return math.fsum(column) / len(column)

    def sd(self, metric: str) -> float | None:
        """Return the standard deviation of the runs; None for fewer than two."""
        column = self._columns[self.metrics[metric]]
        return float(np.std(column, ddof=1)) if len(column) > 1 else None

    def paired(self, metric: str) -> PairedDifference | None:
        """Return the difference from the baseline with its interval; None without a pair."""
        if self._differences is None:
            return None
        place = self.metrics[metric]
        return mean_difference(
            self._differences[place], scale=self._scales[place], test_per_train=self._test_per_train
        )  # fmt: skip


def _largest(values: FrameValues) -> NDArray[np.float64]:
    rows = [row for of_seed in values.table.values() for row in of_seed.values()]
    return np.asarray(np.abs(np.stack(rows)).max(axis=0))
