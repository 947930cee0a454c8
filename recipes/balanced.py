"""Balanced images: does inducing neural collapse help when every class has the same number of images?

The default data are scikit-learn's digits: 7 classes to train on and 3 held out to measure transfer. 5 arms with 5
seeds, each with a fixed frame of its own, take about two minutes on 2 CPU cores; --arms all adds the others. For your
own images give --data imagefolder:PATH. Results are in benchmarks/results/.

Collapse can be built into the head (etf, with cross-entropy or dot regression), or a loss term can encourage it
(linear_nc: features close to their class center, class centers apart; linear_supcon: features of a class close to each
other), or it can come from training alone (linear). The control is a frozen head with random class vectors: it shows
the effect of freezing alone.
"""

from dataclasses import replace
from pathlib import Path

from nc_tools.data import DataConfig
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, TunedParameter, run_recipe
from nc_tools.heads import CosineHead, ETFHead, FrozenRandomHead, LinearHead
from nc_tools.losses import (
    ClassCompactnessLoss,
    ClassSpreadLoss,
    CrossEntropyLoss,
    DotRegressionLoss,
    NTCELoss,
    SupConLoss,
    WeightedSumLoss,
    term,
)
from nc_tools.specs import spec
from nc_tools.training import TrainConfig

BASE = RunConfig(
    data=DataConfig("digits", held_out_classes=3),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(name="conv", width=8),
    training=TrainConfig(epochs=40, batch_size=64),
)
CE = term(1.0, spec(CrossEntropyLoss))
NC = spec(WeightedSumLoss, terms=(CE, term(0.01, spec(ClassCompactnessLoss)), term(0.1, spec(ClassSpreadLoss))))
CONTRAST = spec(WeightedSumLoss, terms=(CE, term(0.5, spec(SupConLoss))))
SCALE = TunedParameter(path="head.scale", values=(4.0, 16.0))
ETF = replace(BASE, head=spec(ETFHead), tuned=SCALE)

ARMS = {
    "linear": BASE,  # the baseline, against which the others are compared
    "cosine": replace(BASE, head=spec(CosineHead)),
    "etf": ETF,
    "etf_dr": replace(BASE, head=spec(ETFHead), loss=spec(DotRegressionLoss)),
    "linear_nc": replace(BASE, loss=NC),
    "etf_nc": replace(ETF, loss=NC),
    "linear_supcon": replace(BASE, loss=CONTRAST),
    "etf_supcon": replace(ETF, loss=CONTRAST),
    "cosine_ntce": replace(
        BASE,
        head=spec(CosineHead, scale=None),
        loss=spec(NTCELoss),
        tuned=TunedParameter(path="loss.temperature", values=(0.05, 0.2)),
    ),
    "etf_ntce": replace(
        BASE, head=spec(ETFHead), loss=spec(NTCELoss), tuned=TunedParameter(path="loss.temperature", values=(0.05, 0.2))
    ),
    "random": replace(BASE, head=spec(FrozenRandomHead), tuned=SCALE),  # control: frozen as etf, but no ETF
}
DEFAULT = ("linear", "etf", "etf_dr", "linear_nc", "random")

# The fair reference of a fixed head with another loss is the learned head with that loss. ETF against random vectors
# shows what the ETF adds to a frozen head.
PROTOCOL = Protocol(
    references={"etf_nc": "linear_nc", "etf_supcon": "linear_supcon", "etf_ntce": "cosine_ntce", "etf": "random"},
)

if __name__ == "__main__":
    run_recipe(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL, default_arms=DEFAULT)
