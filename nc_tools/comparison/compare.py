"""Compares the runs of several methods (arms): paired differences, statistical tests, and cautions."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from nc_tools.comparison.arm_mistakes import mistakes_by_arm
from nc_tools.comparison.compared_run import SCORED_KINDS, ComparedRun
from nc_tools.comparison.fairness import find_cautions, record_cautions
from nc_tools.comparison.families import FamilyData, make_family, paired_cells
from nc_tools.comparison.frames import frame_table
from nc_tools.comparison.join_folders import join_folders
from nc_tools.comparison.margins import MarginTest, margin_tests
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.metric_rows import metric_rows
from nc_tools.comparison.pairing import (
    Cells,
    Lost,
    choose_runs,
    draws_of,
    lost_runs,
    name_seeds,
    other_data_seeds,
)
from nc_tools.comparison.read_experiment import Experiment
from nc_tools.comparison.record_sources import read_sources
from nc_tools.comparison.references import valid_references
from nc_tools.comparison.result import ArmState, Comparison, Family
from nc_tools.comparison.single_models import (
    all_disagreements,
    confusion_by_arm,
    read_all_predictions,
    reliability_by_arm,
)
from nc_tools.comparison.variance import VarianceShares, shares_of

DOWNLOADS = "from-mlflow"


def compare(
    folder: str | Path | Sequence[str | Path],
    *,
    baseline: str | None = None,
    out: str | Path | None = None,
    formats: str | Sequence[str] = ("html", "md", "csv", "json", "tex"),
    tracking_uri: str | None = None,
    filter_string: str | None = None,
) -> Comparison:
    """Compare the finished runs of output folders, paired by seed: ``nc_tools.compare("outputs/long_tail")``.

    Each arm is paired with the baseline at the seeds that both have, and if both have random frames, at the frames that
    both have. On the primary metric every arm gets a test, and the p values are adjusted together by Holm's method. The
    interval of a test covers training again with another seed and another frame and, if the runs recorded their
    predictions, other test images like these; the headline says which of them it covers. The other metrics get
    differences and intervals over seeds and frames without a verdict.

    The folder is that of a recipe (``--out``) or of runs recorded with `nc_tools.tracking.track`. Training can still be
    going on: runs without a result are listed with the reason.

    In several folders, arms of the same name are one arm if their settings are equal and the images of each seed are
    the same; otherwise the folder's name is added to theirs, as in ``linear (first)``. The folders must have the same
    primary metric. Differences in rules, budgets or data are among the cautions.

    Args:
        folder: The output folder, which holds ``runs/``, or a list of them. In place of a folder, ``mlflow:EXPERIMENT``
            stands for the runs of an experiment in MLflow, and ``mlflow:RUN_ID`` or a run's folder for one run.
        baseline: The arm that the others are paired against; by default the one that experiment.json names, else the
            first arm.
        out: Folder for the report; by default none is written (see `write_comparison`).
        formats: The files of the report, one or more of html, md, csv, json, tex.
        tracking_uri: Address of MLflow, for sources there; None for MLFLOW_TRACKING_URI. Records that are not on this
            machine are downloaded, to ``out/from-mlflow``.
        filter_string: Which runs of MLflow's experiments are compared, in MLflow's search syntax, such as
            ``"tags.`nc.arm` = 'etf'"``.

    Returns:
        The comparison. ``render_terminal(comparison)`` prints it, ``write_comparison(comparison, folder)`` writes
        the report, ``comparison.test(arm)`` is an arm's test on the primary metric, ``comparison.row(arm, metric)``
        its mean and difference on any metric, and ``comparison.cautions`` lists what may make it unfair.

    Raises:
        FileNotFoundError: If a folder holds no runs.
        ValueError: If there are fewer than two arms, no finished run, or the baseline is unknown; if folders cannot be
            compared, or MLflow cannot be read. The message says what was found and what to do.

    Example:
        >>> import tempfile
        >>> from nc_tools.run_records.identity import RunIdentity
        >>> from nc_tools.run_records.writer import RunRecord
        >>> out = Path(tempfile.mkdtemp())
        >>> accuracy = {"linear": (0.70, 0.71, 0.69), "etf": (0.73, 0.75, 0.72)}  # three seeds of two arms
        >>> for arm, values in accuracy.items():
        ...     for seed, value in enumerate(values):
        ...         with RunRecord.create(out, RunIdentity("loop", arm, seed)) as run:
        ...             run.finish({"test/gen/balanced_accuracy": value})
        >>> comparison = compare(out, baseline="linear")
        >>> test = comparison.test("etf")
        >>> round(test.paired.mean, 3), round(test.paired.low, 3), round(test.paired.high, 3), round(test.p_holm, 3)
        (0.033, 0.019, 0.048, 0.01)
        >>> comparison.family.verdict(test)
        'better'
    """
    sources = [folder] if isinstance(folder, str | Path) else list(folder)
    if not sources:
        raise ValueError("a comparison needs at least one output folder, got none: give the --out of a recipe")
    with TemporaryDirectory() as temporary:
        downloads = Path(out or temporary) / DOWNLOADS
        folders = read_sources(sources, downloads=downloads, tracking_uri=tracking_uri, filter_string=filter_string)
        runs, experiment = join_folders(folders)
        comparison = compare_runs(runs, baseline, experiment=experiment)
    if out is not None:
        from nc_tools.comparison.report_files import write_comparison

        write_comparison(comparison, out, formats=formats)
    return comparison


def compare_runs(
    runs: Sequence[ComparedRun], baseline: str | None = None, *, experiment: Experiment | None = None
) -> Comparison:
    """Compare runs that were made by any program; each needs an arm, a seed, a status and final values.

    Args:
        runs: All runs, also those that failed: they are listed.
        baseline: The arm that the others are paired against; by default the experiment's, else its first arm.
        experiment: Order of arms, primary metric, protocol; by default the arms in the order of the runs.

    Raises:
        ValueError: If there are fewer than two arms, the baseline is unknown, has no finished run or lacks the primary
            metric, or no arm can be paired with it at any seed.

    Example:
        >>> runs = [ComparedRun(arm, seed, 0, "FINISHED", {"test/gen/balanced_accuracy": value})
        ...         for arm, values in {"linear": [0.70, 0.71], "etf": [0.72, 0.74]}.items()
        ...         for seed, value in enumerate(values)]
        >>> round(compare_runs(runs, "linear").test("etf").paired.mean, 3)
        0.025
    """
    experiment = experiment or Experiment()
    primary = experiment.primary
    scored = [run for run in runs if run.kind in SCORED_KINDS]
    arms = tuple(dict.fromkeys([*experiment.arms, *(run.arm for run in scored)]))
    chosen, notes = choose_runs(scored)
    cells = {arm: chosen[arm] for arm in arms if arm in chosen}
    baseline = _check_baseline(baseline or experiment.baseline or (arms[0] if arms else ""), arms, cells, scored)
    metrics = _metrics(cells, primary)
    _check_primary(primary, metrics, cells, baseline)
    against_baseline = {arm: baseline for arm in arms if arm != baseline}
    predictions, images, unread = read_all_predictions(cells, primary)
    lost = lost_runs(scored, cells, primary)
    data = FamilyData(cells, primary, images, lost, experiment.test_per_train, experiment.withheld)
    # The interval that more seeds should reach has the margin as half-width. Without a margin, one point of accuracy is
    # the difference that most people ask about.
    data = replace(data, half_width=experiment.margin or (0.01 if metric_info(primary).unit == "points" else 0.0))
    family = make_family(f"every arm against {baseline}", data, against_baseline)
    _check_pairs(family, cells, baseline, primary)
    planned = {arm: other for arm, other in experiment.references.items() if arm in arms and arm != other}
    references, reference_notes = valid_references(planned, cells)
    disagreements, unpaired = all_disagreements(arms, baseline, predictions)
    record_notes = [*((run.run_id or run.arm, note) for run in runs for note in run.notes), *unread]
    comparison = Comparison(
        experiment=experiment,
        baseline=baseline,
        metrics=metrics,
        states=tuple(_state(arm, cells, scored, experiment, lost.get(arm, ())) for arm in arms),
        rows=metric_rows(arms, data, metrics, baseline, family),
        family=family,
        controls=make_family("arms against the reference with the same loss", data, references) if references else None,
        shares=_shares(arms, data, baseline),
        margins=_margins(family, experiment),
        disagreements=disagreements,
        calibration=reliability_by_arm(predictions),
        confusion={},
        mistakes={},
        cautions=find_cautions(cells, baseline, experiment, family, record_notes),
        notes=(*notes, *reference_notes, *unpaired),
        cells=cells,
        runs=tuple(runs),
    )
    shown = [baseline, *comparison.ranked[:1]]
    mistakes, damaged = mistakes_by_arm(comparison, predictions, shown)
    return replace(
        comparison,
        confusion=confusion_by_arm(predictions, shown),
        mistakes=mistakes,
        cautions=(*comparison.cautions, *record_cautions(damaged)),
    )


def _check_baseline(name: str, arms: Sequence[str], cells: Cells, runs: Sequence[ComparedRun]) -> str:
    if not cells:
        listed = "; ".join(f"{run.arm} seed {run.seed} {run.why_not}" for run in runs[:5]) or "no run at all"
        raise ValueError(
            f"a comparison needs finished runs, got none ({listed}). Finish them: give the recipe's command again "
            "with --resume"
        )
    if name not in arms:
        near = difflib.get_close_matches(name, arms, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(arms)}"
        raise ValueError(f"the baseline must be one of the arms, got {name!r}: {hint}")
    if name not in cells:
        raise ValueError(
            f"the baseline {name!r} has no finished run. Finish one: give the recipe's command again with --resume, "
            f"or choose another baseline: {', '.join(cells)}"
        )
    if len(arms) < 2:
        raise ValueError(f"a comparison needs at least two arms, got only {name!r}. Make the runs of a second arm")
    return name


def _check_primary(primary: str, metrics: Sequence[str], cells: Cells, baseline: str) -> None:
    if any(primary in run.final for run in cells[baseline].values()):
        return
    near = difflib.get_close_matches(primary, metrics[1:], n=3)
    raise ValueError(
        f"no run of the baseline {baseline!r} has the primary metric {primary!r}. "
        f"Choose a metric that was recorded{', such as ' + ', '.join(near) if near else ''}"
    )


def _check_pairs(family: Family, cells: Cells, baseline: str, primary: str) -> None:
    if any(test.paired for test in family.tests):
        return
    own = {seed for seed, _ in cells[baseline]}
    common = {arm: own & {seed for seed, _ in runs} for arm, runs in cells.items() if arm != baseline}
    if any(common.values()) and all(
        seeds <= set(other_data_seeds(cells[arm], cells[baseline])) for arm, seeds in common.items()
    ):
        raise ValueError(
            f"every arm was trained on other images than the baseline {baseline!r} at the seeds that both have: make "
            "the runs of both on the same data"
        )
    if any(common.values()):
        raise ValueError(
            f"no arm can be compared with the baseline {baseline!r}: at no seed do both have a finite value of "
            f"{primary!r}. Lower the learning rates, or choose another metric"
        )
    seeds = name_seeds(sorted(own))
    raise ValueError(
        f"no arm shares a seed with the baseline {baseline!r} (its seeds: {seeds}). "
        "Make runs of the other arms with these seeds"
    )


def _metrics(cells: Cells, primary: str) -> tuple[str, ...]:
    keys = dict.fromkeys(key for of_arm in cells.values() for run in of_arm.values() for key in run.final)
    return (primary, *(key for key in keys if key != primary))


def _state(
    arm: str, cells: Cells, runs: Sequence[ComparedRun], experiment: Experiment, lost: Sequence[Lost]
) -> ArmState:
    seeds = tuple(frame_table(cells.get(arm, {}), experiment.primary))
    planned = experiment.protocol.get("seeds")
    if not isinstance(planned, list | tuple):
        planned = sorted({run.seed for run in runs})
    of_arm = cells.get(arm, {})
    reasons = {(one.seed, one.draw): one.reason for one in lost}
    for run in runs:
        if run.arm == arm and not run.finished and (run.seed, run.draw) not in of_arm:
            reasons.setdefault((run.seed, run.draw), run.why_not)
    unfinished = tuple(f"seed {seed} draw {draw}: {reason}" for (seed, draw), reason in sorted(reasons.items()))
    if not unfinished and not seeds:
        unfinished = ("no run was started",)
    missing = tuple(int(seed) for seed in planned if int(seed) not in seeds)
    return ArmState(arm, seeds, missing, draws_of(of_arm), unfinished)


def _shares(arms: Sequence[str], data: FamilyData, baseline: str) -> dict[str, VarianceShares]:
    """Return the variance shares of each arm's difference to the baseline, if an arm has several frames at a seed."""
    shares = {}
    for arm in arms:
        if arm != baseline:
            differences, _ = paired_cells(data, arm, baseline)
            if (share := shares_of(differences.table, differences.design)) is not None:
                shares[arm] = share
    return shares


def _margins(family: Family, experiment: Experiment) -> tuple[MarginTest, ...]:
    """Return the tests with the margin that was fixed before the runs; none without a margin or a direction."""
    direction = metric_info(family.metric).direction
    if experiment.margin is None or direction == "neither" or family.withheld:
        return ()
    pairs = [(test.arm, test.reference, test.paired) for test in family.tests if test.paired is not None]
    return margin_tests(pairs, experiment.margin, higher_is_better=direction == "higher")
