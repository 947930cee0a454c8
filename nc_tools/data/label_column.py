"""Turn a column of labels into class indices: one meaning, names or numbers, for the whole column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nc_tools._support.suggestions import did_you_mean
from nc_tools.data.short_list import quoted, short_list

_WHOLE = re.compile(r"[+-]?\d+([.,]0*)?$")


class LabelError(ValueError):
    """A column of labels cannot be read; ``row`` is the position of the first label that cannot be, or None."""

    def __init__(self, text: str, row: int | None = None) -> None:
        super().__init__(text)
        self.row = row


def whole_number(text: str) -> int | None:
    """Return the whole number that a cell holds, also when it is written as ``3.0`` or ``3,0``; None for other text.

    Example:
        >>> whole_number("3"), whole_number("3.0"), whole_number("1e3"), whole_number("")
        (3, 3, None, None)
    """
    return int(re.split("[.,]", text)[0]) if _WHOLE.match(text) else None


def is_natural_order(classes: Sequence[str]) -> bool:
    """Return whether the order of class names as text is also their order by the numbers in them.

    Example:
        >>> is_natural_order(["c0", "c1", "c2"]), is_natural_order(["c0", "c1", "c10", "c2"])
        (True, False)
    """
    keys = [[int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)] for name in classes]
    return keys == sorted(keys, key=lambda key: [(isinstance(part, str), part) for part in key])


def labels_of(values: Sequence[str], classes: Sequence[str]) -> tuple[Tensor, str]:
    """Return the class index of each label, for classes that are known, and a sentence about how they were read.

    The labels are class names if all of them are. Else they must be numbers. If all class names are numbers and each
    label has the value of one of them (``1`` for a folder ``01``), it stands for that class; if not, the labels are
    class indices from 0. A column that mixes names and indices is refused. So are indices of classes whose order as
    text is not the natural one.

    Args:
        values: N labels as text, none empty.
        classes: K names.

    Returns:
        (N,) int64, and the sentence; "" where the labels are class names.

    Raises:
        LabelError: If a label is no class, or the column has no single meaning.

    Example:
        >>> labels_of(["1", "0"], ["ape", "bat"])
        (tensor([1, 0]), 'labels are class indices: 0 is ape, 1 is bat')
    """
    names = {name: k for k, name in enumerate(classes)}
    distinct = set(values)
    if distinct <= set(names):
        return torch.tensor([names[value] for value in values], dtype=torch.int64), ""
    numbers = {value: number for value in distinct if (number := whole_number(value)) is not None}
    by_number = {number: k for k, name in enumerate(classes) if (number := whole_number(name)) is not None}
    all_numbers = len(numbers) == len(distinct)
    if all_numbers and len(by_number) == len(classes) and set(numbers.values()) <= set(by_number):
        sentence = f"labels are the numbers of classes: {_pairs([(n, classes[k]) for n, k in by_number.items()])}"
        return torch.tensor([by_number[numbers[value]] for value in values], dtype=torch.int64), sentence
    unknown = {value for value in distinct - set(names) if not 0 <= numbers.get(value, -1) < len(classes)}
    if unknown:
        row = next(i for i, value in enumerate(values) if value in unknown)
        raise LabelError(
            f"the label {quoted(values[row])} is neither a class name nor an index from 0 to {len(classes) - 1}; "
            f"{did_you_mean(values[row], classes)}",
            row,
        )
    if both := sorted(distinct & set(names)):
        raise LabelError(
            f"holds {short_list(both)}, which are class names, and {short_list(sorted(distinct - set(names)))}, which "
            "can only be indices: write the class name in each row"
        )
    pairs = _pairs(list(enumerate(classes)))
    if not is_natural_order(classes):
        raise LabelError(
            f"holds class indices, but the classes are sorted as text ({pairs}), and perhaps not in the order that was "
            "meant: write the class names"
        )
    return torch.tensor([numbers[value] for value in values], dtype=torch.int64), f"labels are class indices: {pairs}"


def classes_of(
    values: Sequence[str], class_map: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], Tensor, str]:
    """Return the classes that a column of labels names, the class index of each label, and how they were read.

    Labels are numbers if all of them are whole numbers, and are then sorted as numbers; else they are sorted as text.
    With a class map, the classes are those of its names that occur, in the order of the map.

    Args:
        values: N labels as text, none empty.
        class_map: Names of labels, or None.

    Returns:
        K names, (N,) int64, and the sentence.

    Raises:
        LabelError: If more than half of the distinct labels, but not all, are whole numbers, or if the class map lacks
            a label.

    Example:
        >>> classes_of(["10", "9", "10.0"])
        (('9', '10'), tensor([1, 0, 1]), 'whole numbers, 9 to 10')
    """
    distinct = set(values)
    numbers = {value: number for value in distinct if (number := whole_number(value)) is not None}
    if class_map is not None:
        return _mapped(values, numbers, class_map)
    if len(numbers) == len(distinct):
        order = sorted(set(numbers.values()))
        index = {number: k for k, number in enumerate(order)}
        labels = torch.tensor([index[numbers[value]] for value in values], dtype=torch.int64)
        return tuple(map(str, order)), labels, f"whole numbers, {order[0]} to {order[-1]}"
    if numbers and 2 * len(numbers) > len(distinct):
        odd = sorted(distinct - set(numbers))
        raise LabelError(
            f"holds whole numbers and also {short_list(odd)}: correct these, or leave their rows out with "
            "--set data.table.unclear_labels=skip"
            if len(odd) <= 5
            else f"holds {len(numbers)} whole numbers and {len(odd)} other labels, such as {short_list(odd, 2)}: "
            "give another column",
            next(i for i, value in enumerate(values) if value not in numbers),
        )
    classes = tuple(sorted(distinct))
    index_of = {name: k for k, name in enumerate(classes)}
    return classes, torch.tensor([index_of[value] for value in values], dtype=torch.int64), "names"


def _mapped(
    values: Sequence[str], numbers: Mapping[str, int], class_map: Mapping[str, str]
) -> tuple[tuple[str, ...], Tensor, str]:
    by_number = {number: name for key, name in class_map.items() if (number := whole_number(key)) is not None}
    names = {}
    for row, value in enumerate(values):
        if value in names:
            continue
        name = class_map.get(value)
        if name is None and value in numbers:
            name = by_number.get(numbers[value])
        if name is None and value in class_map.values():
            name = value
        if name is None:
            raise LabelError(
                f"holds the label {quoted(value)}, which the class map does not have; {did_you_mean(value, class_map)}",
                row,
            )
        names[value] = name
    ranked = {name: k for k, name in enumerate(dict.fromkeys(class_map.values()))}
    classes = tuple(sorted(set(names.values()), key=lambda name: ranked[name]))
    index = {name: k for k, name in enumerate(classes)}
    pairs = _pairs([(key, name) for key, name in class_map.items() if name in index])
    labels = torch.tensor([index[names[value]] for value in values], dtype=torch.int64)
    return classes, labels, f"named by the class map: {pairs}"


def _pairs(pairs: Sequence[tuple[object, str]]) -> str:
    return short_list([f"{key} is {name}" for key, name in pairs], 12)
