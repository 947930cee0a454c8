"""The nearest names for one that was mistyped."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error sentence: the nearest known names, or the list of them.

    Example:
        >>> did_you_mean("scal", ["scale", "projection"])
        "did you mean 'scale'?"
        >>> did_you_mean("zzz", ["scale", "bias"])
        'it must be one of bias, scale'
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    if len(names) > 30:
        return f"there are {len(names)}, such as {', '.join(names[:10])}"
    return f"it must be one of {', '.join(names)}" if names else "none is known"
