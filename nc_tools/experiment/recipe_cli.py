"""The command line of a recipe."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from nc_tools._support.check_writable import check_writable
from nc_tools._support.disk_full import is_disk_full
from nc_tools._support.signals import Killed
from nc_tools._support.suggestions import did_you_mean
from nc_tools.experiment.closing_report import report, say_where
from nc_tools.experiment.overrides import parse_setting, put, put_all
from nc_tools.experiment.plan import Options, Plan, run_plan
from nc_tools.experiment.run_config import Protocol, RunConfig
from nc_tools.experiment.serialize import encode
from nc_tools.spec import Spec
from nc_tools.tracking import LiveSync, MlflowSync

SMOKE_EPOCHS = 2


def recipe_parser(
    name: str, question: str, arms: Sequence[str], default_arms: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Return the flags that every recipe has."""
    default = ",".join(default_arms) if default_arms else "all"
    p = argparse.ArgumentParser(
        prog=f"recipes/{name}.py", description=question, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("--data", help="digits, imagefolder:PATH, cifar10[:ROOT] or cifar100[:ROOT]")
    add("--labels", metavar="FILE:COLUMN", help="take training labels from a CSV with a path column")
    add("--image-size", type=int, help="side of the images in pixels")
    add("--transfer-data", metavar="DATA", help="another data set to measure transfer on")
    add("--imbalance", type=float, help="largest class over smallest class in the training subset")
    add("--model", help="conv, resnet20, resnet32, or a torchvision or timm name")
    add("--arms", help=f"comma-separated, the baseline first, or all: {','.join(arms)} (default: {default})")
    add("--seeds", help="such as 0-4 or 0,2,5")
    add("--epochs", type=int)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add("--out", type=Path, default=Path("outputs") / name, help="output folder (default: %(default)s)")
    add("--tracking-uri", help="MLflow store or server (default: a store in the output folder)")
    add("--set", action="append", default=[], metavar="A.B=VALUE", help="any field, such as optim.weight_decay=1e-4")
    add("--workers", type=int, help="runs side by side (default: one a core, or one on a GPU)")
    add("--resume", action="store_true", help="go on from the checkpoints of unfinished runs")
    add("--skip-unreadable", action="store_true", help="leave out images that cannot be read")
    add("--smoke", action="store_true", help="a few seconds of everything, to see that it works")
    add("--print-config", action="store_true", help="print the configuration as JSON and stop")
    return p


def run_recipe(
    arms: Mapping[str, RunConfig],
    *,
    name: str,
    question: str,
    protocol: Protocol | None = None,
    default_arms: Sequence[str] = (),
    argv: Sequence[str] | None = None,
) -> None:
    """Run a recipe from its command line; ends the process with 0, with 2 on wrong input, or with 130 when stopped.

    Args:
        arms: Arms by name; the first is the baseline.
        name: The recipe's.
        question: What it asks; its docstring.
        protocol: The rules that all arms share.
        default_arms: Which arms run when the command line does not say, the baseline first; none means all.
        argv: Arguments; None for those of the process.
    """
    args = recipe_parser(name, question, list(arms), default_arms).parse_args(argv)
    args.arms = args.arms or ",".join(default_arms) or None
    console = Console(stderr=False)
    try:
        plan = make_plan(arms, name=name, question=question, protocol=protocol or Protocol(), args=args)
        if args.print_config:
            print(json.dumps({"arms": encode(dict(plan.arms)), "protocol": encode(plan.protocol)}, indent=2))
            return
        options = make_options(args)
        sync = MlflowSync(options.out, options.tracking_uri, plan.name)
        with LiveSync(sync):
            run_plan(plan, options, console)
            report(options.out, console, sync)
        say_where(options.out, console, options.tracking_uri)
    except (Killed, KeyboardInterrupt):
        told = f"\nStopped. What was finished is kept in {args.out}; the same command with --resume goes on."
        console.print(told, markup=False, highlight=False, soft_wrap=True)
        sys.exit(130)
    except (ValueError, TypeError, OSError) as error:
        _say_error(_no_room(args.out, error) if is_disk_full(error) else error)
        sys.exit(2)


def _no_room(out: Path, error: BaseException) -> OSError:
    """Say where there is no room: what fails while it is written does not name its file."""
    why = getattr(error, "strerror", None) or error
    return OSError(
        f"{out} takes no more ({why}): make room there and give the same command again, which repeats nothing that was "
        f"finished"
    )


def _say_error(error: BaseException) -> None:
    """Print one line, whatever the message holds."""
    told = " ".join(str(error).split())
    Console(stderr=True).print(f"error: {told}", style="red", markup=False, highlight=False, soft_wrap=True)


def make_plan(
    arms: Mapping[str, RunConfig], *, name: str, question: str, protocol: Protocol, args: argparse.Namespace
) -> Plan:
    """Apply the flags to a recipe's arms and protocol.

    Raises:
        ValueError: If an arm, a field or a seed is unknown or ill-formed.
    """
    settings = [parse_setting(text) for text in args.set]
    chosen = {arm: _flags(config, args) for arm, config in _chosen(arms, args.arms).items()}
    if args.smoke:
        protocol = dataclasses.replace(
            protocol, seeds=(0, 1), draws=2, rates=(0.0316, 0.1), max_extensions=0, curve_points=2
        )
        if protocol.fine_tuning is not None:
            short = put(protocol.fine_tuning, "training.epochs", SMOKE_EPOCHS)
            protocol = dataclasses.replace(protocol, fine_tuning=dataclasses.replace(short, rates=short.rates[:1]))
    if args.seeds is not None:
        protocol = dataclasses.replace(protocol, seeds=parse_seeds(args.seeds))
    protocol = dataclasses.replace(protocol, references=_references(protocol, arms, chosen))
    for path, value in settings:
        section, _, rest = path.partition(".")
        if section == "protocol":
            protocol = put(protocol, rest, value)
        elif path == "optim.lr":
            raise ValueError(
                f"the learning rate is tuned for every arm, so optim.lr cannot be set: for one rate write "
                f"--set protocol.rates={value} --set protocol.max_extensions=0"
            )
        else:
            chosen = _set(chosen, path, value)
    asked = question.strip().split("\n\n")[0]  # the rest says how to run it, to who reads the recipe
    if args.smoke:
        asked = f"SMOKE RUN, to see that everything works: its numbers mean nothing. {asked}"
    return Plan(name=name, question=asked, arms=chosen, protocol=protocol)


def make_options(args: argparse.Namespace) -> Options:
    """Turn the flags that say where and how to run into options.

    Raises:
        ValueError: If the device is not there or the number of workers is not positive.
        OSError: If the output folder cannot be written.
    """
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, got {device!r}") from error
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device} was asked for, but PyTorch sees no GPU here: use --device cpu")
    if kind == "cuda" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {device} was asked for, but PyTorch sees {torch.cuda.device_count()} GPUs here")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = args.workers if args.workers is not None else (cores if kind == "cpu" else 1)
    if workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    check_writable(args.out)
    return Options(
        out=args.out,
        device=device,
        workers=workers,
        threads=max(1, cores // workers),
        resume=args.resume,
        tracking_uri=args.tracking_uri,
    )


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read "0-4", "0,2,5" or a mixture.

    Example:
        >>> parse_seeds("0-2,7")
        (0, 1, 2, 7)

    Raises:
        ValueError: If it is neither.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ValueError(f"--seeds must read like 0-4 or 0,2,5, got {text!r}")
        seeds += range(int(first), int(last if dash else first) + 1)
    return tuple(dict.fromkeys(seeds))


def _references(protocol: Protocol, arms: Iterable[str], chosen: Collection[str]) -> dict[str, str]:
    """Return the references of the chosen arms, those that were chosen too."""
    for arm in (name for pair in protocol.references.items() for name in pair):
        if arm not in arms:
            raise ValueError(f"protocol.references names an arm {arm!r} that is not there; {did_you_mean(arm, arms)}")
    return {a: b for a, b in protocol.references.items() if a in chosen and b in chosen}


def _chosen(arms: Mapping[str, RunConfig], asked: str | None) -> dict[str, RunConfig]:
    if asked is None or asked == "all":
        return dict(arms)
    names = [name.strip() for name in asked.split(",")]
    for name in names:
        if name not in arms:
            raise ValueError(f"there is no arm {name!r}; {did_you_mean(name, arms)}")
    if len(set(names)) < 2:
        other = next((arm for arm in arms if arm not in names), "other")
        raise ValueError(
            f"a comparison needs at least two arms, the baseline and another, got only {names[0]!r}: name both, as in "
            f"--arms {names[0]},{other}"
        )
    return {name: arms[name] for name in names}


def _flags(config: RunConfig, args: argparse.Namespace) -> RunConfig:
    """Apply the flags that set a field of every arm."""
    fields: list[tuple[str, Any]] = [
        ("data.labels", args.labels),
        ("data.image_size", args.image_size),
        ("data.imbalance", args.imbalance),
        ("model.name", args.model),
        ("training.epochs", SMOKE_EPOCHS if args.smoke and args.epochs is None else args.epochs),
    ]
    data = config.data
    if args.data is not None and args.data != data.source:
        # Which classes are kept for transfer, and the crop, are part of the default data set, not of another one.
        data = dataclasses.replace(data, source=args.data, held_out_classes=0, crop_padding=None)
    if args.labels is not None:
        # Labels that come with the data stand in for the noise that a recipe would draw.
        data = dataclasses.replace(data, noise=None)
    if args.transfer_data is not None:
        data = dataclasses.replace(data, transfer_data=args.transfer_data, held_out_classes=0)
    if args.skip_unreadable:
        data = dataclasses.replace(data, skip_unreadable=True)
    return put_all(dataclasses.replace(config, data=data), [(p, v) for p, v in fields if v is not None])


def _set(arms: Mapping[str, RunConfig], path: str, value: Any) -> dict[str, RunConfig]:
    """Set a field in all arms; an argument of a head, loss or second stage in those arms whose class has it."""
    section, _, rest = path.partition(".")
    if section not in ("head", "loss", "second_stage") or not rest:
        return {name: put(config, path, value) for name, config in arms.items()}
    having = {name: _arguments(getattr(c, section)) for name, c in arms.items()}
    taking = [name for name, names in having.items() if rest in names]
    if not taking:
        known = {n for names in having.values() for n in names}
        raise ValueError(f"no arm's {section} has an argument {rest!r}; {did_you_mean(rest, known)}")
    return {name: put(config, path, value) if name in taking else config for name, config in arms.items()}


def _arguments(part: Any) -> list[str]:
    """Name what can be set in a spec or a second stage; nothing in a stage that is not there."""
    if part is None:
        return []
    return part.parameter_names if isinstance(part, Spec) else [f.name for f in dataclasses.fields(part)]
