"""How much neural collapse is good for accuracy, calibration, detection of unknown classes, and transfer?

The arms are one method at several strengths, each tuned like any other arm: cross-entropy with a term that keeps the
features of a class apart (entropy_*, the number is its weight), cross-entropy alone (linear), or with terms that pull
features to their class center and class centers apart (nc_*). The report draws the four outcomes over the measured NC1,
on training and on test images, because a weight says little about how far the features have collapsed.

The default data are scikit-learn's digits: 7 classes to train on and 3 held out, which serve for transfer and as
unknown classes. 8 arms with 5 seeds take about two minutes on 2 CPU cores. --arms all adds more weights, each term
alone, feature decay and an ETF head. For your own images give --data imagefolder:PATH --transfer-data
imagefolder:OTHER.
"""

from dataclasses import replace
from pathlib import Path

from nc_tools.data import DataConfig
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, TunedParameter, run_recipe
from nc_tools.heads import ETFHead, FrozenRandomHead, LinearHead
from nc_tools.losses import (
    ClassCompactnessLoss,
    ClassSpreadLoss,
    CrossEntropyLoss,
    FeatureDecayLoss,
    FeatureEntropyLoss,
    WeightedSumLoss,
    term,
)
from nc_tools.losses.loss_term import LossTerm
from nc_tools.specs import spec
from nc_tools.training import TrainConfig

BASE = RunConfig(
    data=DataConfig("digits", held_out_classes=3),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(name="conv", width=8),
    training=TrainConfig(epochs=40, batch_size=64),
)
SCALE = TunedParameter(path="head.scale", values=(4.0, 16.0))


def with_terms(weight: float, *terms: type[LossTerm]) -> RunConfig:
    """Return an arm, a configuration trained with cross-entropy and these loss terms, each with the given weight."""
    added = tuple(term(weight, spec(cls)) for cls in terms)
    return replace(BASE, loss=spec(WeightedSumLoss, terms=(term(1.0, spec(CrossEntropyLoss)), *added)))


ENTROPY = {f"entropy_{w:g}": with_terms(w, FeatureEntropyLoss) for w in (4.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05)}
COLLAPSE = {f"nc_{w:g}": with_terms(w, ClassCompactnessLoss, ClassSpreadLoss) for w in (0.01, 0.03, 0.1, 0.3, 1.0)}

ARMS = {
    "linear": BASE,  # the baseline: no term for or against collapse
    **ENTROPY,
    **COLLAPSE,
    "nc1_0.3": with_terms(0.3, ClassCompactnessLoss),
    "nc2_0.3": with_terms(0.3, ClassSpreadLoss),
    "decay_0.01": with_terms(0.01, FeatureDecayLoss),
    "etf": replace(BASE, head=spec(ETFHead), tuned=SCALE),
    "random": replace(BASE, head=spec(FrozenRandomHead), tuned=SCALE),  # control: frozen, none of the terms
}
DEFAULT = ("linear", "entropy_2", "entropy_0.5", "entropy_0.1", "nc_0.03", "nc_0.1", "nc_0.3", "random")

# Every arm is cross-entropy plus terms, so the baseline is the fair reference of all.
PROTOCOL = Protocol()

if __name__ == "__main__":
    run_recipe(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL, default_arms=DEFAULT)
