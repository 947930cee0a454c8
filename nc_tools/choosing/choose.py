"""The command ``nc-tools choose``: from data and a pretrained model to the head and loss to use, and its model."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from nc_tools._support.check_writable import check_writable
from nc_tools.choosing.choice import Choice, holdout_scores, make_choice
from nc_tools.choosing.choice_text import choice_sentences
from nc_tools.choosing.head_arms import RATES, ArmOptions, choose_arms, head_arms, is_imbalanced
from nc_tools.comparison import Comparison, compare
from nc_tools.data import DataConfig
from nc_tools.data.guess_source import guess_source
from nc_tools.data.source_names import BUILTIN_KINDS, parse_source
from nc_tools.data.table_config import TableConfig
from nc_tools.experiment import ModelConfig, Protocol, RunConfig
from nc_tools.experiment.closing_report import print_links, report_comparison
from nc_tools.experiment.on_features.feature_sources import EMBEDDINGS
from nc_tools.experiment.on_features.prepare import prepare_features
from nc_tools.experiment.on_features.run_seeds import run_seeds
from nc_tools.experiment.on_features.whole_model import write_whole_model
from nc_tools.experiment.overrides import parse_setting, put, put_all
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.experiment.recipe_cli import torch_device
from nc_tools.experiment.recipe_plan import parse_seeds
from nc_tools.features import GivenFeatures
from nc_tools.run_records.json_files import write_json
from nc_tools.specs import spec
from nc_tools.tracking import MlflowSync

MODEL_FOLDER = "model"
"""Folder of the model to take home, in the output folder."""
_FEWEST_STEPS = 600
_EPOCHS = 30
_DATA = "data."
_EMBEDDING_FILES = (".npz", ".safetensors", ".parquet")


@dataclass(frozen=True, kw_only=True)
class ChooseOptions:
    """The options of ``nc-tools choose``, see its help."""

    data: str
    model: str | None = None
    weights: str | None = None
    image_size: int | None = None
    labels: str | None = None
    clean: str | None = None
    corrections: str | None = None
    noisy: bool = False
    imbalance: float | None = None
    decide: Literal["balanced_accuracy", "accuracy"] = "balanced_accuracy"
    arms: str | None = None
    seeds: str = "0-9"
    epochs: int | None = None
    batch_size: int = 256
    ood_near: str | None = None
    ood_far: str | None = None
    test_table: str | None = None
    skip_unreadable: bool = False
    skip_missing: bool = False
    drop_duplicates: bool = False
    settings: Sequence[str] = ()
    out: Path = Path("outputs/choose")
    cache: Path | None = None
    device: str = "auto"
    workers: int | None = None
    tracking_uri: str | None = None


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
    data, model = _data_config(options), _model_config(options)
    device, seeds = torch_device(options.device), parse_seeds(options.seeds)
    run_options = _run_options(options, device)
    common = ArmOptions(data=data, model=model, batch_size=options.batch_size)
    any_arm = next(iter(head_arms(common, imbalanced=False).values()))
    cache = options.cache or options.out / "cache"
    with ProgressDisplay(console) as display:
        features = prepare_features(
            any_arm, options.out, cache, seed=seeds[0], device=device, display=display,
            check=lambda counts, noisy: _plan(options, common, seeds, counts, has_clean_labels=noisy),
        )  # fmt: skip
    plan = _plan(options, common, seeds, features.class_counts, has_clean_labels=features.has_clean_labels)
    with MlflowSync(options.out, options.tracking_uri, plan.name):
        run_seeds(plan, run_options, features.path, console)
        report_comparison(options.out, console)
    comparison = compare(options.out)
    choice = make_choice(comparison, holdout_scores(options.out / "seeds" / f"seed-{seed}.json" for seed in seeds))
    sentences = choice_sentences(choice, comparison)
    _write(choice, comparison, sentences, options.out, plan.arms[choice.arm].model)
    print_links(options.out, console, options.tracking_uri)
    console.print()
    for sentence in (*sentences, f"The model to take home is in {options.out / MODEL_FOLDER}."):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    return choice


def _data_config(options: ChooseOptions) -> DataConfig:
    source = options.data
    if Path(source).is_file() and Path(source).suffix.lower() in _EMBEDDING_FILES:
        source = f"{EMBEDDINGS}{source}"
    source = guess_source(source)
    if ":" not in source and source not in BUILTIN_KINDS:
        raise FileNotFoundError(f"{source} does not exist: give a folder of images, an embedding file, or KIND:PATH")
    parse_source(source)
    config = DataConfig(
        source,
        labels=options.labels,
        clean=options.clean,
        corrections=options.corrections,
        table=TableConfig(test_table=options.test_table),
        imbalance=1.0 if options.imbalance is None else options.imbalance,
        crop_padding=0,
        flip=False,
        ood_near=options.ood_near,
        ood_far=options.ood_far,
        skip_unreadable=options.skip_unreadable,
        skip_missing=options.skip_missing,
        drop_duplicates=options.drop_duplicates,
    )
    settings = [parse_setting(text) for text in options.settings]  # before the data are read; the others wait for arms
    return put_all(config, [(path[len(_DATA) :], value) for path, value in settings if path.startswith(_DATA)])


def _model_config(options: ChooseOptions) -> ModelConfig:
    if _is_embeddings(options.data):
        if options.model is not None or options.weights is not None:
            raise ValueError("embeddings are the features of a model already: leave out --model and --weights")
        return ModelConfig(network=spec(GivenFeatures), train="head", standardize=True)
    if options.model is None:
        raise ValueError(
            "features of images come from a pretrained model: give one, such as --model timm:resnet18 --weights "
            "pretrained, or an embedding file (.npz, .safetensors, .parquet) in place of the images"
        )
    return ModelConfig(
        name=options.model, weights=options.weights, image_size=options.image_size, train="head", standardize=True
    )


def _is_embeddings(data: str) -> bool:
    return data.startswith(EMBEDDINGS) or Path(data).suffix.lower() in _EMBEDDING_FILES


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
    fitted = math.ceil(sum(class_counts) * (1 - common.data.holdout))
    steps = math.ceil(fitted / common.batch_size)
    epochs = options.epochs or max(_EPOCHS, math.ceil(_FEWEST_STEPS / steps))
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
    for text in options.settings:
        path, value = parse_setting(text)
        section, _, rest = path.partition(".")
        if path.startswith(_DATA):
            continue
        if section == "protocol":
            protocol = put(protocol, rest, value)
        else:
            arms = {name: put(arm, path, value) for name, arm in arms.items()}
    question = f"Which head and loss suit {options.data} on fixed features? {options.decide.replace('_', ' ')} decides."
    return Plan(name="choose", question=question, arms=arms, protocol=protocol)


def _references(arms: dict[str, RunConfig], *, imbalanced: bool) -> dict[str, str]:
    """Return the fair reference of each fixed geometry: random class vectors with the same loss."""
    control = "random_la" if imbalanced else "random"
    fixed = [name for name in arms if name.startswith(("etf", "nearest_etf", "simplex"))]
    return dict.fromkeys(fixed, control) if control in arms else {}


def _run_options(options: ChooseOptions, device: str) -> RunOptions:
    on_cpu = torch.device(device).type == "cpu"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = options.workers if options.workers is not None else (cores if on_cpu else 1)
    if workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    return RunOptions(
        out=options.out, device=device, workers=workers, threads=max(1, cores // workers),
        tracking_uri=options.tracking_uri,
    )  # fmt: skip


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
