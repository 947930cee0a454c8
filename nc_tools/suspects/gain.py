"""The command ``nc-tools gain``: what correcting labels gains, compared with random changes and with pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from nc_tools._support.check_writable import check_writable
from nc_tools._support.suggestions import did_you_mean
from nc_tools.choosing.head_arms import RATES, ArmOptions, enough_epochs, head_arms, is_imbalanced
from nc_tools.comparison import Comparison, compare
from nc_tools.comparison.closing_report import print_links, report_comparison
from nc_tools.comparison.wording import difference_text
from nc_tools.experiment import Protocol, RunConfig
from nc_tools.experiment.on_features.feature_options import (
    FeatureOptions,
    data_config,
    model_config,
    run_options,
    with_settings,
)
from nc_tools.experiment.on_features.prepare import prepare_features
from nc_tools.experiment.on_features.run_seeds import run_seeds
from nc_tools.experiment.plan import Plan
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.experiment.recipe_cli import torch_device
from nc_tools.experiment.recipe_plan import parse_seeds
from nc_tools.suspects.label_arms import LabelArm, label_arms
from nc_tools.tracking.no_mlflow import sync_unless_off

GIVEN = "given"
"""The arm with the labels as they were given, the baseline."""


@dataclass(frozen=True, kw_only=True)
class GainOptions(FeatureOptions):
    """The options of ``nc-tools gain``; its help explains each."""

    decide: Literal["balanced_accuracy", "accuracy"] = "balanced_accuracy"
    arm: str | None = None
    seeds: str = "0-9"
    epochs: int | None = None
    batch_size: int = 256
    out: Path = Path("outputs/gain")


def run_gain(options: GainOptions, console: Console) -> Comparison:
    """Compare training on given, corrected, randomly changed and pruned labels, on the same samples and test set.

    Args:
        options: The options of the command line.
        console: Where to print.

    Raises:
        ValueError: If data, model and decisions do not fit together, or the decisions change nothing.
        FileNotFoundError: If a file is missing.
        Killed: After Ctrl-C.
    """
    check_writable(options.out)
    data, model, device = data_config(options), model_config(options), torch_device(options.device)
    seeds = parse_seeds(options.seeds)
    common = ArmOptions(data=replace(data, corrections=None), model=model, batch_size=options.batch_size)
    any_arm = next(iter(head_arms(common, imbalanced=False).values()))
    cache = options.cache or options.out / "cache"
    with ProgressDisplay(console) as display:
        features = prepare_features(
            any_arm, options.out, cache, seed=seeds[0], device=device, display=display,
            check=lambda counts, _: _plan(options, common, counts, {}, seeds),  # other arms need the features' ids
        )  # fmt: skip
        arms = label_arms(features.path, data, options.out / "decisions")
        for name, arm in arms.items():
            display.note(f"arm {name}: {arm.words} ({arm.file})")
    plan = _plan(options, common, features.class_counts, arms, seeds)
    with sync_unless_off(options.out, options.tracking_uri) as sync:
        run_seeds(plan, run_options(options, device), features.path, console)
        report_comparison(options.out, console)
    print_links(options.out, console, sync)
    comparison = compare(options.out)
    console.print()
    for sentence in gain_sentences(comparison, arms):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    return comparison


def gain_sentences(comparison: Comparison, arms: Mapping[str, LabelArm]) -> list[str]:
    """Return what each change of the labels gains, with its verdict.

    Args:
        comparison: The comparison of all arms.
        arms: The arms besides the one with the given labels, by name.
    """
    verdicts = {"better": "significantly better", "worse": "significantly worse", "open": "no significant difference"}
    sentences, primary = [], comparison.primary
    for name, arm in arms.items():
        test = comparison.test(name)
        if test is None or test.paired is None:
            sentences.append(f"{name}, {arm.words}: no seed in common with the given labels.")
            continue
        difference = difference_text(test.paired, primary, f" {primary.unit}" if primary.unit else "")
        verdict = verdicts[comparison.family.verdict(test)]
        sentences.append(f"{name}, {arm.words}: {difference} in {primary.label}, {verdict}.")
    return sentences


def _plan(
    options: GainOptions,
    common: ArmOptions,
    class_counts: tuple[int, ...],
    labels: Mapping[str, LabelArm],
    seeds: tuple[int, ...],
) -> Plan:
    """Return the comparison: one method, with the given labels and with every change of them."""
    imbalanced = is_imbalanced(class_counts) and options.decide == "balanced_accuracy"
    epochs = enough_epochs(sum(class_counts), common, options.epochs)
    methods = head_arms(replace(common, epochs=epochs), imbalanced=imbalanced)
    method = options.arm or next(iter(methods))
    if method not in methods:
        raise ValueError(f"there is no arm {method!r}; {did_you_mean(method, methods)}")
    base = methods[method]
    arms: dict[str, RunConfig] = {GIVEN: base}
    arms |= {name: replace(base, data=replace(base.data, corrections=str(arm.file))) for name, arm in labels.items()}
    primary = f"test/gen/{options.decide}"
    protocol = Protocol(seeds=seeds, rates=RATES, tune_each_seed=True, curve_points=1, primary=primary)
    arms, protocol = with_settings(arms, protocol, options.settings)
    question = f"What does correcting labels of {options.data} gain? Method: {method}, the same for all labels."
    return Plan(name="gain", question=question, arms=arms, protocol=protocol)
