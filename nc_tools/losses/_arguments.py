"""Checks of arguments that several losses share."""

from __future__ import annotations

import math


def check_temperature(temperature: float) -> None:
    """Check that a temperature is positive and finite.

    Raises:
        ValueError: If it is not.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")


def check_weights(alpha: float, beta: float) -> None:
    """Check that the weights of the two parts of a loss are finite and not negative.

    Raises:
        ValueError: If one is not.
    """
    if not (0 <= alpha < math.inf and 0 <= beta < math.inf):
        raise ValueError(f"alpha and beta must be finite and not negative, got alpha={alpha}, beta={beta}")


def check_log_zero(log_zero: float) -> None:
    """Check that the value that stands for log 0 is negative and finite.

    Raises:
        ValueError: If it is not.
    """
    if not -math.inf < log_zero < 0:
        raise ValueError(f"log_zero must be negative and finite, got {log_zero}. The paper uses -4.0.")
