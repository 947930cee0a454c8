"""Training interventions that use neural collapse: swap-in heads, losses, and a fair paired comparison."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from nc_tools.class_moments import ClassMoments
    from nc_tools.measuring import measure
    from nc_tools.metrics import expected_calibration_error, neural_collapse

__all__ = ["ClassMoments", "expected_calibration_error", "measure", "neural_collapse"]

# Imported when asked for: the command's --help must not wait for PyTorch.
_HOMES = {
    "ClassMoments": "nc_tools.class_moments",
    "expected_calibration_error": "nc_tools.metrics",
    "measure": "nc_tools.measuring",
    "neural_collapse": "nc_tools.metrics",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
