"""Find the columns of a table of images that hold its split, its groups and its labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nc_tools.data.label_column import whole_number
from nc_tools.data.short_list import quoted, short_list
from nc_tools.data.split_words import Role, split_role
from nc_tools.data.table import Table
from nc_tools.data.table_config import NONE

LABEL_NAMES = (
    "label", "labels", "class", "classes", "target", "category", "diagnosis", "dx", "species", "class_name",
    "label_name", "category_name", "class_id", "label_id", "category_id", "choice", "y",
)  # fmt: skip
GROUP_WORDS = frozenset(
    {"animal", "case", "individual", "lesion", "location", "participant", "patient", "person", "scene", "series",
     "session", "site", "slide", "study", "subject", "video"}
)  # fmt: skip
_ID_WORDS = frozenset(
    {"code", "hash", "id", "ids", "index", "instance", "key", "name", "no", "nr", "num", "number", "uid", "uuid"}
)
_LARGEST_GROUP = 0.1
_ROUNDING = 0.02
_TRUE, _FALSE = frozenset({"1", "true", "yes", "1.0"}), frozenset({"0", "false", "no", "0.0"})


@dataclass(frozen=True)
class ColumnRoles:
    """What the columns of a table mean.

    Attributes:
        labels: Positions of the columns that hold the label: several if each stands for a class and holds 0 or 1, none
            if the folder of an image is its label.
        roles: The part of the data that each row belongs to, None for an empty cell; None without a split.
        split: Position of the column of the split, or None.
        group: Position of the column of groups, or None.
        sentences: Which columns were found and not used, for people.
    """

    labels: tuple[int, ...]
    roles: tuple[Role | None, ...] | None
    split: int | None
    group: int | None
    sentences: tuple[str, ...]


def read_columns_of(
    table: Table, label_column: str | None, split_column: str | None = None, group_column: str | None = None
) -> ColumnRoles:
    """Return what the columns of a table mean, found by their names and values.

    Args:
        table: The table.
        label_column: Names of the label columns, separated by commas; None to find them.
        split_column: Name of the column of the split; "-" for none, None to find it.
        group_column: Likewise for groups.

    Raises:
        ValueError: If a named column is missing, the named split column holds other words, or it is not clear which
            column holds the labels.
    """
    values = {j: table.cells(j) for j in range(len(table.columns)) if j != table.path_column}
    sentences: list[str] = []
    named = () if label_column is None else _named(table, label_column)
    split, roles = _split(table, values, split_column, named)
    rest = {j: cells for j, cells in values.items() if j != split and j not in named}
    group = _group(table, rest, group_column, sentences)
    rest = {
        j: cells for j, cells in rest.items()
        if j != group and not _is_fold(table.columns[j]) and not _names_groups(table.columns[j])
    }  # fmt: skip
    folds = [table.columns[j] for j in values if _is_fold(table.columns[j]) and j not in named]
    if folds:
        sentences.append(f"not used: column {short_list(folds)} (numbers of folds)")
    labels = named or _labels(table, rest)
    return ColumnRoles(labels, roles, split, group, tuple(sentences))


def _named(table: Table, names: str) -> tuple[int, ...]:
    if names in table.columns:
        return (table.position(names),)
    return tuple(table.position(name.strip()) for name in names.split(","))


def _names_groups(name: str) -> bool:
    """Return whether the name of a column means groups of images: ``patient_id`` does, ``patient_age`` does not."""
    words = set(_words(name))
    return bool(words & (GROUP_WORDS | {"group"})) and not words - GROUP_WORDS - _ID_WORDS - {"group"}


def _words(name: str) -> list[str]:
    return re.split(r"[\W_]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())


def _is_fold(name: str) -> bool:
    return bool(re.match(r"(cv_?)?folds?([\W_\d]|$)", name.lower()))


def _split(
    table: Table, values: Mapping[int, Sequence[str]], named: str | None, labels: tuple[int, ...]
) -> tuple[int | None, tuple[Role | None, ...] | None]:
    """Return the column of the split, and the part that each row belongs to (None for an empty cell)."""
    if named == NONE:
        return None, None
    if named is not None:
        j = table.position(named)
        if (roles := _roles(table.columns[j], table.cells(j))) is None:
            odd = short_list(sorted({quoted(cell) for cell in table.cells(j) if split_role(cell) is None}))
            raise ValueError(
                f"column {named!r} of {table.file} is no split: it holds {odd}, which is no word for training, "
                "validation or test images"
            )
        return j, roles
    for j, cells in values.items():
        if j not in labels and (roles := _roles(table.columns[j], cells)) is not None and len(set(roles)) > 1:
            return j, roles
    return None, None


def _roles(name: str, cells: Sequence[str]) -> tuple[Role | None, ...] | None:
    """Return the part that each cell of a column names, by words or as 0 and 1; None if it is no column of a split."""
    distinct = {cell.lower() for cell in cells}
    words = {cell: split_role(cell) for cell in distinct if cell}
    if words and all(words.values()):
        return tuple(words.get(cell.lower()) for cell in cells)
    flag = re.match(r"is_?(train|training|valid|validation|val|test)(_?set)?$", name.lower())
    if flag and distinct <= _TRUE | _FALSE:
        yes = split_role(flag.group(1))
        no: Role = "test" if yes == "train" else "train"
        return tuple(yes if cell.lower() in _TRUE else no for cell in cells)
    return None


def _group(table: Table, values: Mapping[int, Sequence[str]], named: str | None, sentences: list[str]) -> int | None:
    """Return the column of groups: the named one, or one whose name means groups and whose values repeat.

    No value may have more than a tenth of the rows; a sentence is added about a column where one has. A column whose
    name begins with "group" is taken in any case.
    """
    if named == NONE:
        return None
    if named is not None:
        return table.position(named)
    for j, cells in values.items():
        if _words(table.columns[j])[0] == "group":
            return j
        if not _names_groups(table.columns[j]):
            continue
        counts = Counter(cell for cell in cells if cell)
        if not counts or len(counts) >= len(cells):
            continue
        largest = max(counts.values())
        if largest <= max(2, _LARGEST_GROUP * len(cells)):
            return j
        sentences.append(
            f"not used as groups: column {table.columns[j]} (its {len(counts)} values are too few: the largest has "
            f"{largest} of {len(cells)} rows); set data.table.group_column={table.columns[j]} if they must not be split"
        )
    return None


def _labels(table: Table, values: Mapping[int, Sequence[str]]) -> tuple[int, ...]:
    """Return the column of the labels, or the columns of classes that hold 0 and 1; () if no column is left.

    Raises:
        ValueError: If it is not clear which column holds the labels.
    """
    by_name = [j for name in LABEL_NAMES for j in values if table.columns[j].lower() == name and any(values[j])]
    by_name = by_name or [j for j in values if _words(table.columns[j])[-1] in LABEL_NAMES and any(values[j])]
    if by_name:
        return (_one_of(table, by_name),)
    if classes := _one_hot(table, values):
        return classes
    few = [j for j, cells in values.items() if 2 <= len(set(cells)) <= len(cells) // 2 and not _is_measure(cells)]
    if len(few) == 1:
        return (few[0],)
    if not values:
        return ()
    if shares := _shares(table, values):
        raise ValueError(
            f"the columns {short_list(shares)} of {table.file} hold shares of votes, which sum to 1 in each row, and "
            "labels are one class: write the most frequent one into a column, and name it after the file"
        )
    shown = short_list([f"{table.columns[j]} ({len(set(cells))} values)" for j, cells in values.items()], 12)
    raise ValueError(
        f"it is not clear which column of {table.file} holds the labels: it has {shown}; name it after the file, as in "
        f"table:{table.file.name}:{table.columns[few[0] if few else next(iter(values))]}"
    )


def _one_of(table: Table, columns: Sequence[int]) -> int:
    """Return which of several columns of labels to use, if all divide the rows in the same way.

    It is the first one that holds words, or the first one if all hold numbers.

    Raises:
        ValueError: If two of them divide the rows in different ways.
    """
    first, *others = columns
    pairs = table.cells(first)
    for other in others:
        both = set(zip(pairs, table.cells(other), strict=True))
        if not len(both) == len({a for a, _ in both}) == len({b for _, b in both}):
            raise ValueError(
                f"columns {table.columns[first]!r} and {table.columns[other]!r} of {table.file} could both be the "
                f"labels, and they differ: name one after the file, as in table:{table.file.name}:"
                f"{table.columns[first]}"
            )
    return next((j for j in columns if any(whole_number(cell) is None for cell in table.cells(j))), first)


def _one_hot(table: Table, values: Mapping[int, Sequence[str]]) -> tuple[int, ...]:
    """Return the columns that each stand for a class; () if there are fewer than two.

    They hold 0 and 1, each at least once, and are not called weights. More than half of the rows have a single 1.
    """
    matches = []
    for j, cells in values.items():
        kinds = {whole_number(cell) for cell in set(cells)}
        if kinds == {0, 1} and "weight" not in table.columns[j].lower():
            matches.append(j)
    if len(matches) < 2:
        return ()
    ones = [sum(whole_number(values[j][row]) == 1 for j in matches) for row in range(len(table.rows))]
    return tuple(matches) if ones.count(1) * 2 > len(ones) else ()


def _shares(table: Table, values: Mapping[int, Sequence[str]]) -> list[str]:
    """Return the names of the columns of numbers in [0, 1], if there are several that sum to 1 in every row."""
    columns = [
        j for j, cells in values.items() if all(re.match(r"[01](\.\d*)?(e-\d+)?$|\.\d+$", cell) for cell in cells)
    ]
    sums = [sum(float(values[j][row]) for j in columns) for row in range(len(table.rows))]
    one = len(columns) > 1 and all(abs(total - 1) < _ROUNDING for total in sums)
    return [table.columns[j] for j in columns] if one else []


def _is_measure(cells: Sequence[str]) -> bool:
    """Return whether a column holds decimal numbers, such as a size or a share."""
    try:
        return any(not float(cell).is_integer() for cell in cells if cell)
    except (ValueError, OverflowError):
        return False
