"""The mean, spread and paired difference of every arm in every metric."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nc_tools.comparison.complete_metrics import CompleteMetrics
from nc_tools.comparison.families import FamilyData
from nc_tools.comparison.frames import FramedRuns, frame_differences
from nc_tools.comparison.intervals import seed_interval
from nc_tools.comparison.pairing import Cells, comparable_cells, other_data_seeds
from nc_tools.comparison.result import ArmMetric, Family
from nc_tools.comparison.variance import run_sd


def metric_rows(
    arms: Sequence[str], data: FamilyData, metrics: Sequence[str], baseline: str, family: Family
) -> tuple[ArmMetric, ...]:
    """Return one entry per metric and arm.

    The primary metric has the interval of its test; the other metrics have an interval over seeds and frames.

    Args:
        arms: All arms.
        data: Their runs and the primary metric.
        metrics: The keys of all metrics.
        baseline: The arm that the others are paired against.
        family: The tests on the primary metric.
    """
    tests = {test.arm: test for test in family.tests}
    runs = {arm: FramedRuns.of(data.cells.get(arm, {})) for arm in arms}
    pairs = {
        arm: _comparable(data.cells, arm, baseline) or (runs[arm], runs[baseline]) for arm in arms if arm != baseline
    }
    others = [metric for metric in metrics if metric != data.metric]
    complete = {
        arm: CompleteMetrics(runs[arm], pairs.get(arm), others, test_per_train=data.test_per_train) for arm in arms
    }
    rows = []
    for metric in metrics:
        for arm in arms:
            own = complete[arm]
            if metric in own.metrics:
                numbers = own.mean(metric), own.sd(metric), own.paired(metric)
                rows.append(ArmMetric(arm, metric, runs[arm].seeds, 1, *numbers, None))
                continue
            values = runs[arm].values(metric)
            table, means = values.table, values.means.values()
            mean = math.fsum(means) / len(means) if means else None
            paired, p_holm = None, None
            if metric == data.metric and arm in tests:
                paired, p_holm = tests[arm].paired, tests[arm].p_holm
            elif arm != baseline:
                differences = frame_differences(*(side.values(metric) for side in pairs[arm]))
                paired = seed_interval(differences, test_per_train=data.test_per_train)
            draws = max(map(len, table.values()), default=0)
            rows.append(ArmMetric(arm, metric, tuple(table), draws, mean, run_sd(table), paired, p_holm))
    return tuple(rows)


def _comparable(cells: Cells, arm: str, baseline: str) -> tuple[FramedRuns, FramedRuns] | None:
    """Return the runs of an arm and of the baseline that can be paired; None if all of them can."""
    both = cells.get(arm, {}), cells.get(baseline, {})
    if not other_data_seeds(*both):
        return None
    of_arm, of_baseline = comparable_cells(*both)
    return FramedRuns.of(of_arm), FramedRuns.of(of_baseline)
