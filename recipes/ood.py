"""Out-of-distribution images: does a fixed ETF head, or a separate space for detection, beat LogitNorm?

Nine arms are trained by the same loop. One is a tuned linear head, with which the others are compared seed by seed. 12
detection scores are fitted on training features; none is tuned on outliers. The default data are scikit-learn's digits
with 7 classes to train on. Near outliers are the 3 classes held out; far outliers are the test images with their pixels
in random order, which is an easy set. This takes about three minutes on 2 CPU cores; --arms all adds the frozen random
head as a control.

Five arms never see an outlier. The arms named _oe and _ortho train against outliers, next to the images of their
classes, so compare them with each other. linear_oe, which learns to predict outliers uniformly, is their baseline: make
a second report with nc-tools compare OUT --baseline linear_oe. What OrthogonalOutliersLoss gains over linear_oe is due
to the loss; what both gain is due to the outliers. The default is data.outliers=blended, averages of two training
images of different classes, which need no further images and resemble neither set that is scored. An image that is
scored is never trained on: outliers that share an image with another set are refused.

CIFAR-10 against Tiny ImageNet (without the classes that CIFAR-10 has, see the CSV next to this file) and textures:
--data imagefolder:CIFAR10 --model resnet20 --set data.ood_near=imagefolder:TINY_IMAGENET
--set data.ood_near_exclude=recipes/tiny_imagenet_cifar10.csv --set data.ood_far=imagefolder:TEXTURES
To train against other images add --set data.outliers=imagefolder:OUTLIERS; data.outliers_exclude=FILE.csv leaves out
those of their classes that are also trained on or scored.

The AUROC of the largest softmax probability (MSP), mean over the sets of outliers, decides the comparison: one score
that every arm has, fixed beforehand, because the best of 12 is biased upwards. Accuracy and other scores are beside it.
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
from nc_tools.specs import spec
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
# Collapse in the projected space only: this term keeps the encoder's features of a class apart.
APART = term(0.05, spec(FeatureEntropyLoss))
ACROSS = term(1.0, spec(OrthogonalOutliersLoss))

ARMS = {
    "linear": BASE,  # the baseline, against which the others are compared
    "linear_logitnorm": replace(
        BASE, loss=spec(LogitNormLoss), tuned=TunedParameter(path="loss.temperature", values=(0.1, 0.4))
    ),
    "cosine": replace(BASE, head=spec(CosineHead)),
    "etf": ETF,
    "two_space": replace(BASE, head=spec(TwoSpaceHead), loss=spec(WeightedSumLoss, terms=(FIT, APART))),
    # These train against outliers, which the arms above never see.
    "linear_oe": replace(BASE, loss=spec(WeightedSumLoss, terms=(FIT, term(0.5, spec(OutlierExposureLoss))))),
    "linear_ortho": replace(BASE, loss=spec(WeightedSumLoss, terms=(FIT, ACROSS))),
    "etf_ortho": replace(ETF, loss=spec(WeightedSumLoss, terms=(FIT, ACROSS))),
    "two_space_ortho": replace(BASE, head=spec(TwoSpaceHead), loss=spec(WeightedSumLoss, terms=(FIT, APART, ACROSS))),
    "random": replace(BASE, head=spec(FrozenRandomHead, projection=True, scale=LEARNED)),  # control: frozen, but no ETF
}
DEFAULT = tuple(arm for arm in ARMS if arm != "random")
PROTOCOL = Protocol(references={"etf_ortho": "linear_ortho"}, primary="test/ood/mean/msp/auroc")

if __name__ == "__main__":
    run_recipe(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL, default_arms=DEFAULT)
