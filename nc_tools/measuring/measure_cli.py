"""The command ``nc-tools measure``: from names on a command line to a report."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as RichTable
from rich.text import Text

from nc_tools import __version__
from nc_tools._support.check_writable import check_writable
from nc_tools.data import DataConfig
from nc_tools.measuring.collapse_report import Report, tables, write_collapse_report
from nc_tools.measuring.measure import CollapseMeasurement, measure_in_detail
from nc_tools.measuring.measured_sets import MeasuredSets, SetBatches, load_sets
from nc_tools.measuring.named_models import NamedModel, load_model
from nc_tools.surgery.find_head import find
from nc_tools.surgery.layers import default_layers
from nc_tools.surgery.trace import FAILS_ON_A_WRONG_INPUT, eval_mode, logits_of

_NO_LAYERS = "none"


@dataclass(frozen=True)
class MeasureArguments:
    """What the command line asks for.

    Attributes:
        model: A run's folder, ``torchvision:NAME``, ``timm:NAME`` or ``package.module:function``.
        data: A source of images; None for those that a run was trained on.
        weights: A safetensors file, "random", or None.
        labels: ``FILE:COLUMN`` of a CSV with other training labels, or None.
        layers: Dotted names of layers separated by commas, "none", or None for a choice.
        head: Dotted path of the head, or None to find it.
        only: "train", "test" or None for both.
        per_class: At most so many images of each class and set, or None.
        image_size: Side in pixels, or None for the model's or the data's own.
        mean: Of the channels in 0..1, or None for the model's or the data's own.
        std: Likewise.
        batch_size: Images in a batch.
        device: Such as "cpu" or "cuda", or None for a GPU where there is one.
        skip_unreadable: Leave out images that cannot be read, instead of stopping.
        out: Folder for the report, or None for one below ``outputs/measure``.
    """

    model: str
    data: str | None = None
    weights: str | None = None
    labels: str | None = None
    layers: str | None = None
    head: str | None = None
    only: str | None = None
    per_class: int | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    batch_size: int = 256
    device: str | None = None
    skip_unreadable: bool = False
    out: Path | None = None


def run_measure(asked: MeasureArguments, console: Console) -> Report:
    """Measure a model, print the table and write the report.

    Raises:
        FileNotFoundError: If a model, a weights file or a folder is missing.
        ValueError: If they do not fit each other, or a flag is out of range.
    """
    if asked.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {asked.batch_size}")
    device = _device(asked.device)
    if asked.out is not None:
        check_writable(asked.out)  # now, not after minutes of measuring
    named = load_model(asked.model, asked.weights, data=asked.data)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        reading = bar.add_task("reading images", total=None)
        sets = load_sets(
            _data(asked, named), drawn=named.drawn if asked.data is None else None, only=asked.only,
            per_class=asked.per_class, progress=lambda done, total: bar.update(reading, completed=done, total=total),
        )  # fmt: skip
        bar.remove_task(reading)
        named.model.to(device)
        example = _example(named, sets, device)
        head = find(named.model, None if asked.head else example, asked.head).name
        layers = _layers(asked.layers, named, example, head)
        found = {name: _survey(asked, named, sets, name, layers, head, device, bar) for name in sets.sets}
    report = _report(asked, named, sets, found, head, device)
    out = asked.out or Path("outputs") / "measure" / re.sub(r"[^\w.-]+", "-", named.name).strip("-")
    show(report, console)
    written = write_collapse_report(report, out)
    console.print(f"Report: {written['html'].resolve().as_uri()}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"JSON:   {written['json']}", highlight=False, markup=False, soft_wrap=True)
    return report


def show(report: Report, console: Console) -> None:
    """Print the tables of a report."""
    plain = not console.encoding.lower().startswith("utf")
    for table in tables(report):
        console.print()
        console.print(Text(table.title, style="bold"))
        shown = RichTable(box=box.ASCII2 if plain else box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        shown.add_column("measure", no_wrap=True)
        for column in table.columns:
            shown.add_column(column, justify="right")
        shown.add_column("reading")
        for line in table.lines:
            cells = [cell.replace("–", "-").replace("−", "-") if plain else cell for cell in line.cells]
            shown.add_row(line.label, *cells, line.reading)
        console.print(shown)
    for note in report.notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)
    console.print()


def _device(asked: str | None) -> torch.device:
    if asked is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise ValueError(f"--device must be cpu, cuda, cuda:N or mps, got {asked!r}") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"--device must be cpu, cuda, cuda:N or mps, got {asked!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device {asked} needs a CUDA device, and {torch.cuda.device_count() or 'none'} is to be had here: use "
            f"--device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"--device {asked} needs Apple's GPU, and none is to be had here: use --device cpu")
    return device


def _data(asked: MeasureArguments, named: NamedModel) -> DataConfig:
    """Return what to load: the source asked for, or a run's own with its held-out classes and noisy labels."""
    size = named.image_size if asked.image_size is None else asked.image_size
    if asked.data is not None:
        return DataConfig(
            source=asked.data, labels=asked.labels, image_size=size, skip_unreadable=asked.skip_unreadable
        )
    if named.data is None:
        raise ValueError(f"{named.name} says nothing of its images: add --data, as imagefolder:PATH")
    skip = asked.skip_unreadable or named.data.skip_unreadable
    return replace(named.data, image_size=size, labels=asked.labels or named.data.labels, skip_unreadable=skip)


def _example(named: NamedModel, sets: MeasuredSets, device: torch.device) -> torch.Tensor:
    """Return zeros like the data, which the model has been seen to take and to score as the data has classes."""
    channels, height, width = next(iter(sets.sets.values()))[0].shape
    if named.in_channels not in (None, channels):
        raise ValueError(f"{named.name} takes images of {named.in_channels} channels, and {sets.name} has {channels}")
    like = next((part for part in named.model.parameters() if part.is_floating_point()), torch.zeros(()))
    example = torch.zeros(2, channels, height, width, device=device, dtype=like.dtype)
    try:
        with eval_mode(named.model):
            logits = logits_of(named.model(example))
    except FAILS_ON_A_WRONG_INPUT as error:
        raise ValueError(
            f"{named.name} cannot take {channels} x {height} x {width} images ({error}): choose another --image-size"
        ) from error
    shape = None if logits is None else tuple(logits.shape)
    if shape is None or len(shape) != 2:
        raise ValueError(f"{named.name} must give logits (N, K), got {shape}: measure a classifier")
    if shape[1] != len(sets.classes):
        raise ValueError(
            f"the model and the data must have the same classes, and {named.name} scores {shape[1]} where {sets.name} "
            f"has {len(sets.classes)}: give the images that it was trained on, a folder for each of its classes"
        )
    if named.classes is not None and named.classes != sets.classes:
        odd = sorted(set(named.classes) ^ set(sets.classes))[:5]
        raise ValueError(
            f"the model and the data must have the same classes, and {named.name} and {sets.name} differ in "
            f"{', '.join(odd) or 'their order'}"
        )
    return example


def _layers(asked: str | None, named: NamedModel, example: torch.Tensor, head: str) -> list[str]:
    if asked is None:
        return default_layers(named.model, example, head)
    return [] if asked == _NO_LAYERS else [name.strip() for name in asked.split(",") if name.strip()]


def _survey(
    asked: MeasureArguments, named: NamedModel, sets: MeasuredSets, name: str, layers: Sequence[str], head: str,
    device: torch.device, bar: Progress,
) -> CollapseMeasurement:  # fmt: skip
    parts = sets.sets[name]
    channels = parts[0].shape[0]
    mean = _channels("--mean", asked.mean, channels) or named.mean or tuple(sets.mean.tolist())
    std = _channels("--std", asked.std, channels) or named.std or tuple(sets.std.tolist())
    counts = named.class_counts or (None if sets.class_counts is None else sets.class_counts.tolist())
    task = bar.add_task(f"measuring {name} images", total=sum(map(len, parts)))
    found = measure_in_detail(
        named.model,
        SetBatches(parts, asked.batch_size, mean, std, device),
        layers=layers,
        clean=parts[0].clean_labels if len(parts) == 1 else None,
        class_counts=counts,
        head=head,
        progress=lambda done: bar.advance(task, done / 2),
    )
    bar.remove_task(task)
    return found


def _channels(flag: str, values: tuple[float, ...] | None, channels: int) -> tuple[float, ...] | None:
    if values is not None and len(values) not in (1, channels):
        raise ValueError(f"{flag} must hold one number for each of {channels} channels, got {len(values)}")
    if values is not None and not all(map(math.isfinite, values)):
        raise ValueError(f"{flag} must hold finite numbers, got {values}")
    return None if values is None else values * (channels if len(values) == 1 else 1)


def _report(
    asked: MeasureArguments,
    named: NamedModel,
    sets: MeasuredSets,
    found: dict[str, CollapseMeasurement],
    head: str,
    device: torch.device,
) -> Report:
    notes = []
    few = {name: int(told.counts[told.counts > 0].min()) for name, told in found.items()}
    for name, least in few.items():
        if least < 10:
            notes.append(
                f"Some {name} classes have only {least} image{'' if least == 1 else 's'}: a class of n shows (n - 1)/n "
                "of its spread on average."
            )
    if asked.per_class is not None:
        notes.append(f"Measured on at most {asked.per_class} images of each class and set.")
    return Report(
        model=named.name,
        data=sets.name,
        head=head,
        feature_dim=_width(named, head),
        classes=sets.classes,
        sets=found,
        notes=tuple(notes),
        version=__version__,
        torch=torch.__version__,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    )


def _width(named: NamedModel, head: str) -> int:
    from nc_tools.surgery.head_layers import input_width

    return input_width(named.model.get_submodule(head))
