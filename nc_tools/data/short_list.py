"""Shorten names and values from files, so that they fit into an error message."""

from collections.abc import Sequence


def short_list(names: Sequence[str], most: int = 5) -> str:
    """Return names separated by commas: the first few, and how many more there are.

    Example:
        >>> short_list(["ape", "bat"]), short_list(list("abcdefg"))
        ('ape, bat', 'a, b, c, d, e and 2 more')
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def quoted(text: str, most: int = 60) -> str:
    """Return text from a file in quotation marks, cut to at most ``most`` characters.

    Example:
        >>> quoted("ape"), quoted("x" * 99, most=5)
        ("'ape'", "'xxxxx'...")
    """
    return repr(text) if len(text) <= most else f"{text[:most]!r}..."
