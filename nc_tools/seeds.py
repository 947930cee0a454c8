"""Named random streams: many independent generators from one seed.

With one global generator, everything that draws from it is coupled: a head that draws one more number changes the order
of the data, and two arms of a comparison are no longer paired. Here each purpose has its own stream, whose seed is a
hash of (seed, name, keys). An arm that draws more from one stream changes no other stream.
"""

import hashlib
from typing import Literal, get_args

import torch

StreamName = Literal[
    "subset", "holdout", "init", "head", "frame", "order", "augment", "noise", "transfer", "subsample",
    "sampling", "mix", "outliers", "split",
]  # fmt: skip


def stream_seed(seed: int, name: StreamName, *keys: int) -> int:
    """Return the seed of a named random stream, a 63-bit integer.

    Args:
        seed: The run's seed.
        name: What the random numbers are for.
        keys: Integers that split the stream, such as epoch and step.

    Example:
        >>> stream_seed(0, "order", 3) == stream_seed(0, "order", 3)
        True
        >>> stream_seed(0, "order", 3) == stream_seed(0, "augment", 3)
        False

    Raises:
        ValueError: If there is no stream of this name.
    """
    if name not in get_args(StreamName):
        raise ValueError(f"a random stream must be one of {', '.join(get_args(StreamName))}, got {name!r}")
    text = "/".join([str(int(seed)), name, *(str(int(key)) for key in keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, name: StreamName, *keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new random generator at the start of a named random stream.

    Args:
        seed: The run's seed.
        name: What the random numbers are for.
        keys: Integers that split the stream, such as the epoch. A loop that draws from ``(seed, "order", epoch)`` can
            resume at any epoch without a stored generator state.
        device: The generator's device.

    Raises:
        ValueError: If there is no stream of this name.

    Example:
        >>> a = torch.rand(2, generator=stream(7, "init"))
        >>> b = torch.rand(2, generator=stream(7, "init"))
        >>> bool((a == b).all())
        True
    """
    return torch.Generator(device=device).manual_seed(stream_seed(seed, name, *keys))
