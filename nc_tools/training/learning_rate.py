"""Learning rate as a function of progress."""

import math

from nc_tools.training.train_config import OptimConfig


def rate_factor(step: int, total: int, config: OptimConfig) -> float:
    """Return what the peak rate is multiplied with at a step.

    Linear warm-up over the first ``warmup`` share, reaching one at its last step; then cosine to zero, or steps.

    Args:
        step: From 0 to total - 1.
        total: Steps in the whole training.
        config: Schedule.

    Raises:
        ValueError: If the step lies outside the training.

    Example:
        >>> c = OptimConfig(warmup=0.1)
        >>> [round(rate_factor(s, 100, c), 3) for s in (0, 9, 10, 55, 99)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if not 0 <= step < total:
        raise ValueError(f"a training of {total} steps has steps 0 to {total - 1}, got {step}")
    warmup = round(config.warmup * total)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "step":
        return config.gamma ** sum(step >= round(m * total) for m in config.milestones)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
