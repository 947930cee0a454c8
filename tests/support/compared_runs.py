"""Runs of a comparison from plain numbers, without files."""

from nc_tools.comparison import ComparedRun

PRIMARY = "test/gen/balanced_accuracy"


def run(arm, seed, value, draw=0, status="FINISHED", **more):
    final = {PRIMARY: value} if status == "FINISHED" else {}
    return ComparedRun(arm, seed, draw, status, final, **more)


def runs(**arms):
    return [run(arm, seed, value) for arm, values in arms.items() for seed, value in enumerate(values)]


LINEAR = [0.70, 0.71, 0.69, 0.72, 0.70]
BETTER = [0.75, 0.755, 0.745, 0.768, 0.751]
WORSE = [0.65, 0.665, 0.645, 0.672, 0.648]
SAME = [0.71, 0.70, 0.70, 0.715, 0.695]
