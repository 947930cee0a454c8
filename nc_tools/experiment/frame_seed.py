"""Which random frame (fixed class vectors) the head of a run gets."""

from __future__ import annotations

from nc_tools.experiment.run_config import RunConfig
from nc_tools.seeds import stream_seed


def frame_seed_of(config: RunConfig, *, seed: int, draw: int, fixed: int | None = None) -> int | None:
    """Return the seed of the frame that a run's head draws; None for a head without a frame.

    Every run has a frame of its own, drawn from (seed, draw). The mean over the runs of a seed is then independent of
    those of other seeds, so that an interval over seeds also covers other frames. Arms with different heads share the
    number at the same seed and draw.

    Args:
        config: The arm. A ``frame_seed`` in its head's spec is used at every seed.
        seed: Seed of the run.
        draw: Number of the frame within the seed.
        fixed: One frame for all seeds (``Protocol.frame_seed``); None for a frame of its own for every run.

    Returns:
        A number below 2^53, which JSON readers in every language keep exactly.

    Example:
        >>> from nc_tools.heads import ETFHead, LinearHead
        >>> from nc_tools.losses import CrossEntropyLoss
        >>> from nc_tools.specs import spec
        >>> etf = RunConfig(head=spec(ETFHead), loss=spec(CrossEntropyLoss))
        >>> frame_seed_of(etf, seed=0, draw=0) == frame_seed_of(etf, seed=1, draw=0)
        False
        >>> frame_seed_of(etf, seed=1, draw=0, fixed=7)
        7
        >>> frame_seed_of(RunConfig(head=spec(LinearHead), loss=spec(CrossEntropyLoss)), seed=0, draw=0)
    """
    if "frame_seed" not in config.head.parameter_names:
        return None
    if not config.has_draws:
        return int(config.head.arguments["frame_seed"])
    return stream_seed(seed, "frame", draw) >> 10 if fixed is None else fixed
