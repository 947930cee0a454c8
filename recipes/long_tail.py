"""Long-tailed images: does a fixed ETF head help the rare classes?

Seven arms on one loop, paired by seed against a tuned linear head. By default scikit-learn's digits with the largest
class 10 times the smallest, 7 classes seen and 3 held out for transfer, 5 seeds, 3 draws of each frame: some two
minutes on 2 CPU cores. Your own images: --data imagefolder:PATH. What we found: benchmarks/results/.
"""

from dataclasses import replace
from pathlib import Path

from nc_tools.data import DataConfig
from nc_tools.experiment import Knob, ModelConfig, Protocol, RunConfig, main
from nc_tools.heads import LEARNED, CosineHead, ETFHead, FrozenRandomHead, LinearHead, spec
from nc_tools.losses import CrossEntropy, DotRegression, LogitAdjusted
from nc_tools.training import TrainConfig

BASE = RunConfig(
    data=DataConfig("digits", imbalance=10, held_out_classes=3),
    head=spec(LinearHead),
    loss=spec(CrossEntropy),
    model=ModelConfig(name="conv", width=8),
    training=TrainConfig(epochs=50, batch_size=32),
)
PRIOR = spec(LogitAdjusted)

ARMS = {
    "linear": BASE,  # the baseline: the others pair against it
    "linear_la": replace(BASE, loss=PRIOR),
    "cosine_la": replace(BASE, head=spec(CosineHead), loss=PRIOR),
    "etf": replace(BASE, head=spec(ETFHead), knob=Knob(path="head.scale", values=(4.0, 16.0))),
    "etf_la": replace(BASE, head=spec(ETFHead, projection=True, scale=LEARNED), loss=PRIOR),
    "etf_dr": replace(BASE, head=spec(ETFHead), loss=spec(DotRegression)),
    "random_la": replace(BASE, head=spec(FrozenRandomHead, projection=True, scale=LEARNED), loss=PRIOR),  # control
}

# A head with a prior-adjusted loss is fairly compared with the linear head with that loss.
PROTOCOL = Protocol(references=dict.fromkeys(("cosine_la", "etf_la", "random_la"), "linear_la"))

if __name__ == "__main__":
    main(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL)
