"""Members of packs on random features, each built twice: to train side by side and to train alone."""

import torch

from nc_tools.features import FeatureLoader, FeatureSet, fit_standardize
from nc_tools.heads import (
    LEARNED,
    LEARNED_PER_CLASS,
    CosineHead,
    ETFHead,
    FrozenRandomHead,
    LinearHead,
    NearestETFHead,
    SimplexHead,
)
from nc_tools.losses import (
    BalancedSoftmaxLoss,
    CrossEntropyLoss,
    DotRegressionLoss,
    EarlyLearningLoss,
    FocalLoss,
    GeneralizedCrossEntropyLoss,
    LabelRelaxationLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    NTCELoss,
    SymmetricCrossEntropyLoss,
    VectorScalingLoss,
)
from nc_tools.models.classifier import Classifier
from nc_tools.seeds import stream
from nc_tools.training import OptimConfig
from nc_tools.training.packed import PackMember

N, D, K = 103, 12, 5
COUNTS = [40, 25, 18, 12, 8]


def features(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    labels = torch.repeat_interleave(torch.arange(K), torch.tensor(COUNTS))
    centers = torch.randn(K, D, generator=generator)
    values = centers[labels] + torch.randn(N, D, generator=generator)
    return FeatureSet(values.to(dtype), labels, tuple("abcde"), "random")


HEADS = {
    "linear": lambda g: LinearHead(D, K, generator=g),
    "linear without bias": lambda g: LinearHead(D, K, bias=False, generator=g),
    "cosine": lambda g: CosineHead(D, K, generator=g),
    "cosine, fixed scale": lambda g: CosineHead(D, K, scale=6.0, generator=g),
    "etf, projection": lambda g: ETFHead(D, K, projection=True, scale=LEARNED, frame_seed=4, generator=g),
    "etf, scale per class": lambda g: ETFHead(D, K, projection=7, scale=LEARNED_PER_CLASS, generator=g),
    "etf, raw projection": lambda g: ETFHead(D, K, projection=True, normalize=False, generator=g),
    "etf, no projection": lambda g: ETFHead(D, K, scale=LEARNED, generator=g),
    "nearest etf": lambda g: NearestETFHead(D, K, projection=True, scale=LEARNED, every=3, generator=g),
    "simplex": lambda g: SimplexHead(D, K, scale=LEARNED, generator=g),
    "random": lambda g: FrozenRandomHead(D, K, projection=True, scale=LEARNED, frame_seed=9, generator=g),
}

LOSSES = {
    "ce": lambda: CrossEntropyLoss(),
    "smoothed": lambda: CrossEntropyLoss(0.1),
    "la": lambda: LogitAdjustedLoss(COUNTS),
    "balanced softmax": lambda: BalancedSoftmaxLoss(COUNTS),
    "vs": lambda: VectorScalingLoss(COUNTS),
    "gce": lambda: GeneralizedCrossEntropyLoss(),
    "sce": lambda: SymmetricCrossEntropyLoss(),
    "elr": lambda: EarlyLearningLoss(N, K),
    "relaxation": lambda: LabelRelaxationLoss(),
    "focal": lambda: FocalLoss(),
    "dot regression": lambda: DotRegressionLoss(),
    "dot regression over classes": lambda: DotRegressionLoss(mean_over="classes"),
    "ldam": lambda: LDAMLoss(COUNTS),  # reads the head's scale
    "ntce": lambda: NTCELoss(),  # reads class vectors and embedded features
}


def make_member(head, loss, *, seed=0, optim=None, loaders=None, batch_size=16, data=None, double=True):
    """A member with float64 weights; members made with the same ``loaders`` share those of one seed."""
    data = features() if data is None else data
    loaders = {} if loaders is None else loaders
    if seed not in loaders:
        indices = torch.randperm(N, generator=stream(seed, "holdout"))[:90].sort().values
        scaling = fit_standardize(data, indices)
        loaders[seed] = FeatureLoader(data, indices, batch_size=batch_size, seed=seed), scaling.double()
    loader, scaling = loaders[seed]
    model = Classifier(scaling, HEADS[head](stream(seed, "head")))
    term = LOSSES[loss]()
    if double:
        model, term = model.double(), term.double()
    return PackMember(model, term, loader, optim or OptimConfig(lr=0.05, weight_decay=5e-4))
