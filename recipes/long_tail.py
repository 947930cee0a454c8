"""Long-tailed images: does a fixed ETF head help the rare classes?

Seven arms on one loop, paired by seed against a tuned linear head. By default scikit-learn's digits with the largest
class 10 times the smallest, 7 classes seen and 3 held out for transfer, 5 seeds, 3 draws of each frame: some two
minutes on 2 CPU cores. --arms all adds what the field has beside: margins, factors, regularizers, contrast, and a
second stage that mends the classifier on frozen features. Your own images: --data imagefolder:PATH. What we found:
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
from nc_tools.spec import spec
from nc_tools.training import LearnableWeightScaling, NearestClassMean, RetrainClassifier, TauNormalize, TrainConfig

BASE = RunConfig(
    data=DataConfig("digits", imbalance=10, held_out_classes=3),
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
    "linear": BASE,  # the baseline: the others pair against it
    "linear_la": replace(BASE, loss=PRIOR),
    "cosine_la": replace(BASE, head=spec(CosineHead), loss=PRIOR),
    "etf": replace(BASE, head=spec(ETFHead), tuned=TunedParameter(path="head.scale", values=(4.0, 16.0))),
    "etf_la": replace(BASE, head=spec(ETFHead, projection=True, scale=LEARNED), loss=PRIOR),
    "etf_dr": replace(BASE, head=spec(ETFHead), loss=spec(DotRegressionLoss)),
    "random_la": replace(BASE, head=spec(FrozenRandomHead, projection=True, scale=LEARNED), loss=PRIOR),  # control
    # Other losses.
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
    # A second stage on the baseline's features.
    "linear_crt": replace(BASE, second_stage=RetrainClassifier(share=0.2), tuned=RATIO),
    "linear_lws": replace(BASE, second_stage=LearnableWeightScaling(share=0.2), tuned=RATIO),
    "linear_tau": replace(
        BASE, second_stage=TauNormalize(tau=0.7), tuned=TunedParameter(path="second_stage.tau", values=(0.4, 1.0))
    ),
    "linear_ncm": replace(BASE, second_stage=NearestClassMean()),
}
DEFAULT = tuple(ARMS)[:7]

# A head with a prior-adjusted loss is fairly compared with the linear head with that loss.
PROTOCOL = Protocol(
    references={
        **dict.fromkeys(("cosine_la", "etf_la", "random_la"), "linear_la"),
        "cosine_ldam_drw": "linear_drw",
    }
)

if __name__ == "__main__":
    run_recipe(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL, default_arms=DEFAULT)
