"""Looks for what makes a comparison unfair: arms that differ in more than they should, searches cut short."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nc_tools.comparison.pairing import Cells, draws_of, first_draws, name_seeds
from nc_tools.comparison.read_experiment import ComparedRun, Experiment
from nc_tools.comparison.result import Caution, Family

# An arm is a head and a loss, and what is done to the head after; the rest names the run.
_ARM_FIELDS = {"head", "loss", "second_stage", "arm", "name", "seed", "draw"}
_RATES = {"lr", "learning_rate"}


def flatten_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten a nested configuration to dotted names and JSON text.

    Example:
        >>> flatten({"head": {"scale": 8.0}, "epochs": 3})
        {'head.scale': '8.0', 'epochs': '3'}
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten_settings(value, f"{name}."))
        else:
            flat[name] = json.dumps(value, sort_keys=True, default=str)
    return flat


def confounding(cells: Cells, baseline: str, experiment: Experiment) -> list[Caution]:
    """Name the fields in which an arm differs from the baseline beyond head, loss and tuned values.

    Whatever else differs explains a difference just as well. Tuned values are the knobs of the recorded
    trials, and the learning rate once there are trials.
    """
    tuned = _tuned_fields(experiment)
    reference = first_draws(cells[baseline])
    cautions = []
    for arm, of_arm in cells.items():
        mine = first_draws(of_arm)
        common = sorted(mine.keys() & reference.keys())
        if arm == baseline or not common:
            continue
        one, other = (flatten_settings(side[common[0]].config) for side in (mine, reference))
        fields = [
            f"{name} ({_short(one.get(name))} against {_short(other.get(name))})"
            for name in sorted(one.keys() | other.keys())
            if one.get(name) != other.get(name) and not _belongs_to_arm(name, tuned)
        ]
        if fields and one and other:
            text = f"{arm} differs from {baseline} in more than head, loss and tuned values: {'; '.join(fields)}"
            cautions.append(Caution("confounded", arm, text))
        cautions.extend(_other_data(arm, mine, reference, common))
    return cautions


def mixed_configs(cells: Cells) -> list[Caution]:
    """Name arms whose runs were not all made with one configuration."""
    cautions = []
    for arm, of_arm in cells.items():
        configs = [
            {name: text for name, text in flatten_settings(run.config).items() if name not in {"seed", "draw"}}
            for run in of_arm.values()
        ]
        names = {name for config in configs for name in config}
        differing = sorted(name for name in names if len({config.get(name) for config in configs}) > 1)
        # A head's own seed follows the draw: it is meant to differ.
        differing = [name for name in differing if not name.endswith((".seed", ".draw"))]
        if differing:
            text = f"the runs of {arm} differ among themselves in {', '.join(differing)}"
            cautions.append(Caution("mixed configurations", arm, text))
    return cautions


def tuning_cautions(experiment: Experiment) -> list[Caution]:
    """Name winners at the edge of their grid, and arms that were given more trials than others."""
    trials = [trial for trial in experiment.tuning.get("trials") or () if isinstance(trial, Mapping)]
    notes = [str(note) for note in experiment.tuning.get("notes") or ()]
    cautions = [Caution("tuning", "", note) for note in notes]
    chosen = experiment.tuning.get("chosen")
    for arm, values in chosen.items() if isinstance(chosen, Mapping) else ():
        tried = sorted({float(t["lr"]) for t in trials if t.get("arm") == arm and t.get("lr") is not None})
        rate = values.get("lr") if isinstance(values, Mapping) else None
        said = any(arm in note.replace(":", " ").split() and "edge" in note for note in notes)
        if rate is not None and len(tried) > 1 and float(rate) in (tried[0], tried[-1]) and not said:
            side = "lowest" if float(rate) == tried[0] else "highest"
            edge = f"{arm} won at the edge of its grid (lr {rate:g}, the {side} tried)"
            cautions.append(Caution("tuning", arm, f"{edge}: a better rate may lie beyond"))
    counts: dict[str, int] = {}
    for trial in trials:
        counts[str(trial.get("arm"))] = counts.get(str(trial.get("arm")), 0) + 1
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{arm} {count}" for arm, count in counts.items())
        cautions.append(Caution("tuning", "", f"arms were given different numbers of trials ({listed})"))
    return cautions


def few_pairs(family: Family) -> list[Caution]:
    """Name arms with two pairs: an interval is defined there, but nothing can be seen of what it assumes."""
    arms = [test.arm for test in family.tests if test.paired is not None and test.paired.n == 2]
    text = f"two seeds for {', '.join(arms)}: interval and p rest wholly on normal differences; run more seeds"
    return [Caution("few pairs", "", text)] if arms else []


def uneven_draws(cells: Cells) -> list[Caution]:
    """Name arms whose means over draws are of fewer draws at some seeds than at others."""
    found = []
    for arm, of_arm in cells.items():
        draws = draws_of(of_arm)
        short = [seed for seed in sorted({s for s, _ in of_arm}) if any((seed, d) not in of_arm for d in draws)]
        if short:
            found.append(f"{arm} at seed {name_seeds(short)}")
    return [Caution("uneven draws", "", f"means over fewer draws than elsewhere: {'; '.join(found)}")] if found else []


def exposure(cells: Cells) -> list[Caution]:
    """Name the arms that trained against images of no class where others did not: they know something more."""
    exposed: dict[str, str] = {}
    for arm, of_arm in cells.items():
        named = {str(run.data["outliers"]) for run in of_arm.values() if run.data.get("outliers")}
        if named:
            exposed[arm] = ", ".join(sorted(named))
    if not exposed or len(exposed) == len(cells):
        return []
    which = ", ".join(dict.fromkeys(exposed.values()))
    text = (
        f"{', '.join(exposed)} trained against images of no class ({which}), which the other arms never saw: what "
        "outliers give and what a method gives are told apart among these arms only"
    )
    return [Caution("outliers", "", text)]


def records(notes: Sequence[tuple[str, str]]) -> list[Caution]:
    """Name what could not be read, one sentence for all runs with the same trouble.

    Args:
        notes: (run, trouble) pairs.
    """
    by_trouble: dict[str, list[str]] = {}
    for run, trouble in notes:
        by_trouble.setdefault(trouble, []).append(run)
    return [
        Caution("record", "", f"{trouble} in {runs[0]}" + (f" and {len(runs) - 1} more runs" if runs[1:] else ""))
        for trouble, runs in by_trouble.items()
    ]


def _tuned_fields(experiment: Experiment) -> set[str]:
    trials = [trial for trial in experiment.tuning.get("trials") or () if isinstance(trial, Mapping)]
    named = {str(trial["parameter"]) for trial in trials if trial.get("parameter")}
    listed = experiment.protocol.get("tuned")
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        named |= {str(name) for name in listed}
    return named | (_RATES if trials else set())


def _belongs_to_arm(name: str, tuned: Iterable[str]) -> bool:
    if name.split(".")[0] in _ARM_FIELDS:
        return True
    return any(name == knob or name.endswith(f".{knob}") or knob.endswith(f".{name}") for knob in tuned)


def _other_data(
    arm: str, mine: Mapping[int, ComparedRun], reference: Mapping[int, ComparedRun], common: Sequence[int]
) -> list[Caution]:
    """Pairs must share their images: a fingerprint that differs at one seed breaks the pair."""
    broken = []
    for seed in common:
        prints = {run.data.get("fingerprint") for run in (mine[seed], reference[seed])} - {None}
        if len(prints) > 1:
            broken.append(str(seed))
    if not broken:
        return []
    text = f"{arm} was trained on other images than the baseline at seed {', '.join(broken)}"
    return [Caution("not paired", arm, text)]


def _short(text: str | None) -> str:
    return "absent" if text is None else text if len(text) <= 40 else f"{text[:37]}..."
