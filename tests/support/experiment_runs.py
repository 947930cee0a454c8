"""Small runs of the long-tail recipe on the digits, and a record of what a run reads."""

from dataclasses import replace

from nc_tools._support.signals import StopSignal
from nc_tools.experiment import Protocol
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import RunData
from nc_tools.experiment.run_job import run_job
from support.recipe_commands import RECIPES, recipe_module

recipe = recipe_module(next(path for path in RECIPES if path.stem == "long_tail"))
PROTOCOL = Protocol(curve_points=2)
EPOCHS = 3


def config_of(arm, **training):
    config = recipe.ARMS[arm]
    return replace(config, training=replace(config.training, epochs=EPOCHS, **training))


def job_of(root, kind, arm="linear", seed=0, draw=0, config=None, **more):
    return Job(
        kind=kind,
        arm=arm,
        config=config or config_of(arm),
        seed=seed,
        draw=draw,
        root=root,
        experiment="test",
        suite="suite",
        protocol=PROTOCOL,
        device="cpu",
        **more,
    )


def make(job):
    """Make a run that must not fail; return its result and the progress that it reported."""
    progress = []
    result = run_job(job, progress.append, StopSignal())
    assert result.error is None, result.error
    return result, progress


class Reads:
    """Which images of which set are read, and how, by a patch of the run's data."""

    def __init__(self, monkeypatch):
        self.made = []
        plain, training = RunData.plain_batches, RunData.training_batches

        def plain_batches(data, images, indices=None):
            (name,) = (n for n, value in vars(data.sources).items() if value is images)
            self.made.append(("read", name, indices))
            return plain(data, images, indices)

        def training_batches(data, indices, *views, **drawn):
            self.made.append(("train", "train", indices))
            return training(data, indices, *views, **drawn)

        monkeypatch.setattr(RunData, "plain_batches", plain_batches)
        monkeypatch.setattr(RunData, "training_batches", training_batches)

    def of(self, name, how="read"):
        return [indices for *read, indices in self.made if read == [how, name]]
