"""Suggest the names that are most similar to a mistyped one."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return the end of an error message: the valid names most similar to ``name``, or all of them if none is similar.

    Example:
        >>> did_you_mean("scal", ["scale", "projection"])
        "did you mean 'scale'?"
        >>> did_you_mean("zzz", ["scale", "bias"])
        'it must be one of bias, scale'
    """
    names = sorted(set(valid))
    similar = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if similar:
        return f"did you mean {' or '.join(repr(n) for n in similar)}?"
    if len(names) > 30:
        return f"there are {len(names)}, such as {', '.join(names[:10])}"
    return f"it must be one of {', '.join(names)}" if names else "none is known"
