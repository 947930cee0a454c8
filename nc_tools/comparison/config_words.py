"""Say in words what a recorded configuration holds: a class by its name, its arguments, and the terms of a sum."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PARTS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+[0-9]*")
_ENDINGS = ("Head", "Loss", "Config", "Schedule", "Start")


def class_words(path: str) -> str:
    """Return the name of a class in words, without an ending for its kind, such as "Head" or "Loss".

    Optimizers of PyTorch keep their names, which are those of their papers.

    Example:
        >>> class_words("nc_tools.heads.etf.ETFHead"), class_words("DotRegressionLoss"), class_words("NCEAndMAELoss")
        ('ETF', 'dot regression', 'NCE and MAE')
        >>> class_words("torch.optim.adamw.AdamW")
        'AdamW'
    """
    name = path.rpartition(".")[2]
    if path.startswith("torch.optim."):
        return name
    ending = next((end for end in _ENDINGS if name.endswith(end) and name != end), "")
    parts = _PARTS.findall(name.removesuffix(ending)) or [name]
    return " ".join(part if len(part) > 1 and part.isupper() else part.lower() for part in parts)


def value_words(value: Any) -> str:
    """Return a configuration's value in a few words: a class with its arguments, a weighted sum, a number, a list.

    Example:
        >>> value_words({"class": "nc_tools.heads.etf.ETFHead", "arguments": {"projection": True, "scale": 8.0}})
        'ETF (projection, scale 8)'
        >>> value_words({"dataclass": "nc_tools.training.mixing.Mixup", "alpha": 0.2, "start": None})
        'mixup (alpha 0.2)'
    """
    if isinstance(value, Mapping):
        return _mapping_words(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(value_words, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mapping_words(value: Mapping[str, Any]) -> str:
    path = value.get("class") or value.get("dataclass")
    arguments = value.get("arguments") if "class" in value else {k: v for k, v in value.items() if k != "dataclass"}
    if not isinstance(arguments, Mapping):
        arguments = {}
    if not isinstance(path, str):
        return ", ".join(_argument_words(key, item) for key, item in value.items()) or "none"
    terms = arguments.get("terms")
    if isinstance(terms, list) and terms and all(isinstance(term, Mapping) and "loss" in term for term in terms):
        return " + ".join(_term_words(term) for term in terms)
    if path.endswith("ConstantSchedule"):
        return value_words(arguments.get("value"))
    # None is the default of nearly every optional argument, and says nothing to a reader.
    given = [_argument_words(key, item) for key, item in arguments.items() if item is not None and item is not False]
    return f"{class_words(path)} ({', '.join(given)})" if given else class_words(path)


def _argument_words(name: str, value: Any) -> str:
    words, of_value = name.replace("_", " "), value_words(value)
    if value is True or of_value.endswith(words):  # "scale" of a learned scale needs no second "scale"
        return words if value is True else of_value
    return f"{words} {of_value}"


def _term_words(term: Mapping[str, Any]) -> str:
    weight, loss = value_words(term.get("weight")), value_words(term["loss"])
    return loss if weight == "1" else f"{weight} × {loss}"
