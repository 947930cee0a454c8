"""Run ``nc-tools measure``: load a model and its images, measure the collapse, print and write the report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from nc_tools import __version__
from nc_tools._support.check_writable import check_writable
from nc_tools._support.printable import printable
from nc_tools.data import DataConfig
from nc_tools.data.source_names import OWN_LABELS
from nc_tools.measuring.collapse_report import write_collapse_report
from nc_tools.measuring.collapse_tables import CollapseReport, collapse_tables
from nc_tools.measuring.measure import CollapseMeasurement, measure_in_detail
from nc_tools.measuring.measure_arguments import MeasureArguments, parse_device, per_channel
from nc_tools.measuring.measured_sets import MeasuredSets, SetBatches, load_sets
from nc_tools.measuring.named_models import NamedModel, load_model, missing_data
from nc_tools.surgery.find_head import find, locate
from nc_tools.surgery.layer_choice import default_layers
from nc_tools.surgery.trace import FAILS_ON_A_WRONG_INPUT, logits_of
from nc_tools.surgery.untouched import trial_run

_NO_LAYERS = "none"
_FEW_IMAGES = 10


def run_measure(arguments: MeasureArguments, console: Console) -> CollapseReport:
    """Run ``nc-tools measure``: measure a model, print the tables and write the report.

    Raises:
        FileNotFoundError: If a model, a weights file or a folder is missing.
        ValueError: If the arguments do not fit each other, or one is out of range.
    """
    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {arguments.batch_size}")
    device = parse_device(arguments.device)
    if arguments.out is not None:
        check_writable(arguments.out)  # before minutes of measuring
    modules = [name.strip() for name in (arguments.modules or "").split(",") if name.strip()]
    named = load_model(arguments.model, arguments.weights, data=arguments.data, modules=modules)
    errors = Console(stderr=True)
    errors.quiet = not errors.is_terminal
    with Progress(console=errors, transient=True) as bar:
        task = bar.add_task("reading images", total=None)
        sets = load_sets(
            _data_config(arguments, named), trained_on=named.trained_on if arguments.data is None else None,
            only=arguments.only, per_class=arguments.per_class,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
        bar.remove_task(task)
        named.model.to(device)
        example = _example(named, sets, device)
        head = find(named.model, None if arguments.head else example, arguments.head).name
        job = _MeasuringJob(arguments, named, sets, _layers(arguments.layers, named, example, head), head, device)
        measurements = {name: _measure_set(job, name, bar) for name in sets.sets}
    report = _report(job, measurements)
    out = arguments.out or Path("outputs") / "measure" / re.sub(r"[^\w.-]+", "-", named.name).strip("-")
    print_tables(report, console)
    written = write_collapse_report(report, out)
    console.print(f"Report: {written['html'].resolve().as_uri()}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"JSON:   {printable(str(written['json']))}", highlight=False, markup=False, soft_wrap=True)
    return report


def print_tables(report: CollapseReport, console: Console) -> None:
    """Print the tables of a collapse report."""
    ascii_only = not console.encoding.lower().startswith("utf")
    for table in collapse_tables(report):
        console.print()
        console.print(Text(table.title, style="bold"))
        printed = Table(box=box.ASCII2 if ascii_only else box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        printed.add_column("measure", no_wrap=True)
        for column in table.columns:
            printed.add_column(column, justify="right")
        printed.add_column("reading")
        for row in table.rows:
            cells = [cell.replace("–", "-").replace("−", "-") if ascii_only else cell for cell in row.cells]
            printed.add_row(row.label, *cells, row.reading)
        console.print(printed)
    for note in report.notes:
        console.print(Text(printable(note), style="yellow"), soft_wrap=True)
    console.print()


@dataclass(frozen=True)
class _MeasuringJob:
    """The loaded model and images, and how to measure them."""

    arguments: MeasureArguments
    named: NamedModel
    sets: MeasuredSets
    layers: Sequence[str]
    head: str
    device: torch.device


def _data_config(arguments: MeasureArguments, named: NamedModel) -> DataConfig:
    """Return the data to load: that of ``--data``, or a run's own data with its held-out classes and label noise."""
    size = named.image_size if arguments.image_size is None else arguments.image_size
    if arguments.data is not None:
        return DataConfig(
            source=arguments.data,
            labels=arguments.labels,
            clean=OWN_LABELS if arguments.labels else None,
            image_size=size,
            skip_unreadable=arguments.skip_unreadable,
        )
    if named.data is None:
        raise missing_data(named.name)
    skip = arguments.skip_unreadable or named.data.skip_unreadable
    config = replace(named.data, image_size=size, skip_unreadable=skip)
    return replace(config, labels=arguments.labels, clean=OWN_LABELS) if arguments.labels else config


def _example(named: NamedModel, sets: MeasuredSets, device: torch.device) -> torch.Tensor:
    """Return a batch of zeros for the model, after checking that the model and the data fit together."""
    channels, height, width = next(iter(sets.sets.values()))[0].shape
    if named.in_channels not in (None, channels):
        raise ValueError(
            f"{named.name} needs images with {named.in_channels} channels, but those of {sets.name} have {channels}. "
            "Choose other images with --data"
        )
    parameter = next((part for part in named.model.parameters() if part.is_floating_point()), torch.zeros(()))
    if (expected := named.preprocessing) is not None:
        channels, height, width = expected.channels, expected.size, expected.size
    example = torch.zeros(2, channels, height, width, device=device, dtype=parameter.dtype)
    try:
        with trial_run(named.model):
            logits = logits_of(named.model(example))
    except FAILS_ON_A_WRONG_INPUT as error:
        raise ValueError(
            f"{named.name} cannot take {channels} x {height} x {width} images ({error}). Choose another --image-size"
        ) from error
    shape = None if logits is None else tuple(logits.shape)
    if shape is None or len(shape) != 2:
        raise ValueError(
            f"{named.name} must return logits of shape (N, K), got {shape}. Choose a model that classifies images"
        )
    if shape[1] != len(sets.classes):
        raise ValueError(
            f"the model and the data must have the same classes, but {named.name} scores {shape[1]} and {sets.name} "
            f"has {len(sets.classes)}. Give the images that it was trained on, with one folder for each of its classes"
        )
    if named.classes is not None and named.classes != sets.classes:
        only_one = sorted(set(named.classes) ^ set(sets.classes))[:5]
        raise ValueError(
            f"the model and the data must have the same classes, but {named.name} and {sets.name} differ in "
            f"{', '.join(only_one) or 'their order'}. Choose the images that it was trained on with --data"
        )
    return example


def _layers(argument: str | None, named: NamedModel, example: torch.Tensor, head: str) -> list[str]:
    if argument is None:
        return default_layers(named.model, example, head)
    return [] if argument == _NO_LAYERS else [name.strip() for name in argument.split(",") if name.strip()]


def _measure_set(job: _MeasuringJob, name: str, bar: Progress) -> CollapseMeasurement:
    parts = job.sets.sets[name]
    expected = job.named.preprocessing
    channels, geometry = (parts[0].shape[0], None) if expected is None else (expected.channels, expected.geometry)
    mean = per_channel("--mean", job.arguments.mean, channels) or job.named.mean or tuple(job.sets.mean.tolist())
    std = per_channel("--std", job.arguments.std, channels) or job.named.std or tuple(job.sets.std.tolist())
    counts = job.named.class_counts or (None if job.sets.class_counts is None else job.sets.class_counts.tolist())
    task = bar.add_task(f"measuring {name} images", total=sum(map(len, parts)))
    measurement = measure_in_detail(
        job.named.model,
        SetBatches(parts, job.arguments.batch_size, mean, std, job.device, geometry),
        layers=job.layers,
        clean=parts[0].clean_labels if len(parts) == 1 else None,
        class_counts=counts,
        head=job.head,
        progress=lambda done: bar.advance(task, done / 2),  # two passes
    )
    bar.remove_task(task)
    return measurement


def _report(job: _MeasuringJob, measurements: dict[str, CollapseMeasurement]) -> CollapseReport:
    notes = []
    for name, measurement in measurements.items():
        fewest = int(measurement.counts[measurement.counts > 0].min())
        if fewest < _FEW_IMAGES:
            notes.append(
                f"Some {name} classes have only {fewest} image{'' if fewest == 1 else 's'}: on average, the measured "
                "spread of a class with n images is (n - 1)/n of the true one."
            )
    if job.arguments.per_class is not None:
        notes.append(f"Measured on at most {job.arguments.per_class} images per class and set.")
    return CollapseReport(
        model=job.named.name,
        data=job.sets.name,
        head=job.head,
        feature_dim=locate(job.named.model, None, job.head).feature_dim,
        classes=job.sets.classes,
        sets=measurements,
        notes=tuple(notes),
        version=__version__,
        torch=torch.__version__,
        device=torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else job.device.type,
    )
