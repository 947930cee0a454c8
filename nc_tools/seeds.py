"""Named random streams: one seed, many independent generators.

A single global generator couples everything that draws from it: a head that draws one extra number reorders the
data, and two arms of a comparison silently stop being paired. Here each purpose has a stream of its own, hashed from
(seed, name, keys), so that an arm that changes one stream changes nothing else.
"""

import hashlib
from typing import Literal, get_args

import torch

StreamName = Literal[
    "subset", "holdout", "init", "head", "frame", "order", "augment", "noise", "transfer", "subsample",
    "sampling", "mix", "outliers",
]  # fmt: skip


def stream_seed(seed: int, name: StreamName, *keys: int) -> int:
    """Return the 63-bit seed of the stream ``name`` under ``seed``; further ``keys`` split it (epoch, step).

    Example:
        >>> stream_seed(0, "order", 3) == stream_seed(0, "order", 3)
        True
        >>> stream_seed(0, "order", 3) == stream_seed(0, "augment", 3)
        False

    Raises:
        ValueError: If ``name`` is not one of the named streams.
    """
    if name not in get_args(StreamName):
        raise ValueError(f"a random stream must be one of {', '.join(get_args(StreamName))}, got {name!r}")
    text = "/".join([str(int(seed)), name, *(str(int(key)) for key in keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, name: StreamName, *keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator at the start of the named stream.

    Args:
        seed: The run's seed.
        name: What the numbers are for.
        keys: Integers that split the stream, such as the epoch: a loop that asks for ``(seed, "order", epoch)`` can be
            resumed at any epoch without saving a generator's state.
        device: Where the generator draws.

    Example:
        >>> a = torch.rand(2, generator=stream(7, "init"))
        >>> b = torch.rand(2, generator=stream(7, "init"))
        >>> bool((a == b).all())
        True
    """
    return torch.Generator(device=device).manual_seed(stream_seed(seed, name, *keys))
