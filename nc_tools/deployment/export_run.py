"""Export the model of a run for use without nc_tools, or as a folder that nc_tools loads again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from nc_tools._support.atomic_folder import atomic_folder
from nc_tools._support.check_writable import check_writable
from nc_tools.deployment.image_rule import rule_of
from nc_tools.deployment.model_card import CardTexts, model_card
from nc_tools.deployment.predictor import PREDICTIONS, Predictor
from nc_tools.deployment.served_network import PixelClassifier, PixelProbabilities
from nc_tools.experiment.run_backbone import BACKBONE_FOLDER

if TYPE_CHECKING:
    from nc_tools.tracking.served_model import ServedNetwork

CARD, CLASSES, PREPROCESSING = "README.md", "classes.json", "preprocessing.json"
MLFLOW_MODEL = "model"
"""Folder of the MLflow model in an export."""


def export_run(
    run: Path,
    to: str,
    out: Path,
    *,
    texts: CardTexts | None = None,
    modules: Iterable[ModuleType] = (),
    register: str | None = None,
    tracking_uri: str | None = None,
) -> str:
    """Export the model of a finished run into a folder, with its model card, preprocessing and class names.

    - ``onnx``: ``model.onnx`` with the input ``images``, uint8, and the outputs ``logits`` and ``probabilities``.
    - ``torch-export``: ``model.pt2`` with the same input and outputs, for ``torch.export.load(FILE).module()``.
    - ``safetensors``: the weights, for :func:`nc_tools.load_run` and ``nc-tools predict``.
    - ``mlflow``: an MLflow model that returns the probabilities, in the format without pickles.

    If the export or the registration fails, nothing is left in the folder.

    Args:
        run: The run's folder.
        to: The format.
        out: The folder; it must not exist or be empty.
        texts: Licence of the images and intended use, for the model card.
        modules: As for :func:`nc_tools.load_run`.
        register: For ``mlflow``: also register the model under this name.
        tracking_uri: Where to register it; None for MLFLOW_TRACKING_URI, or else mlflow.db in the folder.

    Returns:
        The folder; for ``mlflow`` the MLflow model in it, or the address of the registered version.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If the format is unknown, the folder holds files, a package is missing, or the model cannot be
            registered.
    """
    if to not in EXPORT_FORMATS:
        raise ValueError(f"the format must be one of {', '.join(EXPORT_FORMATS)}, got {to!r}")
    if tracking_uri is not None and register is None:
        raise ValueError(
            "a tracking URI says where a model is registered, and none is to be registered: add --register NAME, or "
            "leave --tracking-uri out"
        )
    if register is not None and to != "mlflow":
        raise ValueError(f"only an MLflow model can be registered, got the format {to!r}: choose mlflow")
    if register is not None and (not register.strip() or set(register) & set("/:")):
        raise ValueError(f"the name of a registered model must be a text without / and :, got {register!r}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder: give another --out")
    check_writable(out.resolve().parent)
    predictor = Predictor.load(run, modules=modules)
    if to != "safetensors":
        predictor.check_takes_images()
    with atomic_folder(out) as part:
        write_descriptions(predictor, run, part, texts or CardTexts())
        EXPORT_FORMATS[to](predictor, run, part)
    if register is not None:
        try:
            return _registered(predictor, out, register, tracking_uri)
        except BaseException:
            shutil.rmtree(out)  # so that the same command can be given again
            raise
    return str(out / MLFLOW_MODEL if to == "mlflow" else out)


def write_descriptions(predictor: Predictor, run: Path, out: Path, texts: CardTexts) -> None:
    """Write the files that every export of a run's model contains: model card, class names, preprocessing."""
    (out / CARD).write_text(model_card(predictor, run, texts), encoding="utf-8")
    _write_json(out / CLASSES, list(predictor.classes))
    _write_json(out / PREPROCESSING, rule_of(predictor.trained))


def example_images(predictor: Predictor, number: int = 2) -> torch.Tensor:
    """Return uint8 noise (number, C, H, W) for tracing; with two images the exported batch size stays variable."""
    shape = (number, *predictor.trained.facts.image_shape)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _to_onnx(predictor: Predictor, _run: Path, out: Path) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401 (the exporter of PyTorch needs it)
    except ImportError as error:
        raise ValueError(
            f"an export to ONNX needs {error.name}, which is not installed: pip install onnx onnxscript"
        ) from None
    path = out / "model.onnx"
    torch.onnx.export(
        PixelClassifier.of(predictor), (example_images(predictor),), path, dynamo=True, verbose=False,
        input_names=["images"], output_names=["logits", "probabilities"],
        dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False,
    )  # fmt: skip
    model = onnx.load(path)
    rule = rule_of(predictor.trained)
    for key, value in (("classes", list(predictor.classes)), ("preprocessing", rule)):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    onnx.save(model, path)


def _to_torch_export(predictor: Predictor, _run: Path, out: Path) -> None:
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(PixelClassifier.of(predictor), (example_images(predictor),), dynamic_shapes=shapes)
    extra = {CLASSES: json.dumps(list(predictor.classes)), PREPROCESSING: json.dumps(rule_of(predictor.trained))}
    torch.export.save(program, out / "model.pt2", extra_files=extra)


def _to_safetensors(_predictor: Predictor, run: Path, out: Path) -> None:
    for name in ("run.json", "weights.safetensors", "final.json", "per_class.json", PREDICTIONS):
        if (run / name).is_file():
            shutil.copyfile(run / name, out / name)
    if (run / BACKBONE_FOLDER).is_dir():
        (out / BACKBONE_FOLDER).mkdir()
        for file in sorted((run / BACKBONE_FOLDER).glob("*.json")):
            shutil.copyfile(file, out / BACKBONE_FOLDER / file.name)


def _to_mlflow(predictor: Predictor, _run: Path, out: Path) -> None:
    from nc_tools.tracking.served_model import save_served_model

    save_served_model(served_network(predictor, out), out / MLFLOW_MODEL)


def _registered(predictor: Predictor, out: Path, name: str, tracking_uri: str | None) -> str:
    from nc_tools.tracking.served_model import register_served_model

    return register_served_model(served_network(predictor, out), name=name, out=out, tracking_uri=tracking_uri)


def served_network(predictor: Predictor, out: Path) -> ServedNetwork:
    """Return what MLflow serves: the network from images to probabilities, with the description files in ``out``."""
    from nc_tools.tracking.served_model import ServedNetwork

    return ServedNetwork(
        PixelProbabilities(PixelClassifier.of(predictor)),
        example_images(predictor),
        files=tuple(out / name for name in (CARD, CLASSES, PREPROCESSING)),
        metadata={"classes": list(predictor.classes), "preprocessing": rule_of(predictor.trained)},
        card=(out / CARD).read_text(encoding="utf-8"),
    )


EXPORT_FORMATS: dict[str, Callable[[Predictor, Path, Path], None]] = {
    "onnx": _to_onnx,
    "torch-export": _to_torch_export,
    "safetensors": _to_safetensors,
    "mlflow": _to_mlflow,
}
"""The function that writes each format into a folder."""


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
