"""A value as it is shown in an error message, however large it is."""

from __future__ import annotations

import reprlib

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlevel = 3


def short_repr(value: object) -> str:
    """Return the ``repr`` of a value, shortened in the middle: a damaged file may hold megabytes in one value.

    Control characters are escaped, as ``repr`` does.

    Example:
        >>> short_repr("a" * 1000), short_repr(["x", 2])
        ("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'", "['x', 2]")
    """
    return _REPR.repr(value)
