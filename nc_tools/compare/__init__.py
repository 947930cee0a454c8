"""The referee: pairs the arms of a comparison by seed and says what can be said, and what cannot."""

from nc_tools.compare.build import compare, compare_runs
from nc_tools.compare.export import long_rows
from nc_tools.compare.load import ComparedRun, Experiment, PerClass, read_experiment, read_runs
from nc_tools.compare.report import write_report
from nc_tools.compare.result import Comparison
from nc_tools.compare.terminal import render_terminal

__all__ = [
    "ComparedRun",
    "Comparison",
    "Experiment",
    "PerClass",
    "compare",
    "compare_runs",
    "long_rows",
    "read_experiment",
    "read_runs",
    "render_terminal",
    "write_report",
]
