"""Small comparisons of heads on embeddings."""

from dataclasses import replace

import numpy as np
import torch

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.data import DataConfig
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, TunedParameter
from nc_tools.experiment.on_features.heads_job import HeadsJob, make_heads
from nc_tools.experiment.on_features.one_seed import OneSeed
from nc_tools.experiment.on_features.seed_runs import make_seeds, trial_scores
from nc_tools.experiment.plan import Plan
from nc_tools.features import GivenFeatures
from nc_tools.heads import LEARNED, CosineHead, ETFHead, LinearHead, ProxyHead
from nc_tools.losses import CrossEntropyLoss, LogitAdjustedLoss
from nc_tools.specs import spec
from nc_tools.training import ClassMeanStart, LeastSquaresStart, OptimConfig, TauNormalize, TrainConfig

D, K = 6, 3
COUNTS = (40, 24, 12)


def embeddings(folder, seed=0, shift=2.0, **more):
    """An imbalanced embedding file; a third of each class is for testing."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(K), COUNTS)
    centers = shift * random.normal(size=(K, D))
    features = (centers[labels] + random.normal(size=(len(labels), D))).astype(np.float32)
    split = np.where(np.arange(len(labels)) % 3 == 0, "test", "train")
    path = folder / "embeddings.npz"
    np.savez(path, **({"features": features, "labels": labels, "split": split} | more))
    return path


def base_of(path, **data):
    return RunConfig(
        head=spec(LinearHead),
        loss=spec(CrossEntropyLoss),
        data=DataConfig(f"embeddings:{path}", **data),
        model=ModelConfig(network=spec(GivenFeatures), train="head", standardize=True),
        optim=OptimConfig(optimizer=spec(torch.optim.AdamW), weight_decay=0.01),
        training=TrainConfig(epochs=3, batch_size=8, precision="float32"),
        tuned=TunedParameter(values=(0.1,)),
    )


def arms_of(base):
    """Arms of every sort: packed, one that cannot be packed, a second stage, and heads in closed form."""
    untrained = replace(base.training, epochs=0)
    return {
        "linear": base,
        "linear_la": replace(base, loss=spec(LogitAdjustedLoss)),
        "cosine": replace(base, head=spec(CosineHead)),
        "etf": replace(base, head=spec(ETFHead, projection=True, scale=LEARNED)),
        "proxies": replace(base, head=spec(ProxyHead, num_proxies=2)),
        "tau": replace(
            base, second_stage=TauNormalize(tau=0.5), tuned=TunedParameter(path="second_stage.tau", values=(1.0,))
        ),
        "means": replace(
            base, head=spec(CosineHead), start=ClassMeanStart(), training=untrained, tuned=TunedParameter(values=())
        ),
        "least_squares": replace(
            base,
            start=LeastSquaresStart(ridge=0.1),
            training=untrained,
            tuned=TunedParameter(path="start.ridge", values=(1.0, 0.01, 10.0)),
        ),
    }


def plan_of(arms, seeds=(0, 1), **protocol):
    rules = {"rates": (0.01, 0.1), "max_extensions": 0, "curve_points": 1} | protocol
    return Plan(name="heads", question="?", arms=arms, protocol=Protocol(seeds=seeds, tune_each_seed=True, **rules))


def run_plan_of(plan, path, root, seeds=None, *, on_progress=None, stop=None):
    """Make the runs of a plan in this process; return how it ended and the progress that was reported."""
    progress, root, seeds = [], root.resolve(), tuple(seeds or plan.protocol.seeds)
    ended = trial_scores(root, plan)

    def make(stage, runs):
        if not runs:
            return []
        job = HeadsJob(
            stage=stage, runs=tuple(runs), seeds=frozenset(seeds), features=path, scores=ended.folder,
            metric=ended.metric,
        )  # fmt: skip
        result = make_heads(job, on_progress or progress.append, stop or StopSignal())
        if result.status == "KILLED":
            raise Killed(result.error)
        return result.runs

    try:
        lost = make_seeds([OneSeed(plan, seed, path, root, "cpu", ended) for seed in seeds], ended, make)
    except Killed:
        return "KILLED", progress
    assert not lost
    return "FINISHED", progress
