"""Makes a comparison out of runs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nc_tools.comparison import fairness, pairing, statistics
from nc_tools.comparison.image_predictions import Disagreement, Predicted, disagreement, read_predictions, together
from nc_tools.comparison.pairing import Cells
from nc_tools.comparison.read_experiment import (
    SCORED_KINDS,
    ComparedRun,
    Experiment,
    of_experiment,
    read_compared_runs,
    read_experiment,
)
from nc_tools.comparison.result import ALPHA, ArmState, Calibration, Comparison, Family, Reach, Row, Test
from nc_tools.comparison.variance import VarianceShares, variance_shares


def compare(
    root: Path,
    *,
    baseline: str | None = None,
    out: Path | None = None,
    formats: Sequence[str] = ("html", "md", "csv", "json"),
) -> Comparison:
    """Compare the finished runs of an output folder.

    Args:
        root: The output folder, which holds ``runs/``.
        baseline: The arm that the others are paired against; by default the one that experiment.json names, else the
            first arm.
        out: Where to write the report; nothing is written without it (see `write_comparison`).
        formats: Which files to write there.

    Raises:
        FileNotFoundError: If the folder holds no runs.
        ValueError: If there is nothing to compare; the message says what is there and what would help.
    """
    experiment = read_experiment(root)
    comparison = compare_runs(of_experiment(read_compared_runs(root), experiment), baseline, experiment=experiment)
    if out is not None:
        from nc_tools.comparison.html_report import write_comparison

        write_comparison(comparison, out, formats=formats)
    return comparison


def compare_runs(
    runs: Sequence[ComparedRun], baseline: str | None = None, *, experiment: Experiment | None = None
) -> Comparison:
    """Compare runs from anywhere: each needs an arm, a seed, a status and final values.

    Args:
        runs: All runs, also those that failed: they are listed.
        baseline: The arm that the others are paired against; by default the experiment's, else its first arm.
        experiment: Order of arms, primary metric, protocol; by default the arms in the order of the runs.

    Raises:
        ValueError: If there are fewer than two arms, the baseline is unknown or has no finished run, or no
            arm shares a seed with it.

    Example:
        >>> runs = [ComparedRun(arm, seed, 0, "FINISHED", {"test/gen/balanced_accuracy": value})
        ...         for arm, values in {"linear": [0.70, 0.71], "etf": [0.72, 0.74]}.items()
        ...         for seed, value in enumerate(values)]
        >>> round(compare_runs(runs, "linear").test("etf").paired.mean, 3)
        0.025
    """
    experiment = experiment or Experiment()
    scored = [run for run in runs if run.kind in SCORED_KINDS]
    arms = tuple(dict.fromkeys([*experiment.arms, *(run.arm for run in scored)]))
    chosen, notes = pairing.choose(scored)
    cells = {arm: chosen[arm] for arm in arms if arm in chosen}
    baseline = _check_baseline(baseline or experiment.baseline or (arms[0] if arms else ""), arms, cells, scored)
    metrics = _metrics(cells, experiment.primary)
    if not any(experiment.primary in run.final for run in cells[baseline].values()):
        near = difflib.get_close_matches(experiment.primary, metrics[1:], n=3)
        raise ValueError(
            f"the primary metric {experiment.primary!r} is in no run of the baseline {baseline!r}: "
            f"name one that was recorded{', such as ' + ', '.join(near) if near else ''}"
        )
    others = {arm: baseline for arm in arms if arm != baseline}
    family = _family(f"every arm against {baseline}", cells, experiment.primary, others)
    if not any(test.paired for test in family.tests):
        raise ValueError(
            f"no arm shares a seed with the baseline {baseline!r} "
            f"(its seeds: {pairing.name_seeds(sorted({seed for seed, _ in cells[baseline]}))}): "
            "run the other arms with the same seeds"
        )
    references = {arm: other for arm, other in experiment.references.items() if arm in arms and arm != other}
    states = tuple(_state(arm, cells, scored, experiment) for arm in arms)
    predicted, unread = _predicted(cells)
    disagreements, unpaired = _disagreements(arms, baseline, predicted)
    return Comparison(
        experiment=experiment,
        baseline=baseline,
        metrics=metrics,
        states=states,
        rows=_rows(arms, cells, metrics, baseline, family),
        family=family,
        controls=_family("arms against the reference of the same loss", cells, experiment.primary, references)
        if references
        else None,
        shares=_shares(arms, cells, experiment.primary),
        disagreements=disagreements,
        calibration=_calibration(predicted),
        cautions=(
            *fairness.few_pairs(family),
            *fairness.confounding(cells, baseline, experiment),
            *fairness.mixed_configs(cells),
            *fairness.tuning_cautions(experiment),
            *fairness.uneven_draws(cells),
            *fairness.exposure(cells),
            *fairness.records([*((run.run_id or run.arm, note) for run in runs for note in run.notes), *unread]),
        ),
        notes=(*notes, *unpaired),
        cells=cells,
        runs=tuple(runs),
    )


def _check_baseline(name: str, arms: Sequence[str], cells: Cells, runs: Sequence[ComparedRun]) -> str:
    if not cells:
        found = "; ".join(f"{run.arm} seed {run.seed} {run.why_not}" for run in runs[:5]) or "no run at all"
        raise ValueError(f"a comparison needs finished runs, got none ({found}): finish them with --resume")
    if name not in arms:
        near = difflib.get_close_matches(name, arms, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(arms)}"
        raise ValueError(f"the baseline must be one of the arms, got {name!r}: {hint}")
    if name not in cells:
        raise ValueError(
            f"the baseline must have finished runs, {name!r} has none: finish it with --resume, "
            f"or choose a baseline among {', '.join(cells)}"
        )
    if len(arms) < 2:
        raise ValueError(f"a comparison needs at least two arms, got only {name!r}: run a second one")
    return name


def _metrics(cells: Cells, primary: str) -> tuple[str, ...]:
    keys = dict.fromkeys(key for of_arm in cells.values() for run in of_arm.values() for key in run.final)
    return (primary, *(key for key in keys if key != primary))


def _family(name: str, cells: Cells, metric: str, references: Mapping[str, str]) -> Family:
    tests = [_test(arm, reference, cells, metric) for arm, reference in references.items()]
    tested = [test.paired.p for test in tests if test.paired is not None and test.paired.p is not None]
    corrected = iter(statistics.holm(tested))
    done = []
    for test in tests:
        paired = test.paired
        if paired is None or paired.p is None:
            done.append(test)
        else:
            reach = _reach(paired.mean, paired.sd or 0.0, paired.n, len(tested))
            done.append(replace(test, p_holm=next(corrected), reach=reach))
    return Family(name, metric, tuple(done))


def _test(arm: str, reference: str, cells: Cells, metric: str) -> Test:
    one, other = (pairing.seed_means(cells.get(name, {}), metric) for name in (arm, reference))
    pairs = pairing.pair(one, other)
    paired = statistics.paired_difference(pairs.arm, pairs.reference) if pairs.seeds else None
    flipped = statistics.sign_flip(paired.differences) if paired is not None else None
    return Test(arm, reference, pairs.seeds, paired, None, None, flipped)


def _reach(mean: float, sd: float, n: int, family_size: int) -> Reach:
    corrected = ALPHA / family_size
    return Reach(
        statistics.detectable_difference(sd, n, alpha=ALPHA),
        statistics.detectable_difference(sd, n, alpha=corrected),
        statistics.pairs_needed(mean / 2, sd, alpha=ALPHA),
        statistics.pairs_needed(mean / 2, sd, alpha=corrected),
    )


def _rows(arms: Sequence[str], cells: Cells, metrics: Sequence[str], baseline: str, family: Family) -> tuple[Row, ...]:
    corrected = {test.arm: test.p_holm for test in family.tests}
    rows = []
    for metric in metrics:
        reference = pairing.seed_means(cells[baseline], metric)
        for arm in arms:
            values = pairing.seed_means(cells.get(arm, {}), metric)
            mean, sd = statistics.mean_and_sd(tuple(values.values())) if values else (None, None)
            pairs = pairing.pair(values, reference)
            paired = None
            if arm != baseline and pairs.seeds:
                paired = statistics.paired_difference(pairs.arm, pairs.reference)
            draws = len(pairing.draws_of(cells.get(arm, {})))
            p_holm = corrected.get(arm) if metric == family.metric else None
            rows.append(Row(arm, metric, tuple(values), draws, mean, sd, paired, p_holm))
    return tuple(rows)


def _state(arm: str, cells: Cells, runs: Sequence[ComparedRun], experiment: Experiment) -> ArmState:
    of_arm = cells.get(arm, {})
    seeds = tuple(sorted({seed for seed, _ in of_arm}))
    planned = experiment.protocol.get("seeds")
    if not isinstance(planned, list | tuple):
        planned = sorted({run.seed for run in runs})
    unfinished = tuple(
        f"seed {run.seed} draw {run.draw}: {run.why_not}"
        for run in runs
        if run.arm == arm and not run.finished and (run.seed, run.draw) not in of_arm
    )
    if not unfinished and not seeds:
        unfinished = ("no run was started",)
    missing = tuple(int(seed) for seed in planned if int(seed) not in seeds)
    return ArmState(arm, seeds, missing, pairing.draws_of(of_arm), unfinished)


def _shares(arms: Sequence[str], cells: Cells, metric: str) -> dict[str, VarianceShares]:
    found = {}
    for arm in arms:
        seeds, table = pairing.complete_table(cells.get(arm, {}), metric)
        if len(seeds) > 1 and len(table[0]) > 1:
            found[arm] = variance_shares(table)
    return found


def _predicted(cells: Cells) -> tuple[dict[str, dict[int, Predicted]], list[tuple[str, str]]]:
    """Read the predictions of each arm's first draw, and name the files that cannot be read."""
    found: dict[str, dict[int, Predicted]] = {}
    unread = []
    for arm, of_arm in cells.items():
        for seed, run in pairing.first_draws(of_arm).items():
            if run.predictions is None:
                continue
            try:
                found.setdefault(arm, {})[seed] = read_predictions(run.predictions)
            except ValueError as error:
                unread.append((run.run_id or arm, str(error)))
    return found, unread


def _disagreements(
    arms: Sequence[str], baseline: str, predicted: Mapping[str, Mapping[int, Predicted]]
) -> tuple[tuple[Disagreement, ...], list[str]]:
    found, unpaired = [], []
    reference = predicted.get(baseline, {})
    for arm in arms:
        for seed in sorted(predicted.get(arm, {}).keys() & reference.keys()):
            if arm == baseline:
                continue
            try:
                found.append(disagreement(arm, seed, predicted[arm][seed], reference[seed]))
            except ValueError as error:
                unpaired.append(str(error))
    return tuple(found), unpaired


def _calibration(predicted: Mapping[str, Mapping[int, Predicted]]) -> dict[str, Calibration]:
    found = {}
    for arm, of_arm in predicted.items():
        before = together([one.before for one in of_arm.values()])
        scaled = [one.after for one in of_arm.values() if one.after is not None]
        if before is not None:
            found[arm] = Calibration(before, together(scaled) if len(scaled) == len(of_arm) else None, len(of_arm))
    return found
