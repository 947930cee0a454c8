"""Coarse to fine: after training on groups of classes, which features still separate the classes of a group?

Full collapse to one point for each group would lose the difference between its classes. Five arms: cross-entropy with a
linear head and with a fixed ETF head, SupCon, and two that keep the images of a group apart, Spread and a
nearest-neighbor entropy term. The primary metric is the accuracy of a logistic probe, which is fitted on the frozen
features of the training images and predicts the fine classes of the test images. Learning rates and tuned parameters
are chosen by coarse accuracy on a hold-out.

A contrastive loss alone does not train the head, so SupCon, Spread and the entropy term are added to cross-entropy:
every arm is a classifier of the coarse groups, tuned as such, and both losses train its features.

The default data are scikit-learn's digits as even and odd, with 5 seeds: about two minutes on 2 CPU cores. For other
data give --data cifar10 --set data.coarse=cifar10-animals, or --data imagefolder:PATH --set data.coarse=FILE.csv, a
file with a row for each class and the columns class and coarse. Results are in benchmarks/results/.
"""

from dataclasses import replace
from pathlib import Path

from nc_tools.data import DataConfig
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, run_recipe
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss, FeatureEntropyLoss, SpreadLoss, SupConLoss, WeightedSumLoss, term
from nc_tools.specs import spec
from nc_tools.training import TrainConfig

BASE = RunConfig(
    data=DataConfig("digits", coarse="digits-parity"),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(name="conv", width=8),
    training=TrainConfig(epochs=20, batch_size=64),
)
CE = term(1.0, spec(CrossEntropyLoss))

ARMS = {
    "linear": BASE,  # the baseline, against which the others are compared
    "etf": replace(BASE, head=spec(ETFHead)),
    "supcon": replace(BASE, loss=spec(WeightedSumLoss, terms=(CE, term(1.0, spec(SupConLoss))))),
    "spread": replace(BASE, loss=spec(WeightedSumLoss, terms=(CE, term(1.0, spec(SpreadLoss))))),
    "entropy": replace(BASE, loss=spec(WeightedSumLoss, terms=(CE, term(0.05, spec(FeatureEntropyLoss))))),  # control
}

PROTOCOL = Protocol(primary="transfer/probe/accuracy", rank_layers=True)

if __name__ == "__main__":
    run_recipe(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL)
