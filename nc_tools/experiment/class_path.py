"""The dotted path by which a run's record names a class."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def path_of(cls: type[Any]) -> str:
    """Return the dotted import path of a class, which is the same in every process.

    A class of the script itself is in ``__main__``, and in a worker in ``__mp_main__``: its path is the one under which
    the script can be imported.

    Raises:
        ValueError: If the class is defined inside a function or another class, where it cannot be imported from.

    Example:
        >>> path_of(Path)
        'pathlib.Path'
    """
    module = cls.__module__
    if "." in cls.__qualname__:
        raise ValueError(
            f"cannot write {cls.__qualname__} into a run's record, because it is defined inside a function or a class "
            f"and cannot be imported: move it to the top level of {module}"
        )
    if module in ("__main__", "__mp_main__"):
        main = sys.modules[module]
        origin = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        module = origin.name if origin is not None else Path(file).stem if file is not None else module
    return f"{module}.{cls.__qualname__}"
