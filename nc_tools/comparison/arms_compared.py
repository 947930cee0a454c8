"""What was compared: each arm in words, from its configuration, and what all arms have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nc_tools.comparison.compared_run import SCORED_KINDS, ComparedRun
from nc_tools.comparison.config_words import value_words
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.settings import flatten_settings

_TRAINED = {"all": "whole network and head", "head": "head only"}
# Parts of a configuration that are described on their own, so that `differs` does not list them again.
_NAMED = ("head", "loss", "optim.lr", "optim.weight_decay", "second_stage", "start")
_UNNAMED = {"seed", "draw", "arm", "name"}


@dataclass(frozen=True)
class ArmInWords:
    """One arm in words; a part that the records do not hold is an empty text.

    Attributes:
        arm: Its name.
        head: The head and its arguments.
        loss: The loss, or the weighted sum of losses.
        trains: Which part of the network is trained.
        parameters: Number of parameters of the model, and of its head.
        settings: Learning rate, weight decay and the arm's other tuned values.
        differs: Second stage, start, and all other settings that differ from the baseline's.
        about: (name, description) of its head and loss, from the record.
    """

    arm: str
    head: str
    loss: str
    trains: str
    parameters: str
    settings: str
    differs: str
    about: tuple[tuple[str, str], ...] = ()

    @property
    def short(self) -> str:
        """Head, loss and all other differences in one line, such as "ETF head, dot regression loss"."""
        loss = self.loss if " + " in self.loss else _with_kind(self.loss, "loss")
        parts = [_with_kind(self.head, "head"), loss, self.differs]
        return ", ".join(part for part in parts if part)


def _with_kind(words: str, kind: str) -> str:
    """Insert the kind of thing after a name: "ETF (scale 8)" and "head" give "ETF head (scale 8)"."""
    name, bracket, arguments = words.partition(" (")
    return f"{name} {kind}{bracket}{arguments}" if words else ""


def arms_in_words(comparison: Comparison) -> tuple[ArmInWords, ...]:
    """Describe every arm of a comparison."""
    first = {arm: next(iter(cells.values())) for arm, cells in comparison.cells.items()}
    expected = flatten_settings(first[comparison.baseline].config)
    return tuple(_in_words(comparison, arm, first.get(arm), expected) for arm in comparison.arms)


def common_facts(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (name, text) of what all arms share: data, network, training, runs and machines.

    Data, network and training are those of the baseline's first run.
    """
    run = next(iter(comparison.cells[comparison.baseline].values()))
    scored = [run for run in comparison.runs if run.kind in SCORED_KINDS]
    facts = [
        ("Data", _data_words(run.data, run.config)),
        ("Network", _network_words(run.config)),
        ("Training", _training_words(run.config)),
        ("Runs", f"{sum(run.finished for run in scored)} of {len(scored)} finished{_total_time(comparison)}"),
        ("Hardware", "; ".join(sorted({run.hardware for run in scored if run.hardware}))),
    ]
    return [(name, text) for name, text in facts if text]


def _in_words(comparison: Comparison, arm: str, run: ComparedRun | None, expected: Mapping[str, str]) -> ArmInWords:
    config, varying = _shared([run.config for run in comparison.cells.get(arm, {}).values()] or [{}])
    return ArmInWords(
        arm,
        head=_part(config, "head"),
        loss=_part(config, "loss"),
        trains=_trained_words(run),
        parameters=_parameter_words(comparison, arm),
        settings=_settings_words(comparison, arm, config, varying),
        differs="" if arm == comparison.baseline else _difference_words(config, expected),
        about=() if run is None else tuple(run.about.items()),
    )


def _shared(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return an arm's configuration without the fields that differ between its runs, and the values of these fields.

    Where every seed is tuned separately, the runs differ in learning rate and tuned values, so the arm has no single
    value.
    """
    config: dict[str, Any] = dict(configs[0])
    varying: dict[str, list[Any]] = {}
    for name in ("optim", "head", "loss", "second_stage", "start"):
        parts = [part for part in (of_run.get(name) for of_run in configs) if isinstance(part, Mapping)]
        if len(parts) < len(configs):
            continue
        inner = all(isinstance(part.get("arguments"), Mapping) for part in parts)
        fields: list[Mapping[str, Any]] = [part["arguments"] if inner else part for part in parts]
        for key in dict.fromkeys(key for field in fields for key in field):
            values = [field.get(key) for field in fields]
            if any(value != values[0] for value in values):
                varying[f"{name}.{key}"] = values
        kept = {key: value for key, value in fields[0].items() if f"{name}.{key}" not in varying}
        config[name] = {**parts[0], "arguments": kept} if inner else kept
    return config, varying


def _part(config: Mapping[str, Any], name: str) -> str:
    return value_words(config[name]) if config.get(name) is not None else ""


def _trained_words(run: ComparedRun | None) -> str:
    model = {} if run is None else run.config.get("model")
    part = model.get("train") if isinstance(model, Mapping) else None
    if run is None or not isinstance(part, str):
        return ""
    kind, _, number = part.partition(":")
    words = {"last": f"last {number} blocks and head", "lora": f"LoRA of rank {number} and head"}
    text = _TRAINED.get(kind) or words.get(kind, part)
    if isinstance(run.frame_seed, int):
        learned = run.final.get("perf/head_parameters")
        return f"{text}; class vectors fixed" if learned else text.replace(" and head", "") + "; head fixed"
    return text


def _parameter_words(comparison: Comparison, arm: str) -> str:
    whole, head = (comparison.row(arm, f"perf/{name}") for name in ("parameters", "head_parameters"))
    if whole is None or whole.mean is None:
        return ""
    text = f"{whole.mean:,.0f}"
    return text if head is None or head.mean is None else f"{text}, head {head.mean:,.0f}"


def _settings_words(
    comparison: Comparison, arm: str, config: Mapping[str, Any], varying: Mapping[str, Sequence[Any]]
) -> str:
    """Return the values that tuning chose, or else the recorded learning rate and weight decay.

    Values that differ between the runs of the arm are given as a range.
    """
    optim = config.get("optim")
    values = {f"optim.{key}": optim.get(key) for key in ("lr", "weight_decay")} if isinstance(optim, Mapping) else {}
    chosen = comparison.experiment.tuning.get("chosen")
    of_arm = chosen.get(arm) if isinstance(chosen, Mapping) else None
    if isinstance(of_arm, Mapping) and not comparison.experiment.tuned_each_seed:
        values |= {"optim.lr" if key == "lr" else str(key): value for key, value in of_arm.items()}
    names = {"optim.lr": "learning rate", "optim.weight_decay": "weight decay"}
    texts = [
        f"{names.get(key) or key.replace('.', ' ').replace('_', ' ')} {value_words(value)}"
        for key, value in values.items()
        if value is not None and key not in varying
    ]
    texts += [
        f"{names.get(key) or key.replace('.', ' ').replace('_', ' ')} {_range_words(values)} by seed"
        for key, values in varying.items()
    ]
    return ", ".join(texts)


def _range_words(values: Sequence[Any]) -> str:
    if all(isinstance(value, int | float) for value in values):
        return f"{value_words(min(values))} to {value_words(max(values))}"
    return " or ".join(dict.fromkeys(value_words(value) for value in values))


def _difference_words(config: Mapping[str, Any], expected: Mapping[str, str]) -> str:
    """Return the second stage, the start, and every other setting that is not the baseline's."""
    stages = [
        f"{words} {value_words(config[name])}"
        for name, words in (("second_stage", "then"), ("start", "starts from"))
        if config.get(name) is not None
    ]
    names = dict.fromkeys(
        ".".join(name.split(".")[:2])
        for name, value in flatten_settings(config).items()
        if expected and expected.get(name) != value and not name.startswith(_NAMED) and name not in _UNNAMED
        and not name.endswith((".lr", "weight_decay"))
    )  # fmt: skip
    others = []
    for name in names:
        group, _, field = name.partition(".")
        part = config[group].get(field) if field and isinstance(config[group], Mapping) else config[group]
        # The name of a class already says what the setting is: "mixup (alpha 0.2)".
        named = isinstance(part, Mapping) and ("class" in part or "dataclass" in part)
        others.append(value_words(part) if named else f"{(field or group).replace('_', ' ')} {value_words(part)}")
    return ", ".join([*stages, *others])


def _data_words(data: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    counts = data.get("class_counts") or ()
    parts = [str(data.get("name") or "")]
    if counts:
        parts.append(f"{len(counts)} classes, {sum(counts):,} training images")
        most, fewest = max(counts), min(counts)
        parts.append(f"{most:,} to {fewest:,} per class" if most > fewest else f"{most:,} per class")
    settings = config.get("data")
    noise = settings.get("noise") if isinstance(settings, Mapping) else None
    if noise is not None:
        parts.append(f"labels with drawn noise: {value_words(noise)}")
    size = data.get("image_size")
    if isinstance(size, int):
        parts.append(f"{size} × {size} pixels")
    return ", ".join(part for part in parts if part)


def _network_words(config: Mapping[str, Any]) -> str:
    model = config.get("model")
    if not isinstance(model, Mapping):
        return str(model or "")
    name = value_words(model["network"]) if model.get("network") is not None else str(model.get("name") or "")
    if not name:
        return ""
    weights = model.get("weights")
    size = [f"width {model['width']}"] if ":" not in name and weights is None and model.get("width") else []
    return ", ".join([name, *size, f"{weights} weights" if weights == "pretrained" else
                      f"weights from {weights}" if weights else "random initial weights"])  # fmt: skip


def _training_words(config: Mapping[str, Any]) -> str:
    training, optim = config.get("training"), config.get("optim")
    parts = []
    if isinstance(training, Mapping):
        parts += [f"{training['epochs']} epochs"] if training.get("epochs") else []
        parts += [f"batches of {training['batch_size']}"] if training.get("batch_size") else []
    if isinstance(optim, Mapping):
        parts += [value_words(optim["optimizer"])] if optim.get("optimizer") else []
        parts += [f"{optim['schedule']} schedule"] if optim.get("schedule") else []
    return ", ".join(parts)


def _total_time(comparison: Comparison) -> str:
    seconds = sum(run.final.get("perf/seconds", 0.0) for cells in comparison.cells.values() for run in cells.values())
    if not 0 < seconds < float("inf"):
        return ""
    text = (
        f"{seconds / 3600:,.1f} hours" if seconds >= 7200 else metric_info("perf/seconds").value(seconds) + " seconds"
    )
    return f", {text} of training in all"
