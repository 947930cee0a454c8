"""Images of no class: does a fixed ETF head, or a space of its own for it, tell them better than LogitNorm does?

Nine arms on one loop, paired by seed against a tuned linear head; 12 scores, fitted on training features, none tuned on
outliers. By default scikit-learn's digits, 7 classes seen; near are the 3 classes held out, far the test images with
their pixels in random order, an easy set: some three minutes on 2 CPU cores. --arms all adds the frozen random control.

Five arms never see an outlier. The four named _oe and _ortho train against some, beside the images of their classes,
and so know what the others do not: compare them with each other. linear_oe asks for a uniform prediction on outliers
and is the baseline among them, in a report by nc-tools compare OUT --baseline linear_oe: what OrthogonalOutliers gains
beyond it is its own merit, what both gain is the outliers'. By default these are data.outliers=blended, averages of two
training images of different classes: no further image, and of the family of neither set that is scored (scrambled ones
would be of the far set's). No image that is scored is ever trained on: a set of outliers that shares one with another
set is refused.

CIFAR-10 against Tiny ImageNet (less the classes that CIFAR-10 has, see the CSV beside this file) and textures:
--data imagefolder:CIFAR10 --model resnet20 --set data.ood_near=imagefolder:TINY_IMAGENET
--set data.ood_near_exclude=recipes/tiny_imagenet_cifar10.csv --set data.ood_far=imagefolder:TEXTURES
and, with a set to train against, --set data.outliers=imagefolder:OUTLIERS; data.outliers_exclude=FILE.csv leaves out of
it the classes that are trained on or scored.

What decides stays balanced accuracy: a detector that cannot classify is of no use. The tables of AUROC stand below it.
"""

from dataclasses import replace
from pathlib import Path

from nc_tools.data import DataConfig
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, TunedParameter, run_recipe
from nc_tools.heads import LEARNED, CosineHead, ETFHead, FrozenRandomHead, LinearHead, TwoSpaceHead
from nc_tools.losses import (
    CrossEntropyLoss,
    FeatureEntropyLoss,
    LogitNormLoss,
    OrthogonalOutliersLoss,
    OutlierExposureLoss,
    WeightedSumLoss,
    term,
)
from nc_tools.spec import spec
from nc_tools.training import TrainConfig

BASE = RunConfig(
    data=DataConfig("digits", held_out_classes=3, ood_far="scrambled", outliers="blended"),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(name="conv", width=8),
    training=TrainConfig(epochs=40, batch_size=64),
)
ETF = replace(BASE, head=spec(ETFHead), tuned=TunedParameter(path="head.scale", values=(4.0, 16.0)))
FIT = term(1.0, spec(CrossEntropyLoss))
# Collapse in the projected space alone: the encoder's features are held apart.
APART = term(0.05, spec(FeatureEntropyLoss))
ACROSS = term(1.0, spec(OrthogonalOutliersLoss))

ARMS = {
    "linear": BASE,  # the baseline: the others pair against it
    "linear_logitnorm": replace(
        BASE, loss=spec(LogitNormLoss), tuned=TunedParameter(path="loss.temperature", values=(0.1, 0.4))
    ),
    "cosine": replace(BASE, head=spec(CosineHead)),
    "etf": ETF,
    "two_space": replace(BASE, head=spec(TwoSpaceHead), loss=spec(WeightedSumLoss, terms=(FIT, APART))),
    # These train against outliers, which those above never see.
    "linear_oe": replace(BASE, loss=spec(WeightedSumLoss, terms=(FIT, term(0.5, spec(OutlierExposureLoss))))),
    "linear_ortho": replace(BASE, loss=spec(WeightedSumLoss, terms=(FIT, ACROSS))),
    "etf_ortho": replace(ETF, loss=spec(WeightedSumLoss, terms=(FIT, ACROSS))),
    "two_space_ortho": replace(BASE, head=spec(TwoSpaceHead), loss=spec(WeightedSumLoss, terms=(FIT, APART, ACROSS))),
    "random": replace(BASE, head=spec(FrozenRandomHead, projection=True, scale=LEARNED)),  # control: frozen, no ETF
}
DEFAULT = tuple(arm for arm in ARMS if arm != "random")
PROTOCOL = Protocol(seeds=(0, 1, 2), draws=2, references={"etf_ortho": "linear_ortho"})

if __name__ == "__main__":
    run_recipe(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL, default_arms=DEFAULT)
