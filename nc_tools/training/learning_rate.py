"""The learning-rate schedule."""

import math

from nc_tools.training.train_config import OptimConfig


def rate_factor(step: int, total: int, config: OptimConfig) -> float:
    """Return the learning rate at a step, as a factor of the peak rate.

    The rate rises linearly over the first ``warmup`` share of the steps and reaches the peak at the last of them. Then
    it follows half a cosine to zero, or falls at the milestones. If the head is trained first (``head_first``), those
    steps and the rest each have this schedule.

    Args:
        step: Number of the step, from 0 to total - 1.
        total: Number of steps of the training.
        config: The schedule.

    Raises:
        ValueError: If the step is not one of the training's.

    Example:
        >>> c = OptimConfig(warmup=0.1)
        >>> [round(rate_factor(s, 100, c), 3) for s in (0, 9, 10, 55, 99)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if not 0 <= step < total:
        raise ValueError(f"step must be from 0 to {total - 1} in a training of {total} steps, got {step}")
    first = head_only_steps(total, config)
    if step < first:
        return _factor(step, first, config)
    return _factor(step - first, total - first, config)


def head_only_steps(total: int, config: OptimConfig) -> int:
    """Return the number of steps at the start of a training in which only the head is trained.

    Example:
        >>> head_only_steps(100, OptimConfig(head_first=0.25))
        25
    """
    return min(total - 1, round(config.head_first * total))


def _factor(step: int, total: int, config: OptimConfig) -> float:
    warmup = round(config.warmup * total)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "step":
        return config.gamma ** sum(step >= round(m * total) for m in config.milestones)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
