"""How much collapse is good? One dial from anti-collapse to strong collapse, and what it does to four goods at once.

The arms are one method at several strengths, each tuned like any other arm: cross-entropy with an entropy term that
keeps features of a class apart (entropy_*, the number is its weight), with nothing (linear), or with terms that pull
features to their class centre and class centres apart (nc_*). The report draws accuracy, calibration, detection of
unknown classes and transfer over the NC1 that was measured, on training and on test images: a weight is only a weight.

By default scikit-learn's digits: 7 classes seen, 3 held out, which serve for transfer and as the unknown; 8 arms,
3 seeds, 2 draws of a frame: some two minutes on 2 CPU cores. --arms all for a finer grid, each term alone, feature
decay, and an ETF head. Your own images: --data imagefolder:PATH --transfer-data imagefolder:OTHER.
"""

from dataclasses import replace
from pathlib import Path

from nc_tools.data import DataConfig
from nc_tools.experiment import Knob, ModelConfig, Protocol, RunConfig, main
from nc_tools.heads import ETFHead, FrozenRandomHead, LinearHead, spec
from nc_tools.losses import (
    ClassCompactness,
    ClassSpread,
    CrossEntropy,
    FeatureDecay,
    FeatureEntropy,
    WeightedSum,
    term,
)
from nc_tools.losses.base import LossTerm
from nc_tools.training import TrainConfig

BASE = RunConfig(
    data=DataConfig("digits", held_out_classes=3),
    head=spec(LinearHead),
    loss=spec(CrossEntropy),
    model=ModelConfig(name="conv", width=8),
    training=TrainConfig(epochs=40, batch_size=64),
)
SCALE = Knob(path="head.scale", values=(4.0, 16.0))


def dial(weight: float, *terms: type[LossTerm]) -> RunConfig:
    """Cross-entropy and these terms, each with this weight."""
    added = tuple(term(weight, spec(cls)) for cls in terms)
    return replace(BASE, loss=spec(WeightedSum, terms=(term(1.0, spec(CrossEntropy)), *added)))


ENTROPY = {f"entropy_{w:g}": dial(w, FeatureEntropy) for w in (4.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05)}
COLLAPSE = {f"nc_{w:g}": dial(w, ClassCompactness, ClassSpread) for w in (0.01, 0.03, 0.1, 0.3, 1.0)}

ARMS = {
    "linear": BASE,  # the baseline, and the dial's zero
    **ENTROPY,
    **COLLAPSE,
    "nc1_0.3": dial(0.3, ClassCompactness),
    "nc2_0.3": dial(0.3, ClassSpread),
    "decay_0.01": dial(0.01, FeatureDecay),
    "etf": replace(BASE, head=spec(ETFHead), knob=SCALE),
    "random": replace(BASE, head=spec(FrozenRandomHead), knob=SCALE),  # control: off the dial, frozen
}
DEFAULT = ("linear", "entropy_2", "entropy_0.5", "entropy_0.1", "nc_0.03", "nc_0.1", "nc_0.3", "random")

# Every arm is cross-entropy and a term, so all are fairly compared with the baseline itself.
PROTOCOL = Protocol(seeds=(0, 1, 2), draws=2)

if __name__ == "__main__":
    main(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL, default_arms=DEFAULT)
