"""Find what makes a comparison unfair, such as different settings, best rates at a grid's edge, or missing runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nc_tools.comparison.frames import frame_table
from nc_tools.comparison.pairing import Cells, draws_of, first_draws, name_seeds, other_data_seeds
from nc_tools.comparison.read_experiment import Experiment
from nc_tools.comparison.result import Caution, Family
from nc_tools.comparison.settings import flatten_settings, is_tuned, tuned_fields
from nc_tools.comparison.unequal_data import group_cautions, outlier_cautions

# An arm is a head, a loss, and what is done to the head before training (start) and after it (second stage); seed, draw
# and name identify the run.
_ARM_FIELDS = {"head", "loss", "second_stage", "start", "arm", "name", "seed", "draw"}
# Arms that differ in these settings alone are a comparison of labels.
_LABEL_FIELDS = {"data.labels", "data.corrections"}
# A head in closed form trains for 0 epochs. That belongs to the arm, and is no unequal setting.
_EPOCHS, _COMPUTED = "training.epochs", "0"
MOST_SETTINGS = 12
_TRAINING_PACKAGES = ("torch", "torchvision", "nc_tools")


def find_cautions(
    cells: Cells, baseline: str, experiment: Experiment, family: Family, record_notes: Sequence[tuple[str, str]]
) -> tuple[Caution, ...]:
    """Return the cautions of a comparison: every reason why it may be unfair or incomplete.

    Args:
        cells: The runs of each arm.
        baseline: The arm that the others are paired against.
        experiment: The plan, with its protocol and hyperparameter search.
        family: The tests against the baseline.
        record_notes: (run, problem) for everything that is missing or unreadable in the records.
    """
    return (
        *(Caution("folders", "", text) for text in experiment.unequal),
        *_few_pairs(family),
        *_lost_runs(family),
        *_frames(family, cells, experiment),
        *_confounded(cells, baseline, experiment),
        *_versions(cells, baseline),
        *_mixed_configurations(cells, experiment),
        *_tuning(experiment),
        *_uneven_draws(cells, family.metric),
        *outlier_cautions(cells),
        *group_cautions(cells),
        *record_cautions(record_notes),
    )


def _few_pairs(family: Family) -> list[Caution]:
    """Caution against arms with only two pairs, which cannot show whether the differences are normally distributed."""
    arms = [test.arm for test in family.tests if test.paired is not None and test.paired.n == 2]
    text = (
        f"only two seeds for {', '.join(arms)}: interval and p depend entirely on the assumption that differences are "
        "normally distributed. Run more seeds"
    )
    return [Caution("few pairs", "", text)] if arms else []


def _lost_runs(family: Family) -> list[Caution]:
    """Caution against arms that lost runs: their mean is over the remaining runs only."""
    lost = {test.arm: test.lost for test in family.tests}
    lost |= {test.reference: test.reference_lost for test in family.tests}
    return [
        Caution(
            "lost runs",
            arm,
            f"{arm} has no value at {', '.join(f'seed {one.seed} draw {one.draw}' for one in runs)} "
            f"({runs[0].reason}), so its mean is over the runs that survived. It can get no verdict in its favor",
        )
        for arm, runs in lost.items()
        if runs
    ]


def _frames(family: Family, cells: Cells, experiment: Experiment) -> list[Caution]:
    """Caution against frames that several seeds share, that differ between two arms, or that are unknown."""
    cautions = []
    for test in family.tests:
        if test.frames in ("fixed", "shared"):
            frames = "all seeds have the same frame" if test.frames == "fixed" else "some seeds have the same frames"
            text = f"{test.arm}: {frames}, so its interval holds for these frames only"
            cautions.append(Caution("frames", "", text))
        if test.unpaired:
            text = (
                f"{test.arm} and {test.reference} have no frame in common at seed {name_seeds(test.unpaired)}, which "
                "is left out"
            )
            cautions.append(Caution("frames", test.arm, text))
    draws = experiment.protocol.get("draws")
    if isinstance(draws, int) and draws > 1:
        return cautions  # a recipe of version 0.1: an arm with one draw has no frame
    unknown = [
        arm
        for arm, of_arm in cells.items()
        if of_arm and all(run.frame_seed == "unknown" for run in of_arm.values()) and len(draws_of(of_arm)) == 1
    ]
    if unknown:
        text = (
            f"the records of {', '.join(unknown)} do not say which random frame each run had. If a head has one, "
            "and it is the same at all seeds, the interval holds for that frame only. Give track(..., model=model)"
        )
        cautions.append(Caution("frames", "", text))
    return cautions


def _confounded(cells: Cells, baseline: str, experiment: Experiment) -> list[Caution]:
    """Caution against arms that differ from the baseline in more than head, loss and tuned values.

    Any other setting that differs is another possible cause of the difference. For the tuned values see `tuned_fields`.
    Arms that differ in their training labels and in nothing else compare these labels.
    """
    tuned = tuned_fields(experiment)
    reference = first_draws(cells[baseline])
    cautions = []
    for arm, of_arm in cells.items():
        runs = first_draws(of_arm)
        common = sorted(runs.keys() & reference.keys())
        if arm == baseline or not common:
            continue
        settings, expected = (flatten_settings(side[common[0]].config) for side in (runs, reference))
        unequal = [n for n in sorted(settings.keys() | expected.keys()) if settings.get(n) != expected.get(n)]
        differing = [
            f"{name} ({_short(settings.get(name))} against {_short(expected.get(name))})"
            for name in unequal
            if not _belongs_to_arm(name, tuned)
            and not (name == _EPOCHS and _COMPUTED in (settings.get(name), expected.get(name)))
        ]
        only_labels = all(name in _LABEL_FIELDS or is_tuned(name, tuned) for name in unequal)
        if differing and settings and expected and not only_labels:
            more = f" and {len(differing) - MOST_SETTINGS} more settings" if len(differing) > MOST_SETTINGS else ""
            named = "; ".join(differing[:MOST_SETTINGS])
            text = f"{arm} differs from {baseline} in more than head, loss and tuned values: {named}{more}"
            cautions.append(Caution("confounded", arm, text))
        cautions.extend(_other_data(arm, other_data_seeds(of_arm, cells[baseline])))
    return cautions


def _versions(cells: Cells, baseline: str) -> list[Caution]:
    """Caution against pairs of runs that were made by different versions of a package that trains."""
    reference = first_draws(cells[baseline])
    cautions = []
    for arm, of_arm in cells.items():
        for package in _TRAINING_PACKAGES:
            seeds: dict[tuple[str, str], list[int]] = {}
            for seed, run in first_draws(of_arm).items():
                both = run.versions.get(package), reference[seed].versions.get(package) if seed in reference else None
                if None not in both and both[0] != both[1]:
                    seeds.setdefault((str(both[0]), str(both[1])), []).append(seed)
            cautions += [
                Caution(
                    "versions",
                    arm,
                    f"{arm} was made with {package} {own} and {baseline} with {package} {other} at seed "
                    f"{name_seeds(at)}, so their difference may be one of versions. Run one of them again",
                )
                for (own, other), at in seeds.items()
            ]
    return cautions


def _mixed_configurations(cells: Cells, experiment: Experiment) -> list[Caution]:
    """Caution against runs of one arm with different settings, except settings that are tuned for each seed."""
    cautions, tuned = [], tuned_fields(experiment) if experiment.tuned_each_seed else set()
    for arm, of_arm in cells.items():
        different: list[Mapping[str, Any]] = []
        for run in of_arm.values():
            if run.config not in different:
                different.append(run.config)
        configs = [
            {name: text for name, text in flatten_settings(config).items() if name not in {"seed", "draw"}}
            for config in different
        ]
        names = {name for config in configs for name in config}
        differing = sorted(name for name in names if len({config.get(name) for config in configs}) > 1)
        # A head's own seed follows the draw and must differ. An empty ``arguments`` is flattened to a setting of this
        # name, which runs with arguments do not have.
        own = (".seed", ".draw", ".arguments")
        differing = [name for name in differing if not name.endswith(own) and not is_tuned(name, tuned)]
        if differing:
            text = f"the runs of {arm} do not all have the same settings: they differ in {', '.join(differing)}"
            cautions.append(Caution("mixed configurations", arm, text))
    return cautions


def _tuning(experiment: Experiment) -> list[Caution]:
    """Caution against learning rates chosen at the edge of their grid, and different numbers of tuning trials."""
    trials = experiment.trials
    notes = [str(note) for note in experiment.tuning.get("notes") or ()]
    cautions = [Caution("tuning", "", note) for note in notes]
    chosen = experiment.tuning.get("chosen")
    for arm, values in chosen.items() if isinstance(chosen, Mapping) else ():
        rates = sorted({float(t["lr"]) for t in trials if t.get("arm") == arm and t.get("lr") is not None})
        rate = values.get("lr") if isinstance(values, Mapping) else None
        noted = any(arm in note.replace(":", " ").split() and "edge" in note for note in notes)
        if rate is not None and len(rates) > 1 and float(rate) in (rates[0], rates[-1]) and not noted:
            side = "lowest" if float(rate) == rates[0] else "highest"
            text = f"the chosen learning rate {rate:g} of {arm} is the {side} of its grid: one beyond it may be better"
            cautions.append(Caution("tuning", arm, text))
    computed = {str(trial.get("arm")) for trial in trials if trial.get("lr", 0) is None}
    of_seeds = Counter((str(trial.get("arm")), trial.get("seed")) for trial in trials)
    counts: dict[str, int] = {}  # if each seed is tuned separately, the budget is the number of trials of one seed
    for (arm, _), count in of_seeds.items():
        counts[arm] = max(count, counts.get(arm, 0))
    most = max((count for arm, count in counts.items() if arm not in computed), default=0)
    # A head in closed form has no learning rate, and may have no setting to try at all.
    counts = {arm: count for arm, count in counts.items() if arm not in computed or count > most}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{arm} {count}" for arm, count in counts.items())
        cautions.append(Caution("tuning", "", f"arms have different numbers of tuning trials ({listed})"))
    return cautions


def _uneven_draws(cells: Cells, metric: str) -> list[Caution]:
    """Caution against seeds at which fewer frames have a finite value than at others."""
    incomplete = []
    for arm, of_arm in cells.items():
        numbers = {seed: len(row) for seed, row in frame_table(of_arm, metric).items()}
        most = max(numbers.values(), default=0)
        seeds = [seed for seed, number in numbers.items() if number < most]
        if seeds:
            incomplete.append(f"{arm} at seed {name_seeds(seeds)}")
    listed = "; ".join(incomplete)
    text = f"the mean is over fewer frames than at other seeds: {listed}"
    return [Caution("uneven draws", "", text)] if incomplete else []


def record_cautions(notes: Sequence[tuple[str, str]]) -> list[Caution]:
    """Return one caution for each different problem in the runs' files, with the first run that has it."""
    by_problem: dict[str, list[str]] = {}
    for run, problem in notes:
        by_problem.setdefault(problem, []).append(run)
    return [
        Caution("record", "", f"{problem} in {runs[0]}" + (f" and {len(runs) - 1} more runs" if runs[1:] else ""))
        for problem, runs in by_problem.items()
    ]


def _belongs_to_arm(name: str, tuned: Iterable[str]) -> bool:
    return name.split(".")[0] in _ARM_FIELDS or is_tuned(name, tuned)


def _other_data(arm: str, seeds: Sequence[int]) -> list[Caution]:
    """Caution against an arm with other images than the baseline at the same seed, which is not paired there."""
    if not seeds:
        return []
    text = f"{arm} has other images than the baseline at seed {name_seeds(seeds)}, which is left out"
    return [Caution("not paired", arm, text)]


def _short(text: str | None) -> str:
    return "absent" if text is None else text if len(text) <= 40 else f"{text[:37]}..."
