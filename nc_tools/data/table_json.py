"""Read a table from JSON: records, one record a line, lists of paths by class, labels by path, COCO."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

SEVERAL = "|"
"""Separator of several values of a JSON file that are joined in one cell."""

Found: TypeAlias = tuple[list[list[str]], list[int], str]


def json_grids(file: Path, text: str) -> list[Found]:
    """Return the table in a JSON file: a list with one tuple of its rows, their numbers, and the form that was found.

    The first row is a header.

    Args:
        file: Path of the file, for messages.
        text: Content of the file.

    Raises:
        ValueError: If it is not JSON, or has none of the known forms.

    Example:
        >>> json_grids(Path("x.json"), '{"ape": ["ape/1", "ape/2"]}')[0][0]
        [['path', 'label'], ['ape/1', 'ape'], ['ape/2', 'ape']]
    """
    try:
        value: Any = json.loads(text)
        form = "JSON"
    except json.JSONDecodeError as error:
        value, form = _json_lines(file, text, error), "JSON, one record a line"
    except RecursionError:
        raise ValueError(f"{file} nests too deep for a table: give a list of records") from None
    rows, form = _rows(file, value, form)
    if len(rows) < 2:
        raise ValueError(
            f"{file} lists no image: it must hold a list with an object for each image, or an object with a list of "
            "paths for each class"
        )
    return [(rows, list(range(len(rows))), form)]


def _json_lines(file: Path, text: str, error: json.JSONDecodeError) -> list[Any]:
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(f"{file} is not valid JSON ({error.msg} at line {error.lineno}): save it again") from None


def _rows(file: Path, value: Any, form: str) -> tuple[list[list[str]], str]:
    if isinstance(value, Mapping) and {"images", "annotations", "categories"} <= set(value):
        return _coco(file, value), "COCO JSON"
    if isinstance(value, Mapping) and isinstance(value.get("labels"), Mapping) and "classes" in value:
        classes = value["classes"]
        pairs = [[str(path), _text(classes[k] if isinstance(k, int) else k)] for path, k in value["labels"].items()]
        return [["path", "label"], *pairs], "JSON with classes and labels"
    if isinstance(value, Mapping) and value and all(isinstance(item, list) for item in value.values()):
        pairs = [[_text(path), str(label)] for label, paths in value.items() for path in paths]
        return [["path", "label"], *pairs], "JSON, paths by class"
    if isinstance(value, Mapping) and value and not any(isinstance(item, dict | list) for item in value.values()):
        pairs = [[str(path), _text(label)] for path, label in value.items()]
        return [["path", "label"], *pairs], "JSON, labels by path"
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return _records(value), form
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return [["path"], *([item] for item in value)], f"{form}, a list of paths"
    kind = "an object" if isinstance(value, Mapping) else "a list"
    raise ValueError(
        f"{file} holds {kind} that is no table: it must be a list of records such as "
        '[{"path": "a.jpg", "label": "ape"}], paths by class such as {"ape": ["a.jpg"]}, or COCO'
    )


def _records(records: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    flat = [dict(_flattened(record)) for record in records]
    columns = list(dict.fromkeys(name for record in flat for name in record))
    return [columns, *([record.get(name, "") for name in columns] for record in flat)]


def _flattened(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield the values of a record with dotted names; a list of one item counts as this item."""
    for key, whole in record.items():
        value = whole[0] if isinstance(whole, list) and len(whole) == 1 else whole
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return SEVERAL.join(_text(item) for item in value)
    return "" if value is None else value.strip() if isinstance(value, str) else json.dumps(value)


def _coco(file: Path, value: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for each image, with the names of the categories of its annotations."""
    try:
        names = {category["id"]: str(category["name"]) for category in value["categories"]}
        files = {image["id"]: str(image["file_name"]) for image in value["images"]}
        labels: dict[Any, dict[str, None]] = {key: {} for key in files}
        for annotation in value["annotations"]:
            labels[annotation["image_id"]][names[annotation["category_id"]]] = None
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{file} looks like COCO, but a record has no {error}: images need id and file_name, categories id and "
            "name, annotations image_id and category_id"
        ) from None
    return [["file_name", "category"], *([path, SEVERAL.join(labels[key])] for key, path in files.items())]
