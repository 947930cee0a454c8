"""Long-tailed images: does a fixed ETF head help the rare classes?

Seven arms are trained by the same loop. One is a tuned linear head, with which the others are compared seed by seed.
The default data are scikit-learn's digits, where the largest class has 10 times the images of the smallest: 7 classes
to train on and 3 held out to measure transfer, with 5 seeds, each with a fixed frame of its own. This takes about two
minutes on 2 CPU cores.

--arms all adds other methods for long tails: margins, scaled logits, terms that control collapse, a contrastive loss,
and second stages that change the classifier on frozen features. For your own images give --data imagefolder:PATH: all
of them are used, with the imbalance that they have; --imbalance 100 cuts a long tail from them. Results are in
benchmarks/results/.
"""

from dataclasses import replace
from pathlib import Path

from nc_tools.data import DataConfig, Mixup
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, TunedParameter, run_recipe
from nc_tools.heads import LEARNED, CosineHead, ETFHead, FrozenRandomHead, LinearHead
from nc_tools.losses import (
    ClassCompactnessLoss,
    ClassSpreadLoss,
    CrossEntropyLoss,
    DeferredReweightingLoss,
    DotRegressionLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    NTCELoss,
    VectorScalingLoss,
    WeightedSumLoss,
    term,
)
from nc_tools.specs import spec
from nc_tools.training import LearnableWeightScaling, NearestClassMean, RetrainClassifier, TauNormalize, TrainConfig

BASE = RunConfig(
    data=DataConfig("digits", imbalance=10, tail_order="class", held_out_classes=3),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(name="conv", width=8),
    training=TrainConfig(epochs=50, batch_size=32),
)
PRIOR = spec(LogitAdjustedLoss)
NC = spec(
    WeightedSumLoss,
    terms=(term(1.0, spec(CrossEntropyLoss)), term(0.01, spec(ClassCompactnessLoss)), term(0.1, spec(ClassSpreadLoss))),
)
RATIO = TunedParameter(path="second_stage.lr_ratio", values=(0.3, 3.0))

ARMS = {
    "linear": BASE,  # the baseline, against which the others are compared
    "linear_la": replace(BASE, loss=PRIOR),
    "cosine_la": replace(BASE, head=spec(CosineHead), loss=PRIOR),
    "etf": replace(BASE, head=spec(ETFHead), tuned=TunedParameter(path="head.scale", values=(4.0, 16.0))),
    "etf_la": replace(BASE, head=spec(ETFHead, projection=True, scale=LEARNED), loss=PRIOR),
    "etf_dr": replace(BASE, head=spec(ETFHead), loss=spec(DotRegressionLoss)),
    "random_la": replace(BASE, head=spec(FrozenRandomHead, projection=True, scale=LEARNED), loss=PRIOR),  # control
    # Other losses for long tails.
    "linear_vs": replace(
        BASE, loss=spec(VectorScalingLoss), tuned=TunedParameter(path="loss.gamma", values=(0.1, 0.5))
    ),
    "linear_drw": replace(BASE, loss=spec(DeferredReweightingLoss)),
    "linear_mixup_drw": replace(
        BASE, loss=spec(DeferredReweightingLoss), training=replace(BASE.training, mixing=Mixup(0.2))
    ),
    "cosine_ldam_drw": replace(
        BASE,
        head=spec(CosineHead, scale=30.0),
        loss=spec(DeferredReweightingLoss, loss=spec(LDAMLoss)),
        tuned=TunedParameter(path="head.scale", values=(8.0, 16.0)),
    ),
    "linear_nc": replace(BASE, loss=NC),
    "cosine_ntce": replace(
        BASE,
        head=spec(CosineHead, scale=None),
        loss=spec(NTCELoss),
        tuned=TunedParameter(path="loss.temperature", values=(0.05, 0.2)),
    ),
    # Second stages: they change the classifier after training, on the baseline's features.
    "linear_crt": replace(BASE, second_stage=RetrainClassifier(share=0.2), tuned=RATIO),
    "linear_lws": replace(BASE, second_stage=LearnableWeightScaling(share=0.2), tuned=RATIO),
    "linear_tau": replace(
        BASE, second_stage=TauNormalize(tau=0.7), tuned=TunedParameter(path="second_stage.tau", values=(0.4, 1.0))
    ),
    "linear_ncm": replace(BASE, second_stage=NearestClassMean()),
}
DEFAULT = tuple(ARMS)[:7]

# The fair reference of a head with another loss is the linear head with that loss.
PROTOCOL = Protocol(references=dict.fromkeys(("cosine_la", "etf_la", "random_la"), "linear_la"))

if __name__ == "__main__":
    run_recipe(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL, default_arms=DEFAULT)
