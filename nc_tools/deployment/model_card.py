"""The model card of an exported model: what it is, what it was trained on, how good it is, what it is for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nc_tools._support.printable import printable
from nc_tools.comparison.metric_info import metric_info
from nc_tools.deployment.image_rule import rule_of
from nc_tools.deployment.predictor import Predictor
from nc_tools.features.image_views import image_views
from nc_tools.run_records.json_files import read_json_or_problem

_METRICS = (
    "test/gen/accuracy", "test/gen/balanced_accuracy", "test/cal/nll", "test/cal/ece", "test/cal_ts/ece",
)  # fmt: skip
_FEW = 20
_NO_LICENCE = "not stated: check it before you distribute the model"


@dataclass(frozen=True)
class CardTexts:
    """What only the user knows, for the model card.

    Attributes:
        data_licence: Licence of the training images.
        intended_use: What the model is for.
    """

    data_licence: str | None = None
    intended_use: str | None = None


def model_card(predictor: Predictor, run: Path, texts: CardTexts) -> str:
    """Return the model card of a run's model, as Markdown.

    Args:
        predictor: The model.
        run: The run's folder; its final.json and per_class.json hold the results on the test set.
        texts: What only the user knows.
    """
    identity, facts = predictor.trained.identity, predictor.trained.facts
    version = identity.versions.get("nc_tools", "")
    final, _ = read_json_or_problem(run / "final.json")
    sections = {
        f"Model card: {identity.arm}": [
            f"Image classifier with {facts.num_classes} classes, trained with nc_tools {version} "
            f"(run {identity.run_id}, seed {identity.seed}, commit {identity.git_commit or 'unknown'}).",
        ],
        "Model": _model_lines(predictor),
        "Training data": _data_lines(predictor, texts),
        "Figures on the test set": _figures(final),
        "By class": _class_table(run, facts.classes, facts.class_counts),
        "Intended use": _use_lines(predictor, texts),
        "Input": _input_lines(predictor),
    }
    parts = []
    for level, (title, lines) in enumerate(sections.items()):
        parts += [f"{'#' if level == 0 else '##'} {_escaped(title)}", "", *lines, ""]
    return "\n".join(parts)


def _model_lines(predictor: Predictor) -> list[str]:
    config, backbone = predictor.trained.config, predictor.trained.identity.data.get("backbone")
    lines = [f"- Head: {config.head.cls.__name__}; loss: {config.loss.cls.__name__}; trained: {config.model.train}."]
    if isinstance(backbone, Mapping) and "name" in backbone:
        licence = backbone.get("licence") or "not stated by their source: ask before you distribute the model"
        lines.insert(
            0, f"- Backbone: {_escaped(str(backbone['name']))}, {_escaped(str(backbone.get('weights')))} weights."
        )
        lines.append(f"- Licence of the pretrained weights: {_escaped(str(licence))}.")
        lines.append(f"- SHA-256 of the pretrained tensors: {backbone.get('sha256')}.")
    else:
        lines.insert(0, f"- Backbone: {_escaped(config.model.name)}, trained from random weights or your own.")
    return lines


def _data_lines(predictor: Predictor, texts: CardTexts) -> list[str]:
    facts, data = predictor.trained.facts, predictor.trained.identity.data
    views = image_views(predictor.trained.config.data, facts.image_size)
    augmented = f"- Trained on {views.count} views of each image: {views}; each epoch took one of them at random."
    return [
        f"- Source: {_escaped(str(data.get('name', 'unknown')))}, fingerprint {facts.fingerprint}.",
        f"- {sum(facts.class_counts)} training images; {max(facts.class_counts)} in the largest class and "
        f"{min(facts.class_counts)} in the smallest.",
        *([augmented] if views.count > 1 else []),
        f"- Licence of the images: {_escaped(texts.data_licence or _NO_LICENCE)}.",
    ]


def _figures(final: Mapping[str, Any]) -> list[str]:
    lines = []
    for key in _METRICS:
        if isinstance(value := final.get(key), int | float):
            info = metric_info(key)
            lines.append(f"- {info.label}: {info.value(float(value))}")
    return lines or ["- None: the run was not measured on a test set."]


def _class_table(run: Path, classes: Sequence[str], counts: Sequence[int]) -> list[str]:
    table, _ = read_json_or_problem(run / "per_class.json")
    recall, tests = table.get("recall"), table.get("test_counts")
    lines = ["| class | training images | test images | recall |", "| --- | --- | --- | --- |"]
    for place, (name, count) in enumerate(zip(classes, counts, strict=True)):
        lines.append(f"| {_escaped(name)} | {count} | {_at(tests, place, 'd')} | {_at(recall, place, '.3f')} |")
    return lines


def _at(values: Any, place: int, form: str) -> str:
    if not isinstance(values, list) or place >= len(values) or not isinstance(values[place], int | float):
        return ""
    return format(values[place], form)


def _use_lines(predictor: Predictor, texts: CardTexts) -> list[str]:
    facts = predictor.trained.facts
    default = "images like the training images, of the classes above; on others the figures do not hold"
    lines = [f"- {_escaped(texts.intended_use or default)}."]
    if few := [name for name, count in zip(facts.classes, facts.class_counts, strict=True) if count < _FEW]:
        shown = ", ".join(map(_escaped, few[:10])) + (", ..." if len(few) > 10 else "")
        lines.append(f"- {len(few)} classes have fewer than {_FEW} training images, so expect less of them: {shown}.")
    scaled = f"divided by the temperature {predictor.temperature:.3g}, fitted on held-out images"
    lines.append(f"- Probabilities are the softmax of the logits{', ' + scaled if predictor.is_calibrated else ''}.")
    lines.append(
        "- The model answers with one of its classes for any image. Look at the energy score for images of none."
    )
    return lines


def _input_lines(predictor: Predictor) -> list[str]:
    return ["```json", json.dumps(rule_of(predictor.trained), indent=1), "```"]


def _escaped(text: str) -> str:
    """Return a text of unknown origin so that Markdown shows it and does nothing else."""
    shown = printable(text)
    for mark in "\\`*_[]<>|#":
        shown = shown.replace(mark, f"\\{mark}")
    return shown
