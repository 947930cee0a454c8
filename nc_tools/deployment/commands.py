"""Run ``nc-tools predict`` and ``nc-tools export``."""

from __future__ import annotations

import argparse
from types import ModuleType

from rich.console import Console
from rich.progress import Progress

from nc_tools._support.printable import printable
from nc_tools.deployment.export_run import export_run
from nc_tools.deployment.model_card import CardTexts
from nc_tools.deployment.predict_folder import FolderSummary, predict_folder
from nc_tools.deployment.predictor import Predictor
from nc_tools.measuring.measure_arguments import parse_device
from nc_tools.models.function_backbone import import_module

_SHOWN = 10
_LITTLE_MORE = 1.2  # times the probability of a guess


def predict(args: argparse.Namespace) -> None:
    """Run ``nc-tools predict``: predict the classes of the images in a folder, write a CSV file, print a summary.

    Raises:
        FileNotFoundError: If the run or the folder does not exist.
        ValueError: If the run is damaged or the folder holds no image.
    """
    predictor = Predictor.load(args.run, device=parse_device(args.device), modules=_modules(args.modules))
    predictor.check_takes_images()
    console = Console(stderr=True)
    console.quiet = not console.is_terminal
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("images", total=None)
        summary = predict_folder(
            predictor, args.folder, args.out, top=args.top,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    for line in summary_lines(predictor, summary):
        print(line)
    print(f"predictions: {args.out}")


def summary_lines(predictor: Predictor, summary: FolderSummary) -> list[str]:
    """Return what ``nc-tools predict`` prints: counts by class, unusual images, unreadable files, calibration."""
    counts = sorted(summary.by_class.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{printable(name)} {count}" for name, count in counts[:_SHOWN])
    lines = [f"{summary.images} images: {shown}{', ...' if len(counts) > _SHOWN else ''}", *summary.notes]
    if summary.unusual is not None:
        lines.append(
            f"{summary.unusual} of them are more unusual than 99 % of the run's test images (column unusual): they may "
            f"show none of the classes"
        )
    if summary.images and summary.surest < _LITTLE_MORE / len(predictor.classes):
        guess = 1 / len(predictor.classes)
        lines.append(
            f"no probability is above {summary.surest:.2f}, and a guess has {guess:.2f}: the run's hold-out does not "
            f"support more. Use the order of the classes, not the probabilities"
        )
    if not predictor.is_calibrated:
        lines.append("the run has no hold-out run, so the probabilities are not calibrated")
    if summary.unreadable:
        names = "; ".join(f"{printable(path)} ({reason})" for path, reason in list(summary.unreadable.items())[:_SHOWN])
        more = ", ..." if len(summary.unreadable) > _SHOWN else ""
        lines.append(f"{len(summary.unreadable)} files cannot be read: {names}{more}")
    return lines


def export(args: argparse.Namespace) -> None:
    """Run ``nc-tools export``: write the model in a format, with its card, and print where it is.

    Raises:
        FileNotFoundError: If the run does not exist.
        ValueError: If the run is damaged, the folder is not empty, or a package for the format is missing.
    """
    from pathlib import Path

    out = args.out or Path("exports") / f"{args.run.resolve().name}-{args.to}"
    texts = CardTexts(args.data_licence, args.intended_use)
    written = export_run(
        args.run, args.to, out, texts=texts, modules=_modules(args.modules), register=args.register,
        tracking_uri=args.tracking_uri,
    )  # fmt: skip
    print(f"exported: {written}")
    print(f"model card: {out / 'README.md'}")


def _modules(names: str | None) -> list[ModuleType]:
    return [import_module(name) for name in names.split(",")] if names else []
