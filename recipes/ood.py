"""Images of no class: does a fixed ETF head, or a space of its own for it, tell them better than LogitNorm does?

Five arms on one loop, paired by seed against a tuned linear head; 12 scores, fitted on training features, none tuned on
outliers. By default scikit-learn's digits, 7 classes seen; near are the 3 classes held out, far the test images with
their pixels in random order, an easy set: some two minutes on 2 CPU cores. --arms all adds the frozen random control.

CIFAR-10 against Tiny ImageNet (less the classes that CIFAR-10 has, see the CSV beside this file) and textures:
--data imagefolder:CIFAR10 --model resnet20 --set data.ood_near=imagefolder:TINY_IMAGENET
--set data.ood_near_exclude=recipes/tiny_imagenet_cifar10.csv --set data.ood_far=imagefolder:TEXTURES

What decides stays balanced accuracy: a detector that cannot classify is of no use. The tables of AUROC stand below it.
No arm trains on outliers (OrthogonalOutliers asks for them): a recipe has no channel for them yet.
"""

from dataclasses import replace
from pathlib import Path

from nc_tools.data import DataConfig
from nc_tools.experiment import Knob, ModelConfig, Protocol, RunConfig, main
from nc_tools.heads import LEARNED, CosineHead, ETFHead, FrozenRandomHead, LinearHead, TwoSpaceHead, spec
from nc_tools.losses import CrossEntropy, FeatureEntropy, LogitNorm, WeightedSum, term
from nc_tools.training import TrainConfig

BASE = RunConfig(
    data=DataConfig("digits", held_out_classes=3, ood_far="scrambled"),
    head=spec(LinearHead),
    loss=spec(CrossEntropy),
    model=ModelConfig(name="conv", width=8),
    training=TrainConfig(epochs=40, batch_size=64),
)
# Collapse in the projected space alone: the encoder's features are held apart.
SPREAD = spec(WeightedSum, terms=(term(1.0, spec(CrossEntropy)), term(0.05, spec(FeatureEntropy))))

ARMS = {
    "linear": BASE,  # the baseline: the others pair against it
    "linear_logitnorm": replace(BASE, loss=spec(LogitNorm), knob=Knob(path="loss.temperature", values=(0.1, 0.4))),
    "cosine": replace(BASE, head=spec(CosineHead)),
    "etf": replace(BASE, head=spec(ETFHead), knob=Knob(path="head.scale", values=(4.0, 16.0))),
    "two_space": replace(BASE, head=spec(TwoSpaceHead), loss=SPREAD),
    "random": replace(BASE, head=spec(FrozenRandomHead, projection=True, scale=LEARNED)),  # control: frozen, no ETF
}
DEFAULT = tuple(arm for arm in ARMS if arm != "random")
PROTOCOL = Protocol(seeds=(0, 1, 2), draws=2)

if __name__ == "__main__":
    main(ARMS, name=Path(__file__).stem, question=__doc__, protocol=PROTOCOL, default_arms=DEFAULT)
