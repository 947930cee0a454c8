"""Shards of a webdataset: tar files with an image and a label for each sample, unpacked into image files and a table.

The files of a sample are in one shard, and their paths agree up to the first dot of the name: ``0001.jpg`` and
``0001.cls``.
"""

from __future__ import annotations

import csv
import json
import lzma
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nc_tools._support.printable import printable
from nc_tools._support.short_repr import short_repr
from nc_tools.data.short_list import short_list
from nc_tools.data.split_words import split_role_and_rest
from nc_tools.data.unpack_once import TABLE, unpack_once
from nc_tools.decoding.image_file import image_suffixes

IMAGE, PART, LABEL = "image_file", "split", "cls"
"""Columns of the table of unpacked images."""
_SHARDS = (".tar", ".tgz", ".tar.gz")
_LARGEST_LABEL = 1 << 20
_BLOCK = 512
_NAMED = 20
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


def unpack_webdataset(path: Path) -> Path:
    """Unpack the shards of a webdataset and return the folder of images and table.

    ``KEY.cls`` holds the label of the sample KEY. The fields of ``KEY.json`` and the text of ``KEY.txt`` are further
    columns of the table. A shard whose name or folder has a word for a part of the data, such as ``train-000017.tar``,
    belongs to that part.

    Args:
        path: A shard, a folder of shards, or a pattern such as ``train-{000..017}.tar`` or ``*.tar``.

    Raises:
        FileNotFoundError: If a shard is missing.
        ValueError: If shards are damaged or cut short, a sample has no image or two, a file of labels cannot be read,
            or no sample has a label.
    """
    shards = find_shards(path)
    return unpack_once(path, shards, lambda folder: _write(folder, shards))


def find_shards(path: Path) -> list[Path]:
    """Return the shards that a path or a pattern names, sorted.

    Raises:
        FileNotFoundError: If there is none, or one of a pattern in braces is missing.
    """
    if path.is_dir():
        shards = [file for file in path.rglob("*") if file.name.endswith(_SHARDS) and file.is_file()]
    else:
        named = [Path(text) for text in expand_braces(str(path))]
        shards = [file for name in named for file in (_matching(name) if "*" in str(name) else [name])]
    if missing := [str(file) for file in shards if not file.is_file()]:
        raise FileNotFoundError(f"{len(missing)} of {len(shards)} shards do not exist: {short_list(missing)}")
    if not shards:
        raise FileNotFoundError(f"there is no shard (*.tar) at {path}: check the path")
    return sorted(set(shards))


def expand_braces(text: str) -> list[str]:
    """Return the names that a pattern stands for: ``{000..012}`` is a range of numbers, ``{a,b}`` a list.

    Example:
        >>> expand_braces("train-{08..10}.tar")
        ['train-08.tar', 'train-09.tar', 'train-10.tar']
        >>> expand_braces("{train,val}-{0..1}.tar")
        ['train-0.tar', 'train-1.tar', 'val-0.tar', 'val-1.tar']
    """
    braces = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", text)
    if braces is None:
        return [text]
    first, last, names = braces.groups()
    values = names.split(",") if names else [str(i).zfill(len(first)) for i in range(int(first), int(last) + 1)]
    rest = expand_braces(text[braces.end() :])
    return [f"{text[: braces.start()]}{value}{tail}" for value in values for tail in rest]


def _matching(pattern: Path) -> list[Path]:
    parts = pattern.parts
    fixed = next(i for i, part in enumerate(parts) if "*" in part)
    return [file for file in Path(*parts[:fixed]).glob("/".join(parts[fixed:])) if file.is_file()]


def _write(folder: Path, shards: list[Path]) -> None:
    """Unpack all shards into a folder, and write the table of the samples.

    Raises:
        ValueError: If shards are damaged (the message names them all), a sample has no image or two, or no sample has
            a label.
    """
    rows: list[dict[str, str]] = []
    damaged: list[str] = []
    for shard in shards:
        try:
            rows += _unpack_shard(shard, folder, _new_name(folder, shard.name.partition(".")[0], ""))
        except _DAMAGE as error:
            damaged.append(f"{shard} ({error})")
    if damaged:
        raise ValueError(
            f"{len(damaged)} of {len(shards)} shards are damaged or cut short: {short_list(damaged, _NAMED)}. Copy "
            "them again, or leave them out of the pattern"
        )
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if {IMAGE, PART} >= set(columns):
        raise ValueError(
            f"the samples of {shards[0]} have images and no labels: each needs a file KEY.cls with its class, or "
            "KEY.json with a field for it, beside KEY.jpg"
        )
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _unpack_shard(shard: Path, folder: Path, name: str) -> list[dict[str, str]]:
    """Write the images of a shard to ``folder/name`` and return a row for each sample, in the order of the shard."""
    samples: dict[str, dict[str, str]] = {}
    names = [shard.name.partition(".")[0], shard.parent.name]
    role = next((word[0] for name in names if (word := split_role_and_rest(name))), None)
    (folder / name).mkdir()
    for key, form, member, tar in _members(shard):
        row = samples.setdefault(key, {IMAGE: "", **({PART: role} if role else {})})
        if f".{form}" in image_suffixes():
            if row[IMAGE]:
                raise ValueError(f"the sample {_named(key)} of {shard} has two images: leave one of them out")
            row[IMAGE] = f"{name}/{_new_name(folder / name, key, f'.{form}')}"
            with _opened(tar, member) as source, (folder / row[IMAGE]).open("wb") as file:
                shutil.copyfileobj(source, file)
        elif form in (LABEL, "json", "txt"):
            if member.size > _LARGEST_LABEL:
                raise ValueError(f"{_named(member.name)} of {shard} has {member.size:,} bytes, too many for a label")
            with _opened(tar, member) as source:
                cells = _cells(form, source.read(), f"{_named(member.name)} of {shard}")
            row |= {column: text for column, text in cells.items() if column == form or column not in row}
    if without := [_named(key) for key, row in samples.items() if not row[IMAGE]]:
        raise ValueError(
            f"{len(without)} of {len(samples)} samples of {shard} have no image: {short_list(without)}. Images are "
            "files such as KEY.jpg or KEY.png"
        )
    return list(samples.values())


def _members(shard: Path) -> Iterator[tuple[str, str, tarfile.TarInfo, tarfile.TarFile]]:
    """Yield the key, the form (such as "jpg"), the member and the open archive for each file of a shard.

    Raises:
        tarfile.TarError: If the shard is damaged or cut short; :mod:`tarfile` itself does not notice a missing end.
    """
    with tarfile.open(shard, "r:*") as tar:
        for member in tar:
            folder, slash, name = member.name.rpartition("/")
            key, dot, form = name.partition(".")
            if member.isfile() and dot and key:
                yield f"{folder}{slash}{key}", form.lower(), member, tar
        if (file := tar.fileobj) is not None:
            file.seek(tar.offset)
            if file.read(_BLOCK) != bytes(_BLOCK):
                raise tarfile.ReadError("the end of the archive is missing")


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    return tar.extractfile(member)


def _cells(form: str, content: bytes, what: str) -> dict[str, str]:
    """Return the cells of a row, by column, that a file of labels gives.

    Raises:
        ValueError: If the content is not text in UTF-8, or ``form`` is "json" and it is not JSON.
    """
    try:
        text = content.decode("utf-8").strip()
        value = json.loads(text) if form == "json" else text
    except (ValueError, RecursionError):
        raise ValueError(
            f"{what} cannot be read as {'JSON' if form == 'json' else 'text'}, got {short_repr(content)}: write the "
            "shard again"
        ) from None
    if not isinstance(value, dict):
        return {form: str(value)}
    return {str(name): str(cell) for name, cell in value.items() if isinstance(cell, str | int | float)}


def _new_name(folder: Path, name: str, suffix: str) -> str:
    """Return a name similar to ``name`` that is safe in any file system and not yet used in the folder."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", name)[-100:]
    number = 0
    while (folder / (new := f"{safe}{f'-{number}' if number else ''}{suffix}")).exists():
        number += 1
    return new


def _named(text: str) -> str:
    return printable(text)
