"""How ``benchmarks/peers.py`` calls each public toolkit on the same samples; what it lacks is left out."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from peer_samples import Sample
from torch import Tensor, nn

Values = dict[str, float]
Scores = dict[str, np.ndarray]


def pytorch_ood(sample: Sample) -> Scores:
    from pytorch_ood import detector

    both = torch.cat([sample.inside, sample.outside])
    z, head = sample.logits(both), sample.head
    width = sample.train.shape[1]

    def of_features(fitted: Any) -> Tensor:
        return fitted.fit_features(sample.train, sample.labels).predict_features(both)

    weight, bias = head.weight.detach(), head.bias.detach()
    made: dict[str, Callable[[], Tensor]] = {
        "msp": lambda: detector.MaxSoftmax.score(z),
        "max_logit": lambda: detector.MaxLogit.score(z),
        "energy": lambda: detector.EnergyBased.score(z),
        "gen": lambda: detector.GEN.score(z, gamma=0.1, M=100),
        "knn": lambda: of_features(detector.KNN(None, k=50)),
        "mahalanobis": lambda: of_features(detector.Mahalanobis(None)),
        "rmds": lambda: of_features(detector.RMD(None)),
        "vim": lambda: of_features(detector.ViM(None, d=width // 2, w=weight, b=bias)),
        "nci": lambda: of_features(detector.NCI(None, head, alpha=1e-4)),
        "fdbd": lambda: of_features(detector.fDBD(None, head)),
    }
    return {name: -make().detach().double().numpy() for name, make in made.items() if has(detector, name)}


def has(detector: Any, name: str) -> bool:
    names = {"gen": "GEN", "rmds": "RMD", "nci": "NCI", "fdbd": "fDBD", "vim": "ViM", "knn": "KNN"}
    return hasattr(detector, names.get(name, "Mahalanobis"))


class _Features(nn.Module):
    """A network whose inputs are features, in the form that OpenOOD's postprocessors call."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.fc = head

    def forward(self, data: Tensor, return_feature: bool = False) -> Any:
        z = self.fc(data)
        return (z, data) if return_feature else z

    def get_fc(self) -> tuple[np.ndarray, np.ndarray]:
        return self.fc.weight.detach().numpy(), self.fc.bias.detach().numpy()


def openood(sample: Sample) -> Scores:
    """OpenOOD's postprocessors; its package imports every network, so its modules are loaded one by one."""
    root = openood_folder()
    for name in ("openood", "openood.postprocessors", "openood.utils"):
        module = types.ModuleType(name)
        module.__path__ = [str(root.joinpath(*name.split(".")[1:]))]  # type: ignore[attr-defined]
        sys.modules[name] = module
    classes = importlib.import_module("openood.postprocessors.info").num_classes_dict
    classes["sample"] = len(sample.head.weight)
    arguments = SimpleNamespace(K=50, dim=sample.train.shape[1] // 2, gamma=0.1, M=100, alpha=1e-4, temperature=1.0,
                                distance_as_normalizer=True)  # fmt: skip
    config = SimpleNamespace(
        postprocessor=SimpleNamespace(postprocessor_args=arguments, postprocessor_sweep=None),
        dataset=SimpleNamespace(name="sample"),
    )
    loader = {"train": [{"data": sample.train, "label": sample.labels}]}
    both, net = torch.cat([sample.inside, sample.outside]), _Features(sample.head)
    result: Scores = {}
    with mock.patch.object(Tensor, "cuda", lambda tensor, *_a, **_k: tensor):  # it moves data without asking
        for name, (file, made) in _OPENOOD.items():
            try:
                module = importlib.import_module(f"openood.postprocessors.{file}_postprocessor")
            except ModuleNotFoundError as error:
                print(f"  OpenOOD {name} left out: {error}")
                continue
            processor = getattr(module, made)(config)
            processor.setup(net, loader, None)
            result[name] = processor.postprocess(net, both)[1].detach().double().numpy()
    return result


def openood_folder() -> Path:
    """Return the folder of the package openood, without importing it."""
    for folder in map(Path, sys.path):
        if (folder / "openood" / "postprocessors").is_dir():
            return folder / "openood"
    raise ModuleNotFoundError("No module named 'openood'")


_OPENOOD = {
    "msp": ("base", "BasePostprocessor"),
    "max_logit": ("maxlogit", "MaxLogitPostprocessor"),
    "energy": ("ebo", "EBOPostprocessor"),
    "gen": ("gen", "GENPostprocessor"),
    "knn": ("knn", "KNNPostprocessor"),
    "mahalanobis": ("mds", "MDSPostprocessor"),
    "rmds": ("rmds", "RMDSPostprocessor"),
    "vim": ("vim", "VIMPostprocessor"),
    "nci": ("nci", "NCIPostprocessor"),
    "fdbd": ("fdbd", "fDBDPostprocessor"),
}


def scikit_learn(z: Tensor, y: Tensor, inside: Tensor, outside: Tensor) -> Values:
    from sklearn import metrics

    p, guess = z.double().softmax(1).numpy(), z.argmax(1).numpy()
    labels = [1] * len(inside) + [0] * len(outside)
    both = torch.cat([inside, outside]).numpy()
    return {
        "accuracy": metrics.accuracy_score(y, guess),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, guess),
        "macro_f1": metrics.f1_score(y, guess, average="macro"),
        "nll": metrics.log_loss(y, p, labels=range(p.shape[1])),
        "auroc": metrics.roc_auc_score(labels, both),
        "aupr_in": metrics.average_precision_score(labels, both),
    }


def torchmetrics(z: Tensor, y: Tensor, inside: Tensor, outside: Tensor) -> Values:
    from torchmetrics.functional import classification as tm

    k, p = z.shape[1], z.softmax(1)
    labels = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).long()
    squashed = torch.cat([inside, outside]).sigmoid()
    return {
        "accuracy": float(tm.multiclass_accuracy(z, y, k, average="micro")),
        "balanced_accuracy": float(tm.multiclass_accuracy(z, y, k, average="macro")),
        "macro_f1": float(tm.multiclass_f1_score(z, y, k, average="macro")),
        "ece": float(tm.multiclass_calibration_error(p, y, k, n_bins=15, norm="l1")),
        "auroc": float(tm.binary_auroc(squashed, labels)),
        "aupr_in": float(tm.binary_average_precision(squashed, labels)),
    }


def torch_uncertainty(z: Tensor, y: Tensor, inside: Tensor, outside: Tensor) -> Values:
    from torch_uncertainty.metrics import classification as tu

    k, p = z.shape[1], z.softmax(1)
    ood = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).long()
    made: dict[str, tuple[Any, tuple[Tensor, Tensor]]] = {
        "nll": (tu.CategoricalNLL(), (p, y)),
        "brier": (tu.BrierScore(num_classes=k), (p, y)),
        "ece": (tu.CalibrationError(task="multiclass", num_classes=k, num_bins=15), (p, y)),
        "ece_equal_mass": (tu.AdaptiveCalibrationError(task="multiclass", num_classes=k, num_bins=15), (p, y)),
        "ece_classwise": (tu.ClasswiseCalibrationError(num_classes=k, num_bins=15), (p, y)),
        "aurc": (tu.AURC(), (p, y)),
        "fpr95": (tu.FPR95(pos_label=1), (-torch.cat([inside, outside]).float(), ood)),
    }
    values = {}
    for name, (metric, data) in made.items():
        metric.update(*data)
        values[name] = float(metric.compute())
    return values


def netcal(z: Tensor, y: Tensor, *_: Tensor) -> Values:
    from netcal.metrics import ECE

    p, labels = z.double().softmax(1).numpy(), y.numpy()
    return {
        "ece": float(ECE(15).measure(p, labels)),
        "ece_equal_mass": float(ECE(15, equal_intervals=False).measure(p, labels)),
    }


def openood_metrics(_z: Tensor, _y: Tensor, inside: Tensor, outside: Tensor) -> Values:
    spec = importlib.util.spec_from_file_location("openood_metrics", openood_folder() / "evaluators" / "metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    label = np.array([0] * len(inside) + [-1] * len(outside))
    auroc, aupr_in, aupr_out, fpr = module.auc_and_fpr_recall(torch.cat([inside, outside]).numpy(), label, 0.95)
    return {"auroc": auroc, "aupr_in": aupr_in, "aupr_out": aupr_out, "fpr95": fpr}


def cleanlab(z: Tensor, y: Tensor, *_: Tensor) -> Values:
    from cleanlab.count import compute_confident_joint

    joint = compute_confident_joint(y.numpy(), z.double().softmax(1).numpy())
    return {"joint_trace": float(np.trace(joint) / joint.sum())}


def neural_collapse(z: Tensor, y: Tensor, *_: Tensor) -> Values:
    from neural_collapse import accumulate, measure

    size = (int(y.max()) + 1, z.shape[1], z.device)
    means_of = accumulate.MeanAccumulator(*size)
    means_of.accumulate(z, y)
    means, center = means_of.compute()
    within, norms = accumulate.CovarAccumulator(*size, M=means), accumulate.VarNormAccumulator(*size, M=means)
    within.accumulate(z, y, means)
    norms.accumulate(z, y, means)
    return {
        "nc1_pinv": measure.covariance_ratio(within.compute(), means, center),
        "nc1_trace": measure.covariance_ratio(within.compute(), means, center, "quotient"),
        "cdnv": measure.variability_cdnv(norms.compute()[0], means),
    }


SCORES = {"OpenOOD": openood, "pytorch-ood": pytorch_ood}
MEASURES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Values]] = {
    "scikit-learn": scikit_learn,
    "torchmetrics": torchmetrics,
    "torch-uncertainty": torch_uncertainty,
    "netcal": netcal,
    "OpenOOD": openood_metrics,
    "cleanlab": cleanlab,
    "neural-collapse": neural_collapse,
}
