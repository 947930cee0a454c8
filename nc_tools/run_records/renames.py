"""Names in the run files of earlier versions, and the names that replaced them.

A run's record names the classes of its configuration by their dotted path, with their fields and arguments. When a
class, field or argument that a record can hold is renamed or moved, add the old name here: records stay readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Path in version 0.1.0 -> path today, both without the leading "nc_tools.". Today's path is the one that the package
# exports.
CLASSES = {
    "data.augmentation.Augment": "data.Augment",
    "data.colour.ColourJitter": "data.ColorJitter",
    "data.config.DataConfig": "data.DataConfig",
    "data.cutout.Cutout": "data.Cutout",
    "data.instance_noise.InstanceNoise": "data.InstanceNoise",
    "data.label_noise.AsymmetricNoise": "data.AsymmetricNoise",
    "data.label_noise.MatrixNoise": "data.MatrixNoise",
    "data.label_noise.PairNoise": "data.PairNoise",
    "data.label_noise.SymmetricNoise": "data.SymmetricNoise",
    "data.mixing.CutMix": "data.CutMix",
    "data.mixing.Mixup": "data.Mixup",
    "data.rand_augment.RandAugment": "data.RandAugment",
    "data.sampling.BalancedSampling": "data.BalancedSampling",
    "data.sampling.ProgressiveSampling": "data.ProgressiveSampling",
    "data.sampling.SquareRootSampling": "data.SquareRootSampling",
    "experiment.config.Knob": "experiment.TunedParameter",
    "experiment.config.ModelConfig": "experiment.ModelConfig",
    "experiment.config.Protocol": "experiment.Protocol",
    "experiment.config.RunConfig": "experiment.RunConfig",
    "heads.assignment.RandomAssignment": "heads.RandomAssignment",
    "heads.balanced_calibration.BalancedCalibrationHead": "heads.BalancedCalibrationHead",
    "heads.code.CodeHead": "heads.SphericalCodeHead",
    "heads.etf.ETFHead": "heads.ETFHead",
    "heads.frozen_random.FrozenRandomHead": "heads.FrozenRandomHead",
    "heads.linear.CosineHead": "heads.CosineHead",
    "heads.linear.LinearHead": "heads.LinearHead",
    "heads.nearest.NearestETFHead": "heads.NearestETFHead",
    "heads.polytopes.CubeHead": "heads.CubeHead",
    "heads.polytopes.HadamardHead": "heads.HadamardHead",
    "heads.polytopes.OrthoplexHead": "heads.OrthoplexHead",
    "heads.polytopes.SimplexHead": "heads.SimplexHead",
    "heads.preallocated.PreallocatedHead": "heads.PreallocatedHead",
    "heads.prototype.PrototypeHead": "heads.PrototypeHead",
    "heads.proxy.ProxyHead": "heads.ProxyHead",
    "heads.rbf.RBFHead": "heads.RBFHead",
    "heads.scale.LearnedScale": "heads.LearnedScale",
    "heads.structured_etf.StructuredETFHead": "heads.StructuredETFHead",
    "heads.two_space.TwoSpaceHead": "heads.TwoSpaceHead",
    "losses.active_passive.ActivePassive": "losses.ActivePassiveLoss",
    "losses.active_passive.NCEAndMAE": "losses.NCEAndMAELoss",
    "losses.active_passive.NCEAndRCE": "losses.NCEAndRCELoss",
    "losses.affine.AffineCrossEntropy": "losses.ClassAffineCrossEntropyLoss",
    "losses.alignment.Alignment": "losses.ClassAlignmentLoss",
    "losses.background.BackgroundCrossEntropy": "losses.BackgroundCrossEntropyLoss",
    "losses.binary.BinaryCrossEntropy": "losses.BinaryCrossEntropyLoss",
    "losses.class_conditional.ClassConditionalInfoNCE": "losses.ClassConditionalInfoNCELoss",
    "losses.class_spread.ClassSpread": "losses.ClassSpreadLoss",
    "losses.coding_rate.CodingRate": "losses.CodingRateLoss",
    "losses.compactness.ClassCompactness": "losses.ClassCompactnessLoss",
    "losses.composition.Term": "losses.WeightedTerm",
    "losses.composition.WeightedSum": "losses.WeightedSumLoss",
    "losses.cosine_regression.CosineRegression": "losses.CosineRegressionLoss",
    "losses.cross_entropy.ClassWiseSmoothing": "losses.ClassWiseSmoothing",
    "losses.cross_entropy.CrossEntropy": "losses.CrossEntropyLoss",
    "losses.dhel.DHEL": "losses.DHELLoss",
    "losses.dot_regression.DotRegression": "losses.DotRegressionLoss",
    "losses.early_learning.EarlyLearning": "losses.EarlyLearningLoss",
    "losses.feature_decay.FeatureDecay": "losses.FeatureDecayLoss",
    "losses.feature_entropy.FeatureEntropy": "losses.FeatureEntropyLoss",
    "losses.focal.Focal": "losses.FocalLoss",
    "losses.forward_correction.ForwardCorrection": "losses.ForwardCorrectionLoss",
    "losses.generalized_cross_entropy.GeneralizedCrossEntropy": "losses.GeneralizedCrossEntropyLoss",
    "losses.label_relaxation.LabelRelaxation": "losses.LabelRelaxationLoss",
    "losses.ldam.LDAM": "losses.LDAMLoss",
    "losses.logit_adjusted.ARB": "losses.ARBLoss",
    "losses.logit_adjusted.BalancedSoftmax": "losses.BalancedSoftmaxLoss",
    "losses.logit_adjusted.LogitAdjusted": "losses.LogitAdjustedLoss",
    "losses.logit_norm.LogitNorm": "losses.LogitNormLoss",
    "losses.mean_squared.MeanSquared": "losses.MeanSquaredLoss",
    "losses.ntce.NONL": "losses.NONLLoss",
    "losses.ntce.NTCE": "losses.NTCELoss",
    "losses.orthogonal_outliers.OrthogonalOutliers": "losses.OrthogonalOutliersLoss",
    "losses.outlier_exposure.OutlierExposure": "losses.OutlierExposureLoss",
    "losses.pick_all_label.PickAllLabel": "losses.PickAllLabelLoss",
    "losses.reweighting.ClassBalanced": "losses.ClassBalancedLoss",
    "losses.reweighting.DeferredReweighting": "losses.DeferredReweightingLoss",
    "losses.schedule.Constant": "schedules.ConstantSchedule",
    "losses.schedule.Cosine": "schedules.CosineSchedule",
    "losses.schedule.LinearRamp": "schedules.LinearSchedule",
    "losses.schedule.Step": "schedules.StepSchedule",
    "losses.spread.Spread": "losses.SpreadLoss",
    "losses.supervised_contrastive.BalancedSupCon": "losses.BalancedSupConLoss",
    "losses.supervised_contrastive.SupCon": "losses.SupConLoss",
    "losses.symmetric_cross_entropy.SymmetricCrossEntropy": "losses.SymmetricCrossEntropyLoss",
    "losses.vector_scaling.VectorScaling": "losses.VectorScalingLoss",
    "training.config.OptimConfig": "training.OptimConfig",
    "training.config.TrainConfig": "training.TrainConfig",
    "training.post_hoc.NearestClassMean": "training.NearestClassMean",
    "training.post_hoc.TauNormalise": "training.TauNormalize",
    "training.retraining.LearnableWeightScaling": "training.LearnableWeightScaling",
    "training.retraining.ReTrainClassifier": "training.RetrainClassifier",
    "training.sharpness.AsymmetricSharpnessAware": "training.AsymmetricSharpnessAware",
    "training.sharpness.SharpnessAware": "training.SharpnessAware",
    "transfer.fine_tuning.FineTuning": "transfer.FineTuning",
    "transfer.methods.Full": "transfer.Full",
    "transfer.methods.ProbeThenFull": "transfer.ProbeThenFull",
    "transfer.methods.SkipConnection": "transfer.SkipConnection",
}

# Today's class -> fields or arguments of it, old -> new.
_FRAME = {"normalise": "normalize"}
FIELDS: dict[str, dict[str, str]] = {
    "data.DataConfig": {"colour_jitter": "color_jitter"},
    "experiment.RunConfig": {"knob": "tuned"},
    "heads.CubeHead": _FRAME,
    "heads.ETFHead": _FRAME,
    "heads.FrozenRandomHead": _FRAME,
    "heads.HadamardHead": _FRAME,
    "heads.NearestETFHead": _FRAME,
    "heads.OrthoplexHead": _FRAME,
    "heads.PreallocatedHead": _FRAME,
    "heads.PrototypeHead": _FRAME,
    "heads.SimplexHead": _FRAME,
    "heads.SphericalCodeHead": _FRAME,
    "heads.StructuredETFHead": _FRAME,
    "training.OptimConfig": {"sharpness": "sam"},
}

# Keys of a trial in tuning.json, old -> new.
TRIAL = {"knob": "parameter"}


def current_names(value: Any) -> Any:
    """Return a run's saved configuration (JSON values) with old names of classes, fields and arguments replaced.

    Example:
        >>> current_names({"class": "nc_tools.heads.etf.ETFHead", "arguments": {"normalise": False}})
        {'class': 'nc_tools.heads.ETFHead', 'arguments': {'normalize': False}}
    """
    if isinstance(value, list | tuple):
        return [current_names(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    values = {key: current_names(item) for key, item in value.items()}
    if isinstance(values.get("class"), str) and isinstance(values.get("arguments"), dict):
        path = _current_path(values["class"])
        return values | {"class": path, "arguments": _renamed(values["arguments"], _fields_of(path))}
    if isinstance(values.get("dataclass"), str):
        path = _current_path(values["dataclass"])
        return _renamed(values, _fields_of(path)) | {"dataclass": path}
    return values


def current_tuning(tuning: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of a tuning.json with old keys in its trials replaced.

    Example:
        >>> current_tuning({"trials": [{"arm": "etf", "knob": "head.scale"}]})
        {'trials': [{'arm': 'etf', 'parameter': 'head.scale'}]}
    """
    trials = tuning.get("trials")
    if not isinstance(trials, list):
        return dict(tuning)
    return {**tuning, "trials": [_renamed(t, TRIAL) if isinstance(t, Mapping) else t for t in trials]}


def _current_path(path: str) -> str:
    package, _, rest = path.partition(".")
    return f"nc_tools.{CLASSES.get(rest, rest)}" if package == "nc_tools" else path


def _fields_of(path: str) -> Mapping[str, str]:
    return FIELDS.get(path.removeprefix("nc_tools."), {})


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}
