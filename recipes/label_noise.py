"""Wrong labels: does a fixed ETF head memorize fewer of them, and does it help losses that are made for label noise?

The default data are scikit-learn's digits; 40 % of the training labels are drawn to be wrong. There are no crops,
because with crops this small network would memorize little. 5 arms with 5 seeds, each with a fixed frame of its own,
take about two minutes on 2 CPU cores; --arms all adds the others.

Everything is tuned on noisy labels, temperatures too, so all arms are underconfident on the test set, whose labels are
true. Each final run lists the training labels that are most likely wrong in its suspects.csv.

For other noise give --noise pair:.3, instance:.4 or asymmetric:.4, or --set "data.noise=MatrixNoise(...)". No noise is
drawn onto your own images (--data imagefolder:PATH or table:FILE) unless you ask for it. For human label noise give
--data imagefolder:CIFAR10 --labels cifar10n.csv:worse --clean data: the folders have the true labels, which are for
measures only. For labels that you have corrected add --corrections decisions.csv.
"""

from dataclasses import replace
from pathlib import Path

from nc_tools.data import DataConfig, SymmetricNoise
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, TunedParameter, run_recipe
from nc_tools.heads import LEARNED, CosineHead, ETFHead, FrozenRandomHead, LinearHead
from nc_tools.losses import (
    CrossEntropyLoss,
    EarlyLearningLoss,
    ForwardCorrectionLoss,
    GeneralizedCrossEntropyLoss,
    LabelRelaxationLoss,
    NCEAndMAELoss,
    NCEAndRCELoss,
    SymmetricCrossEntropyLoss,
)
from nc_tools.specs import spec
from nc_tools.training import TrainConfig

BASE = RunConfig(
    data=DataConfig("digits", noise=SymmetricNoise(0.4), crop_padding=0),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(name="conv", width=8),
    training=TrainConfig(epochs=40, batch_size=64),
)
AVERAGED = replace(BASE, training=replace(BASE.training, ema_decay=0.99))
ETF = replace(BASE, head=spec(ETFHead), tuned=TunedParameter(path="head.scale", values=(4.0, 16.0)))

# Every linear arm tries two more values of one setting: weight decay, or one parameter of the loss. Published weights
# of loss terms differ between CIFAR-10 and CIFAR-100. SCE: .1 and 60 (6 against .1). NCE + MAE and NCE + RCE: 1, and 10
# to 100. ELR: 3 and 7.
WEIGHTS = {
    "gce": TunedParameter(path="loss.q", values=(0.4, 0.9)),
    "sce": TunedParameter(path="loss.alpha", values=(1.0, 60.0)),
    "nce": TunedParameter(path="loss.alpha", values=(10.0, 100.0)),
    "elr": TunedParameter(path="loss.strength", values=(1.0, 7.0)),
}

ARMS = {
    "linear": BASE,  # the baseline, against which the others are compared
    "linear_decay": replace(BASE, tuned=TunedParameter(path="optim.weight_decay", values=(5e-3, 5e-2))),  # control: L2
    "linear_stop": replace(BASE, training=replace(BASE.training, patience=5)),  # ends at the best epoch on the hold-out
    "linear_smoothing": replace(BASE, loss=spec(CrossEntropyLoss, label_smoothing=0.1)),
    "cosine": replace(BASE, head=spec(CosineHead)),
    "cosine_gce": replace(BASE, head=spec(CosineHead), loss=spec(GeneralizedCrossEntropyLoss), tuned=WEIGHTS["gce"]),
    "linear_relaxation": replace(BASE, loss=spec(LabelRelaxationLoss)),
    "linear_gce": replace(BASE, loss=spec(GeneralizedCrossEntropyLoss), tuned=WEIGHTS["gce"]),
    "linear_sce": replace(BASE, loss=spec(SymmetricCrossEntropyLoss), tuned=WEIGHTS["sce"]),
    "linear_nce_rce": replace(BASE, loss=spec(NCEAndRCELoss), tuned=WEIGHTS["nce"]),
    "linear_nce_mae": replace(BASE, loss=spec(NCEAndMAELoss), tuned=WEIGHTS["nce"]),
    "linear_elr": replace(BASE, loss=spec(EarlyLearningLoss), tuned=WEIGHTS["elr"]),
    "linear_ema": AVERAGED,
    "etf": ETF,
    "etf_unnormalized": replace(BASE, head=spec(ETFHead, normalize=False)),
    "etf_relaxation": replace(ETF, loss=spec(LabelRelaxationLoss)),
    "etf_gce": replace(ETF, loss=spec(GeneralizedCrossEntropyLoss)),
    "etf_sce": replace(ETF, loss=spec(SymmetricCrossEntropyLoss)),
    "etf_nce_rce": replace(ETF, loss=spec(NCEAndRCELoss)),
    "etf_elr": replace(ETF, loss=spec(EarlyLearningLoss)),
    "etf_ema": replace(ETF, training=AVERAGED.training),
    "random": replace(BASE, head=spec(FrozenRandomHead, projection=True, scale=LEARNED)),  # control: frozen, but no ETF
    "linear_forward": replace(BASE, loss=spec(ForwardCorrectionLoss)),  # trains twice: the noise is estimated first
}
DEFAULT = ("linear", "linear_gce", "linear_elr", "etf", "etf_elr")

# The fair reference of an ETF head with another loss is the linear head with that loss.
PROTOCOL = Protocol(
    suspects=2000,
    references={a: "linear_" + a[4:] for a in ARMS if a.startswith("etf_") and "linear_" + a[4:] in ARMS},
)

if __name__ == "__main__":
    run_recipe(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL, default_arms=DEFAULT)
