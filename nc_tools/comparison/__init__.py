"""Fair comparison of methods (arms), paired by seed: reads the runs' files, tests differences, writes a report."""

from nc_tools.comparison.compare import compare, compare_runs
from nc_tools.comparison.compared_run import ComparedRun, RecallByClass, read_compared_runs
from nc_tools.comparison.export import long_rows
from nc_tools.comparison.read_experiment import Experiment, read_experiment
from nc_tools.comparison.report_files import report_folder, write_comparison
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.terminal import render_terminal

__all__ = [
    "ComparedRun",
    "Comparison",
    "Experiment",
    "RecallByClass",
    "compare",
    "compare_runs",
    "long_rows",
    "read_compared_runs",
    "read_experiment",
    "render_terminal",
    "report_folder",
    "write_comparison",
]
