"""Linear and logarithmic axes of a plot, with ticks at round values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """An axis of a plot: a linear or logarithmic map from data values to [0, 1].

    Attributes:
        low: Data value at 0.
        high: Data value at 1, above ``low``.
        log: Whether the scale is logarithmic. Both ends must then be positive.
    """

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Map a data value to [0, 1]; values beyond an end of the axis are clipped."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def ticks(self, most: int = 5) -> list[float]:
        """Return about ``most`` round values on the axis for its ticks."""
        return self._log_ticks(most) if self.log else self._linear_ticks(most)

    def _linear_ticks(self, most: int) -> list[float]:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step_size = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step_size - 1e-9)
        return [n * step_size for n in range(first, math.floor(self.high / step_size + 1e-9) + 1)]

    def _log_ticks(self, most: int) -> list[float]:
        exponents = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
        if len(exponents) >= 3:
            return [10.0**e for e in exponents][:: max(1, math.ceil(len(exponents) / most))]
        # Fewer than three powers of ten: add round values between them until there are three ticks.
        for mantissas in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            candidates = [m * 10.0**e for e in range(-30, 31) for m in mantissas]
            ticks = [tick for tick in candidates if self.low <= tick <= self.high]
            if len(ticks) >= 3:
                break
        return ticks


def axis_over(values: Sequence[float], *, log: bool = False, margin: float = 0.05) -> Axis:
    """Return an axis that covers the finite values (positive ones if ``log``) with a margin.

    Without such a value the axis covers 0.1 to 1, with the same margin.
    """
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(finite), max(finite)) if finite else (0.1, 1.0)
    if log:
        pad = max((high / low) ** margin, 1.1)
        return Axis(low / pad, high * pad, log=True)
    pad = (high - low) * margin or max(abs(high), 1.0) * margin
    return Axis(low - pad, high + pad)
