"""The command ``nc-tools choose``: choose a head and a loss for data and a pretrained model, and write the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from nc_tools._support.check_writable import check_writable
from nc_tools.choosing.choice import Choice, holdout_scores, make_choice
from nc_tools.choosing.choice_text import choice_sentences
from nc_tools.choosing.head_arms import RATES, ArmOptions, choose_arms, enough_epochs, head_arms, is_imbalanced
from nc_tools.comparison import Comparison, compare
from nc_tools.comparison.closing_report import print_links, report_comparison
from nc_tools.experiment import ModelConfig, Protocol, RunConfig
from nc_tools.experiment.on_features.feature_options import (
    FeatureOptions,
    data_config,
    model_config,
    run_options,
    with_settings,
)
from nc_tools.experiment.on_features.prepare import prepare_features
from nc_tools.experiment.on_features.run_seeds import run_seeds
from nc_tools.experiment.on_features.whole_model import write_whole_model
from nc_tools.experiment.plan import Plan
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.experiment.recipe_cli import torch_device
from nc_tools.experiment.recipe_plan import parse_seeds
from nc_tools.run_records.json_files import write_json
from nc_tools.tracking.no_mlflow import sync_unless_off

MODEL_FOLDER = "model"
"""Folder of the chosen model, in the output folder."""


@dataclass(frozen=True, kw_only=True)
class ChooseOptions(FeatureOptions):
    """The options of ``nc-tools choose``, see its help."""

    noisy: bool = False
    imbalance: float | None = None
    decide: Literal["balanced_accuracy", "accuracy"] = "balanced_accuracy"
    arms: str | None = None
    seeds: str = "0-9"
    epochs: int | None = None
    batch_size: int = 256
    ood_near: str | None = None
    ood_far: str | None = None
    out: Path = Path("outputs/choose")


def run_choose(options: ChooseOptions, console: Console) -> Choice:
    """Compare heads on fixed features, choose one, print why, and write its model.

    Args:
        options: What the command line says.
        console: Where to print.

    Returns:
        The choice.

    Raises:
        ValueError: If data, model and arms do not fit together.
        FileNotFoundError: If data or weights are missing.
        Killed: After Ctrl-C.
    """
    check_writable(options.out)
    flags = {"imbalance": options.imbalance, "ood_near": options.ood_near, "ood_far": options.ood_far}
    data = data_config(options, {name: value for name, value in flags.items() if value is not None})
    model = model_config(options)
    device, seeds = torch_device(options.device), parse_seeds(options.seeds)
    how = run_options(options, device)
    common = ArmOptions(data=data, model=model, batch_size=options.batch_size)
    any_arm = next(iter(head_arms(common, imbalanced=False).values()))
    cache = options.cache or options.out / "cache"
    with ProgressDisplay(console) as display:
        features = prepare_features(
            any_arm, options.out, cache, seed=seeds[0], device=device, display=display,
            check=lambda counts, noisy: _plan(options, common, seeds, counts, has_clean_labels=noisy),
        )  # fmt: skip
    plan = _plan(options, common, seeds, features.class_counts, has_clean_labels=features.has_clean_labels)
    with sync_unless_off(options.out, options.tracking_uri) as sync:
        run_seeds(plan, how, features.path, console)
        if sync is not None:
            sync.push_soon()  # the runs, while the report is written
        comparison = report_comparison(options.out, console) or compare(options.out)
        choice = make_choice(comparison, holdout_scores(options.out / "seeds" / f"seed-{seed}.json" for seed in seeds))
        sentences = choice_sentences(choice, comparison)
        _write(choice, comparison, sentences, options.out, plan.arms[choice.arm].model)
        console.print()
        for sentence in (*sentences, f"The model to take home is in {options.out / MODEL_FOLDER}."):
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    print_links(options.out, console, sync)
    return choice


def _plan(
    options: ChooseOptions,
    common: ArmOptions,
    seeds: tuple[int, ...],
    class_counts: tuple[int, ...],
    *,
    has_clean_labels: bool,
) -> Plan:
    """Return the comparison: arms that suit the data, and the rules."""
    imbalanced = is_imbalanced(class_counts) and options.decide == "balanced_accuracy"
    epochs = enough_epochs(sum(class_counts), common, options.epochs)
    noisy = options.noisy or options.labels is not None or has_clean_labels
    arms = choose_arms(head_arms(replace(common, epochs=epochs), imbalanced=imbalanced), options.arms, noisy=noisy)
    protocol = Protocol(
        seeds=seeds,
        rates=RATES,
        tune_each_seed=True,
        curve_points=1,
        primary=f"test/gen/{options.decide}",
        references=_references(arms, imbalanced=imbalanced),
    )
    arms, protocol = with_settings(arms, protocol, options.settings)
    question = f"Which head and loss suit {options.data} on fixed features? {options.decide.replace('_', ' ')} decides."
    return Plan(name="choose", question=question, arms=arms, protocol=protocol)


def _references(arms: dict[str, RunConfig], *, imbalanced: bool) -> dict[str, str]:
    """Return the fair reference of each fixed geometry: random class vectors with the same loss."""
    control = "random_la" if imbalanced else "random"
    fixed = [name for name in arms if name.startswith(("etf", "nearest_etf", "simplex"))]
    if control not in arms:
        return {}
    return {name: control for name in fixed if arms[name].loss.cls is arms[control].loss.cls}


def _write(choice: Choice, comparison: Comparison, sentences: Sequence[str], out: Path, backbone: ModelConfig) -> None:
    """Write the choice as JSON and text, and the model of the first seed of the arm that was chosen."""
    runs = {seed: run for (seed, draw), run in comparison.cells[choice.arm].items() if draw == 0}
    first = min(runs)
    write_whole_model(out / "runs" / runs[first].run_id, out / MODEL_FOLDER, backbone)
    write_json(
        out / "choice.json",
        {
            "arm": choice.arm,
            "default": choice.default,
            "candidate": choice.candidate,
            "confirmed": choice.confirmed,
            "holdout": dict(choice.holdout),
            "difference": None if choice.difference is None else choice.difference.mean,
            "interval": None if choice.difference is None else [choice.difference.low, choice.difference.high],
            "p": None if choice.difference is None else choice.difference.p,
            "reason": choice.reason,
            "sentences": list(sentences),
            "model": {"folder": MODEL_FOLDER, "seed": first},
        },
    )
    (out / "choice.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")
