"""Apply command-line flags to a recipe's arms (the compared methods) and protocol (the rules that they share)."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from nc_tools._support.suggestions import did_you_mean
from nc_tools.experiment.data_flags import data_from_flags
from nc_tools.experiment.fine_tuning_defaults import fine_tuning_config, fine_tuning_rates, with_files_read_for
from nc_tools.experiment.model_config import ModelConfig
from nc_tools.experiment.overrides import TUNED_RATE, parse_setting, put, put_all, rate_is_tuned
from nc_tools.experiment.plan import Plan
from nc_tools.experiment.run_config import Protocol, RunConfig
from nc_tools.specs import Spec

_MOST_SEEDS = 10_000

SMOKE_EPOCHS = 2


def make_plan(
    arms: Mapping[str, RunConfig], *, name: str, question: str, protocol: Protocol, args: argparse.Namespace
) -> Plan:
    """Return the plan of the comparison that a recipe's command-line flags ask for.

    Args:
        arms: All arms of the recipe, by name.
        name: Name of the recipe.
        question: Its docstring, of which the first paragraph is the comparison's question.
        protocol: The recipe's protocol.
        args: Parsed flags.

    Raises:
        ValueError: If an arm, field or seed is unknown or malformed.
    """
    settings = [parse_setting(text) for text in args.set]
    # Weights decide which optimizer and rates suit, so they come first.
    weights = [value for path, value in settings if path == "model.weights"]
    if weights and args.weights is None:
        args.weights = str(weights[-1])
    chosen = {arm: _with_flags(config, args) for arm, config in _choose_arms(arms, args.arms).items()}
    protocol = fine_tuning_rates(protocol, next(iter(chosen.values())))
    chosen = {arm: fine_tuning_config(config) for arm, config in chosen.items()}
    chosen = with_files_read_for(chosen)
    if args.smoke:
        protocol = _smoke_protocol(protocol)
    if args.seeds is not None:
        protocol = dataclasses.replace(protocol, seeds=parse_seeds(args.seeds))
    protocol = dataclasses.replace(protocol, references=_references(protocol, arms, chosen))
    for path, value in settings:
        section, _, rest = path.partition(".")
        if section == "protocol":
            protocol = put(protocol, rest, value)
        elif path == TUNED_RATE:
            raise rate_is_tuned(value)
        else:
            chosen = _put_in_arms(chosen, path, value)
    first_paragraph = question.strip().split("\n\n")[0]  # the others say how to run the recipe
    for noise in {config.data.noise: None for config in chosen.values() if config.data.noise is not None}:
        first_paragraph += f" Label noise is drawn onto the training labels: {noise}."
    if args.smoke:
        first_paragraph = f"SMOKE RUN, to check that everything works: its numbers mean nothing. {first_paragraph}"
    return Plan(name=name, question=first_paragraph, arms=chosen, protocol=protocol, smoke=args.smoke)


def _smoke_protocol(protocol: Protocol) -> Protocol:
    protocol = dataclasses.replace(
        protocol,
        seeds=(0, 1),
        draws=2,
        rates=protocol.rates[1:3],
        max_extensions=0,
        curve_points=2,
        check_transition=False,
    )
    if protocol.fine_tuning is not None:
        short = put(protocol.fine_tuning, "training.epochs", SMOKE_EPOCHS)
        protocol = dataclasses.replace(protocol, fine_tuning=dataclasses.replace(short, rates=short.rates[:1]))
    return protocol


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that text such as "0-4" or "0,2,5" lists; both forms can be mixed.

    Example:
        >>> parse_seeds("0-2,7")
        (0, 1, 2, 7)

    Raises:
        ValueError: If the text has neither form, or lists more than 10,000 seeds.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ValueError(f"--seeds must read like 0-4 or 0,2,5, got {text!r}")
        if int(last or first) - int(first) >= _MOST_SEEDS:
            raise ValueError(f"--seeds must be at most {_MOST_SEEDS:,} numbers, got {text!r}")
        seeds += range(int(first), int(last if dash else first) + 1)
    return tuple(dict.fromkeys(seeds))


def _references(protocol: Protocol, arms: Iterable[str], chosen: Collection[str]) -> dict[str, str]:
    """Return each chosen arm's reference, the arm it is also tested against, if that one was chosen too."""
    for arm in (name for pair in protocol.references.items() for name in pair):
        if arm not in arms:
            raise ValueError(f"protocol.references names {arm!r}, which is not an arm; {did_you_mean(arm, arms)}")
    return {a: b for a, b in protocol.references.items() if a in chosen and b in chosen}


def _choose_arms(arms: Mapping[str, RunConfig], text: str | None) -> dict[str, RunConfig]:
    if text is None or text == "all":
        return dict(arms)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in arms:
            raise ValueError(f"there is no arm {name!r}; {did_you_mean(name, arms)}")
    return {name: arms[name] for name in names}


def _with_flags(config: RunConfig, args: argparse.Namespace) -> RunConfig:
    """Apply to an arm's configuration the flags that set one of its fields, such as ``--epochs``."""
    fields: list[tuple[str, Any]] = []
    if not config.is_closed_form:  # a head in closed form trains for no epoch
        fields.append(("training.epochs", SMOKE_EPOCHS if args.smoke and args.epochs is None else args.epochs))
    model = _model_with_flags(config.model, args)
    data = data_from_flags(config.data, args)
    if args.image_size is not None and (model.is_pretrained or model.is_own):
        model = dataclasses.replace(model, image_size=args.image_size)
        data = dataclasses.replace(data, image_size=config.data.image_size)
    config = dataclasses.replace(config, data=data, model=model)
    return put_all(config, [(path, value) for path, value in fields if value is not None])


def _model_with_flags(model: ModelConfig, args: argparse.Namespace) -> ModelConfig:
    """Apply the flags of the network together, because each of them depends on the others."""
    given = {"name": args.model, "weights": args.weights, "train": args.train}
    changes = {field: value for field, value in given.items() if value is not None}
    if args.model is not None:
        changes["network"] = None
    return dataclasses.replace(model, **changes) if changes else model


def _put_in_arms(arms: Mapping[str, RunConfig], path: str, value: Any) -> dict[str, RunConfig]:
    """Set a field in all arms; set an argument of a head, loss or second stage only in arms whose class has it."""
    section, _, rest = path.partition(".")
    if section not in ("head", "loss", "second_stage") or not rest:
        return {name: put(config, path, value) for name, config in arms.items()}
    arguments = {name: _argument_names(getattr(config, section)) for name, config in arms.items()}
    matching = [name for name, names in arguments.items() if rest in names]
    if not matching:
        every = {argument for names in arguments.values() for argument in names}
        raise ValueError(f"no arm's {section} has an argument {rest!r}; {did_you_mean(rest, every)}")
    return {name: put(config, path, value) if name in matching else config for name, config in arms.items()}


def _argument_names(part: Any) -> list[str]:
    """Return the names of the arguments of a spec or second stage; none if there is no second stage."""
    if part is None:
        return []
    return part.parameter_names if isinstance(part, Spec) else [f.name for f in dataclasses.fields(part)]
