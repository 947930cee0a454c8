"""Convert runs to MLflow's tags, parameters and metrics, within MLflow's limits."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mlflow.entities import Metric

from nc_tools.run_records.reader import StoredRun

MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 8000
MAX_DIGEST = 36


def safe_key(key: str) -> str:
    """Return a metric key in a form that MLflow accepts; characters that it refuses become their codes.

    Example:
        >>> safe_key("test/gen/accuracy"), safe_key("top-5 acc (%)"), safe_key("a//b")
        ('test/gen/accuracy', 'top-5 acc _x28__x25__x29_', 'a/_/b')
    """
    key = re.sub(r"[^\w.\- /]", lambda match: f"_x{ord(match.group()):x}_", key)
    # MLflow also rejects keys that are not normalized relative paths.
    key = "/".join(part if part.strip(".") else part.replace(".", "_x2e_") or "_" for part in key.split("/"))
    if len(key) > MAX_KEY:
        key = f"{key[: MAX_KEY - 9]}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    return key


def flatten_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a nested configuration as dotted names and texts, cut to the length that MLflow accepts.

    Example:
        >>> flatten_params({"head": {"name": "etf", "scale": None}, "counts": [5, 3]})
        {'head.name': 'etf', 'head.scale': 'null', 'counts': '[5, 3]'}
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten_params(value, f"{prefix}{key}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[safe_key(f"{prefix}{key}")] = cut(text, MAX_PARAM)
    return flat


def cut(text: str, length: int) -> str:
    """Cut ``text`` to ``length`` characters, with " ..." at the end if something is missing."""
    return text if len(text) <= length else text[: length - 4] + " ..."


def tags(run: StoredRun) -> dict[str, str]:
    """Return the MLflow tags of a run, by which runs are grouped and filtered."""
    identity = run.identity
    values = {
        "mlflow.runName": identity.label,
        "mlflow.source.name": identity.command[0] if identity.command else None,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": identity.git_commit,
        "mlflow.note.content": _description(run),
        "nc.run_id": run.path.name,
        **{f"nc.{name}": getattr(identity, name) for name in ("arm", "seed", "draw", "kind", "suite", "hardware")},
        **{f"nc.{name}": getattr(identity, name) for name in ("config_hash", "group_hash")},
        **{f"nc.{name}": getattr(run, name) for name in ("pid", "host", "path")},
        "nc.versions": ", ".join(f"{name} {version}" for name, version in identity.versions.items()),
    }
    return {key: cut(str(value), MAX_TAG) for key, value in values.items() if value not in (None, "")}


def _description(run: StoredRun) -> str:
    """Return what a run is, as Markdown: what is trained on what, and why it failed."""
    identity, config, data = run.identity, run.identity.config, run.identity.data
    model, counts = config.get("model"), data.get("class_counts")
    facts = {
        "head": _class_name(config.get("head")),
        "loss": _class_name(config.get("loss")),
        "network": model.get("name") if isinstance(model, Mapping) else None,
        "data": data.get("name"),
        "classes": data.get("num_classes"),
        "training images": sum(counts) if isinstance(counts, list) and all(type(n) is int for n in counts) else None,
        "hardware": identity.hardware,
    }
    lines = [f"- {name}: {str(value).strip()}" for name, value in facts.items() if value not in (None, "")]
    title = f"Arm **{identity.arm}**, seed {identity.seed}, draw {identity.draw} of {identity.experiment}"
    return "\n".join([title, *([f"\n**{run.status}**: {run.error}"] if run.error else []), "", *lines])


def _class_name(settings: Any) -> str | None:
    """Return the name of the class in the settings of a head or a loss; None for settings of another form."""
    path = settings.get("class") if isinstance(settings, Mapping) else None
    return path.rpartition(".")[2] if isinstance(path, str) else None


def points(lines: Iterable[Mapping[str, Any]]) -> list[Metric]:
    """Return the values of lines of metrics.jsonl as MLflow metrics; null becomes nan, which MLflow shows as a gap."""
    return [
        Metric(safe_key(key), math.nan if value is None else float(value), int(line["time_ms"]), int(line["step"]))
        for line in lines
        for key, value in {**line["values"], **line.get("system", {})}.items()
    ]


def final_points(run: StoredRun) -> list[Metric]:
    """Return a run's final values as MLflow metrics at its last step, unless the metric's curve already has them."""
    curves = run.curves()
    last = max((step for curve in curves.values() for step, _ in curve), default=0)
    time_ms = run.ended_ms or run.started_ms
    new = {key: value for key, value in run.final.items() if (last, value) not in curves.get(key, ())}
    return [Metric(safe_key(key), value, time_ms, last) for key, value in new.items()]


def dataset(data: Mapping[str, Any]) -> dict[str, str] | None:
    """Return MLflow's description of a run's data set; None if its name or fingerprint is unknown."""
    name, fingerprint = data.get("name"), data.get("fingerprint")
    if not name or not fingerprint:
        return None
    profile = {key: value for key, value in data.items() if key not in ("name", "fingerprint", "classes")}
    source = json.dumps({"name": str(name)})
    described = {"name": cut(str(name), 500), "digest": str(fingerprint)[:MAX_DIGEST], "source_type": "local"}
    return {**described, "source": source, "profile": json.dumps(profile)}
