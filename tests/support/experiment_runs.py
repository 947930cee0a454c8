"""Small jobs on the digits, and a count of what a run reads."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nc_tools._support.signals import StopSignal
from nc_tools.experiment import Protocol
from nc_tools.experiment.build import Data, open_data
from nc_tools.experiment.job import Job
from nc_tools.experiment.run import run_job

RECIPE = Path(__file__).parents[2] / "recipes" / "long_tail.py"

found = importlib.util.spec_from_file_location("long_tail", RECIPE)

recipe = importlib.util.module_from_spec(found)

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
    told = []
    result = run_job(job, told.append, StopSignal())
    assert result.error is None, result.error
    return result, told


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def data():
    return open_data(config_of("etf"), seed=0, device=torch.device("cpu"), cache=Path("unused"))


class Reads:
    """Which images of which set are read, by a patch of the sets themselves."""

    def __init__(self, monkeypatch):
        self.seen = []
        plain, training = Data.plain_batches, Data.training_batches

        def plain_batches(data, images, indices=None):
            (name,) = (n for n, value in vars(data.sources).items() if value is images)
            self.seen.append(("read", name, indices))
            return plain(data, images, indices)

        def training_batches(data, indices, *views, **drawn):
            self.seen.append(("train", "train", indices))
            return training(data, indices, *views, **drawn)

        monkeypatch.setattr(Data, "plain_batches", plain_batches)
        monkeypatch.setattr(Data, "training_batches", training_batches)

    def of(self, name, what="read"):
        return [indices for kind, seen, indices in self.seen if (kind, seen) == (what, name)]
