"""The labels of a table's rows: which rows have one clear label, and what is done with the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nc_tools.data.label_column import whole_number
from nc_tools.data.short_list import quoted, short_list
from nc_tools.data.table import Table
from nc_tools.data.table_config import UnclearLabels
from nc_tools.data.table_json import SEVERAL

_BETWEEN = (SEVERAL, ";", ",", " ")
_SKIP = "leave them out with --set data.table.unclear_labels=skip"


@dataclass(frozen=True)
class RowLabels:
    """The label of each row as text.

    Attributes:
        labels: For each row its label; None for a row that is left out.
        source: Where the labels stand, for people.
        sentences: What was left out, for people.
    """

    labels: list[str | None]
    source: str
    sentences: tuple[str, ...] = ()


def row_labels(
    table: Table, columns: Sequence[int], files: Sequence[str], unclear: UnclearLabels, positive: str | None
) -> RowLabels:
    """Return the label of each row as text: a cell, the class column that holds 1, or the folder of the image.

    Args:
        table: The table.
        columns: Positions of the label columns; none if the folder of an image is its label.
        files: The paths that the table's match refers to.
        unclear: What to do with rows that have no label or several.
        positive: A label to use against all others, as "LABEL" and "not LABEL"; or None.

    Raises:
        ValueError: If rows without a label or with several are refused, or ``positive`` is no label of the table.
    """
    if not columns:
        folders = [None if i is None else _folder(files[i]) for i in table.match.images]
        return RowLabels(folders, "the folder of each image")
    if len(columns) > 1:
        return _from_classes(table, columns, unclear, positive)
    cells = table.cells(columns[0])
    empty = [row for row, cell in enumerate(cells) if cell in ("", "nan", "NaN")]
    several = _rows_with_several(cells)
    name = table.columns[columns[0]]
    if positive is not None:
        labels: list[str | None] = [
            positive if positive in several.get(row, (cell,)) else f"not {positive}" for row, cell in enumerate(cells)
        ]
        if positive not in labels:
            raise ValueError(
                f"no row of {table.file} has the label {positive!r} in column {name!r}: check its spelling"
            )
        several = {}
    else:
        labels = list(cells)
    if several and unclear == "refuse":
        row = next(iter(several))
        raise ValueError(
            f"{len(several)} of {len(cells)} rows of {table.file} have several labels in column {name!r}, such as "
            f"{quoted(cells[row])} in line {table.lines[row]}: {_SKIP}, or train on one label against all others with "
            f"--set data.table.positive={several[row][0]}"
        )
    if empty and unclear == "refuse":
        raise ValueError(
            f"{len(empty)} of {len(cells)} rows of {table.file} have no label in column {name!r}, such as line "
            f"{table.lines[empty[0]]}: {_SKIP}"
        )
    for row in (*empty, *several):
        labels[row] = None
    counted = [f"{len(rows)} {what}" for rows, what in ((empty, "without label"), (several, "with several")) if rows]
    return RowLabels(labels, f"column {name}", (f"rows left out: {', '.join(counted)}",) if counted else ())


def merge_rows(
    table: Table, labels: Sequence[str | None], unclear: UnclearLabels
) -> tuple[Mapping[int, int], tuple[str, ...]]:
    """Return for each image the row that gives its label, and sentences about images with several rows.

    Rows that agree count as one. ``unclear`` decides about rows that disagree: "refuse" is an error, "skip" leaves the
    image out, and "majority" uses its most frequent label, or leaves it out if two are equally frequent.

    Args:
        table: The table, whose match names the image of each row.
        labels: The label of each row; None for rows that are left out.
        unclear: What to do with rows that disagree.

    Raises:
        ValueError: If rows disagree about an image and ``unclear`` is "refuse".
    """
    rows: dict[int, list[int]] = {}
    for row, (image, label) in enumerate(zip(table.match.images, labels, strict=True)):
        if image is not None and label is not None:
            rows.setdefault(image, []).append(row)
    disagree = {image: of for image, of in rows.items() if len({labels[row] for row in of}) > 1}
    if disagree and unclear == "refuse":
        first, *_, last = next(iter(disagree.values()))
        texts = " and ".join(f"{quoted(str(labels[row]))} in line {table.lines[row]}" for row in (first, last))
        raise ValueError(
            f"{len(disagree)} images have rows that disagree in {table.file}, such as {texts}: leave them out with "
            "--set data.table.unclear_labels=skip, or use the most frequent label with --set "
            "data.table.unclear_labels=majority"
        )
    chosen = {image: of[0] for image, of in rows.items() if image not in disagree}
    ties = len(disagree)
    if unclear == "majority":
        for image, of in disagree.items():
            ranked = Counter(labels[row] for row in of).most_common(2)
            if ranked[0][1] > ranked[1][1]:
                chosen[image] = next(row for row in of if labels[row] == ranked[0][0])
                ties -= 1
    more = sum(len(of) for of in rows.values()) - len(rows)
    sentences = [f"{more} rows name an image of another row"] if more else []
    if disagree:
        sentences.append(
            f"rows disagree about {len(disagree)} images: "
            + (f"{len(disagree) - ties} take the most frequent label, {ties} are left out" if unclear == "majority"
               else "they are left out")
        )  # fmt: skip
    return chosen, tuple(sentences)


def _folder(path: str) -> str | None:
    return path.rpartition("/")[0].rpartition("/")[2] or None


def _from_classes(table: Table, columns: Sequence[int], unclear: UnclearLabels, positive: str | None) -> RowLabels:
    """Return the name of the class column that holds 1 in each row."""
    names = [table.columns[j] for j in columns]
    if positive is not None:
        if positive not in names:
            raise ValueError(f"{table.file} has no column of the class {positive!r}: it has {short_list(names, 12)}")
        j = columns[names.index(positive)]
        texts = [positive if whole_number(row[j]) == 1 else f"not {positive}" for row in table.rows]
        return RowLabels([*texts], f"column {positive}")
    labels: list[str | None] = []
    for row in table.rows:
        ones = [name for name, j in zip(names, columns, strict=True) if whole_number(row[j]) == 1]
        labels.append(ones[0] if len(ones) == 1 else None)
    odd = [row for row, label in enumerate(labels) if label is None]
    if odd and unclear == "refuse":
        raise ValueError(
            f"{len(odd)} of {len(labels)} rows of {table.file} do not have exactly one 1 in the columns "
            f"{short_list(names)}, such as line {table.lines[odd[0]]}: {_SKIP}, or train on one class against all "
            f"others with --set data.table.positive={names[0]}"
        )
    left_out = (f"rows left out: {len(odd)} without exactly one 1",) if odd else ()
    return RowLabels(labels, f"the column with a 1 of {short_list(names, 12)}", left_out)


def _rows_with_several(cells: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Return the labels of each row whose cell holds several, by the position of the row.

    They are joined by "|" in a cell from JSON; by another separator only if each of them is also the label of a row.
    """
    distinct = set(cells)
    several = {}
    for cell in distinct:
        for separator in _BETWEEN:
            parts = tuple(part.strip() for part in cell.split(separator) if part.strip())
            if len(parts) > 1 and (separator == SEVERAL or all(part in distinct for part in parts)):
                several[cell] = parts
                break
    return {row: several[cell] for row, cell in enumerate(cells) if cell in several}
