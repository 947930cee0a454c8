"""Join the runs of several output folders into one comparison: which arms are the same, and what must not differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nc_tools.comparison.compared_run import SCORED_KINDS, ComparedRun
from nc_tools.comparison.pairing import name_seeds, other_data_seeds
from nc_tools.comparison.read_experiment import Experiment
from nc_tools.comparison.settings import flatten_settings, is_tuned, tuned_fields

# Rules that may differ between the folders: the seeds are read from the runs, and the references are joined.
_OWN_RULES = {"seeds", "tuning_seeds", "references"}


@dataclass(frozen=True)
class ComparedFolder:
    """The runs of one output folder, and its plan.

    Attributes:
        root: The output folder.
        runs: Its runs.
        experiment: Its plan; without arms if the folder has none.
        title: Its name in the report; by default that of the folder.
    """

    root: Path
    runs: Sequence[ComparedRun]
    experiment: Experiment
    title: str = ""


def join_folders(folders: Sequence[ComparedFolder]) -> tuple[list[ComparedRun], Experiment]:
    """Return the runs of all folders and one plan.

    An arm that several folders have is one arm if its settings, and the images of each seed, are the same in them.
    Otherwise the folder's name is added to its name, as in ``linear (first)`` and ``linear (second)``. Rules that
    differ between the folders are left out of the plan and named in ``experiment.unequal``.

    Args:
        folders: The folders, in the order in which their arms are shown.

    Raises:
        ValueError: If the folders have different primary metrics, or different values of ``test_per_train`` (which is 0
            unless every seed has its own split of the images).
    """
    if len(folders) == 1:
        return list(folders[0].runs), folders[0].experiment
    labels = _labels(folders)
    names = _arm_names(folders, labels)
    runs = [
        replace(run, arm=names[label][run.arm], run_id=f"{label}/{run.run_id}" if run.run_id else "")
        for label, folder in zip(labels, folders, strict=True)
        for run in folder.runs
    ]
    return runs, _joined_plan(folders, labels, names)


def _labels(folders: Sequence[ComparedFolder]) -> list[str]:
    """Return a short name for each folder, preceded by as many of its parent folders as make the names different."""
    titles = [folder.title or folder.root.resolve().name for folder in folders]
    for depth in range(1, 50):
        if len(set(titles)) == len(titles):
            break
        parts = [folder.root.resolve().parts[-depth:] for folder in folders]
        titles = [
            title if titles.count(title) == 1 else "/".join([*([folder.title] if folder.title else []), *own])
            for title, folder, own in zip(titles, folders, parts, strict=True)
        ]
    return titles


def _arm_names(folders: Sequence[ComparedFolder], labels: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the name of each folder's arms in the comparison: label -> own name -> name."""
    names: dict[str, dict[str, str]] = {label: {} for label in labels}
    arms = dict.fromkeys(arm for folder in folders for arm in _arms(folder))
    for arm in arms:
        groups: list[list[tuple[str, ComparedFolder]]] = []
        for label, folder in zip(labels, folders, strict=True):
            if arm not in _arms(folder):
                continue
            same = [group for group in groups if all(_is_same_arm(arm, folder, other) for _, other in group)]
            if same:
                same[0].append((label, folder))
            else:
                groups.append([(label, folder)])
        for group in groups:
            own = arm if len(groups) == 1 else f"{arm} ({', '.join(label for label, _ in group)})"
            names |= {label: names[label] | {arm: own} for label, _ in group}
    return names


def _arms(folder: ComparedFolder) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*folder.experiment.arms, *(run.arm for run in folder.runs)]))


def _is_same_arm(arm: str, folder: ComparedFolder, other: ComparedFolder) -> bool:
    """Return True if an arm has the same settings, data set and images at each common seed in two folders."""
    sides = [
        [run for run in side.runs if run.arm == arm and run.kind in SCORED_KINDS and run.finished]
        for side in (folder, other)
    ]
    if not all(sides):
        return True  # it has no result in one of them, and so cannot be mistaken for another
    settings = [
        {_replicate(run, side.experiment) for run in runs} for runs, side in zip(sides, (folder, other), strict=True)
    ]
    cells = [{(run.seed, run.draw): run for run in runs} for runs in sides]
    data = [{str(run.data.get("name") or "") for run in runs} for runs in sides]
    return settings[0] == settings[1] and data[0] == data[1] and not other_data_seeds(*cells)


def _replicate(run: ComparedRun, experiment: Experiment) -> tuple[tuple[str, str], ...]:
    """Return the settings of a run that all runs of its arm share, without seed, draw and values tuned by seed."""
    tuned = tuned_fields(experiment) if experiment.tuned_each_seed else set()
    own = (".seed", ".draw", ".arguments")  # a head's seed follows the draw; see fairness.py
    settings = flatten_settings(run.config)
    kept = (name for name in settings if name not in ("seed", "draw") and not name.endswith(own))
    return tuple((name, settings[name]) for name in sorted(kept) if not is_tuned(name, tuned))


def _joined_plan(
    folders: Sequence[ComparedFolder], labels: Sequence[str], names: Mapping[str, Mapping[str, str]]
) -> Experiment:
    planned = {
        label: folder.experiment for label, folder in zip(labels, folders, strict=True) if folder.experiment.arms
    }
    plans = list(planned.values()) or [folders[0].experiment]
    _check_equal(planned, "primary", "decide by different metrics", lambda plan: plan.primary)
    _check_equal(planned, "split", "do not all split the images anew for each seed", lambda plan: plan.test_per_train)
    first = next(iter(planned), labels[0])
    rules, unequal = _common_rules(planned)
    references = {
        names[label].get(arm, arm): names[label].get(other, other)
        for label, plan in planned.items()
        for arm, other in plan.references.items()
    }
    baseline = planned[first].baseline if planned else folders[0].experiment.baseline
    questions = dict.fromkeys(plan.question for plan in plans if plan.question)
    return replace(
        plans[0],
        name=" + ".join(dict.fromkeys(labels)),
        question=next(iter(questions)) if len(questions) == 1 else "",
        baseline=names[first].get(baseline, baseline),
        arms=tuple(dict.fromkeys(name for label in labels for name in names[label].values())),
        suite="",
        protocol=rules | ({"references": references} if references else {}),
        tuning=_joined_tuning(planned, names),
        runs=(),
        smoke=any(plan.smoke for plan in plans),
        unequal=(*unequal, *_untuned(folders, labels), *_unknown_data(folders, labels)),
    )


def _check_equal(planned: Mapping[str, Experiment], what: str, problem: str, of: Any) -> None:
    values = {label: of(plan) for label, plan in planned.items()}
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{label}: {value}" for label, value in values.items())
        raise ValueError(
            f"the folders {problem} ({listed}), so their arms cannot be compared: compare folders that "
            f"have the same {what}"
        )


def _common_rules(planned: Mapping[str, Experiment]) -> tuple[dict[str, Any], list[str]]:
    """Return the rules that all plans share, and a sentence about the others."""
    protocols = {label: plan.protocol for label, plan in planned.items()}
    keys = dict.fromkeys(key for protocol in protocols.values() for key in protocol if key not in _OWN_RULES)
    absent = object()
    different = [
        key for key in keys if any(p.get(key, absent) != _first(protocols).get(key, absent) for p in protocols.values())
    ]
    common = {key: value for key, value in _first(protocols).items() if key in keys and key not in different}
    if not different:
        return common, []
    listed = "; ".join(
        f"{key}: " + ", ".join(f"{protocol.get(key, 'none')} in {label}" for label, protocol in protocols.items())
        for key in different
    )
    return common, [f"the folders do not have the same rules ({listed}), so the arms of one may have had an advantage"]


def _first(protocols: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return next(iter(protocols.values()), {})


def _joined_tuning(planned: Mapping[str, Experiment], names: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return the trials of all folders under the new names; an arm and seed in several folders is listed once."""
    trials: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
    chosen: dict[str, Any] = {}
    notes: list[str] = []
    for label, plan in planned.items():
        own: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
        for trial in plan.trials:
            arm = names[label].get(str(trial.get("arm")), str(trial.get("arm")))
            own.setdefault((arm, trial.get("seed")), []).append({**trial, "arm": arm})
        for key, group in own.items():
            trials.setdefault(key, group)
        of_plan = plan.tuning.get("chosen")
        for arm, values in of_plan.items() if isinstance(of_plan, Mapping) else ():
            chosen.setdefault(names[label].get(arm, arm), values)
        notes += [f"{label}: {note}" for note in plan.tuning.get("notes") or ()]
    return {"trials": [trial for group in trials.values() for trial in group], "chosen": chosen, "notes": notes}


def _untuned(folders: Sequence[ComparedFolder], labels: Sequence[str]) -> list[str]:
    """Say which folders hold no tuning trials, if others do."""
    without = [label for label, folder in zip(labels, folders, strict=True) if not folder.experiment.trials]
    if not without or len(without) == len(labels):
        return []
    tuned = [label for label in labels if label not in without]
    return [
        f"the arms of {', '.join(tuned)} were tuned by recorded trials, and {', '.join(without)} has no record of any: "
        "a difference may come from tuning"
    ]


def _unknown_data(folders: Sequence[ComparedFolder], labels: Iterable[str]) -> list[str]:
    """Say which folders hold runs that do not name their data, so that nothing shows that all have the same."""
    unknown = []
    for label, folder in zip(labels, folders, strict=True):
        seeds = sorted(
            {r.seed for r in folder.runs if r.finished and r.kind in SCORED_KINDS and not r.data.get("fingerprint")}
        )
        unknown += [f"{label} (seed {name_seeds(seeds)})"] if seeds else []
    if not unknown:
        return []
    return [
        f"runs in {', '.join(unknown)} do not say which data they were trained on, so nothing shows that it is the "
        "same as in the other folders. Give track(..., data=...)"
    ]
