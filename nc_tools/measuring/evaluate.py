"""Every measure of a finished run, for any model that was trained by any loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.evaluation.further_measures import mean_stable_rank
from nc_tools.evaluation.head_view import HeadView
from nc_tools.experiment.evaluate.final_run import share_correct
from nc_tools.experiment.evaluate.label_noise import suspect_precision
from nc_tools.experiment.evaluate.prediction_sets import SetCoverage, fit_thresholds, set_coverage, surest_predictions
from nc_tools.experiment.evaluate.scalings import fit_scalings, scaled_measures
from nc_tools.experiment.evaluate.test_outputs import write_test_outputs
from nc_tools.heads.head import Head
from nc_tools.measuring.loader_batches import first_two, to_device, unpack
from nc_tools.measuring.model_pass import locate_to_measure, unwrap
from nc_tools.metrics import (
    anchor_transition,
    counted_transition,
    fit_temperature,
    rank_suspects,
    transition_error,
)
from nc_tools.records import Collected
from nc_tools.surgery.find_head import FoundHead
from nc_tools.surgery.layers import call, captured_features, device_of
from nc_tools.surgery.trace import logits_of
from nc_tools.surgery.untouched import eval_mode, untouched

_Loader = Iterable[Any]


def evaluate(
    model: nn.Module,
    train: _Loader,
    test: _Loader,
    *,
    holdout: _Loader | None = None,
    outliers: Mapping[str, _Loader] | None = None,
    transfer: tuple[_Loader, _Loader] | None = None,
    clean: Tensor | None = None,
    class_counts: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    head: str | None = None,
    seed: int = 0,
    record: Path | str | None = None,
) -> dict[str, float]:
    """Return every measure that a run of a recipe has, for any classifier and any training loop.

    A run that is recorded with these values stands in one table with the runs of a recipe::

        with nc_tools.track("out", arm="mine", seed=0) as run:
            ...  # your own loop
            run.finish(nc_tools.evaluate(model, train, test, holdout=holdout, record=run.path))

    The model runs in eval mode, once over each set, and is in its former mode afterwards. Loaders must give the images
    of a set in a fixed order and without augmentation. Use test images once, at the end. Keys:

        test/gen/, test/cal/             accuracy (also by frequency of the class) and calibration
        test/nc/, train/nc/              neural collapse at the head; nc_embedded/ after the head's own projection
        head/, backbone/                 class vectors of rare and frequent classes; stable ranks
        train/gen/accuracy               on the training images
        cal/temperature, test/cal_ts/    temperature of the hold-out, and calibration with it
        test/cal_vs/, gen_vs/, cal_ds/   after vector and Dirichlet scaling, fitted on the hold-out
        test/conformal/, selective/      prediction sets, with thresholds of the hold-out; the surest predictions
        test/ood/NAME/SCORE/             for each set of outliers
        transfer/                        probes on the frozen features of other classes
        train/noise/, train/gen_clean/, noise/, ...   with ``clean``: label noise

    Args:
        model: Maps inputs to logits (N, K), on any device.
        train: The training images. Yields (inputs, labels), mappings with ``labels``, or
            :class:`~nc_tools.records.Batch`.
        test: Images of the same classes that were not trained on.
        holdout: Training images that were held out, for temperature, scalings and prediction sets. Not the test images.
        outliers: Images of none of the classes, by name; reports have a fixed place for "near", "far" and "held_out".
        transfer: Training and test images of other classes, for probes on the features.
        clean: True labels of the training images (N,), in the order of the loader, if its labels are noisy.
        class_counts: Training samples of each class (K,). None: counted in ``train``.
        classes: K names, for ``record``. None: numbers.
        head: Dotted path of the classifier layer, if it cannot be found by its logits.
        seed: Seed of the probes' random choices.
        record: Folder of the run, or None. The recall of each class and the test logits are written there, so that the
            report also compares classes and single images.

    Raises:
        TypeError: If a loader yields something else.
        ValueError: If the head cannot be found, or sets do not fit the model or each other.

    Example:
        >>> import nc_tools
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> train, test = ([(torch.randn(8, 4), torch.arange(8) % 2)] for _ in range(2))
        >>> values = nc_tools.evaluate(model, train, test)
        >>> "test/gen/balanced_accuracy" in values, "train/nc/nc1_pinv" in values
        (True, True)
    """
    evaluator = _ModelEvaluator(model, head)
    train_set, test_set = _LoadedSet.named("train", train, clean), _LoadedSet.named("test", test)
    fitted = evaluator.outputs(train_set)
    num_classes = fitted.logits.shape[1]
    evaluator.set_counts(class_counts, fitted.labels, num_classes)
    if clean is not None and clean.shape != fitted.labels.shape:
        raise ValueError(
            f"clean must hold the true label of each of the {len(fitted.labels)} training images, got "
            f"{tuple(clean.shape)}"
        )
    values = evaluator.accuracy(test_set) | evaluator.collapse(test_set) | evaluator.collapse(train_set)
    values["train/gen/accuracy"] = share_correct(fitted)
    values |= evaluator.further_measures(train_set, test_set)
    temperatures: dict[str, float] = {}
    coverage = SetCoverage()
    if holdout is not None:
        held_out = evaluator.outputs(_LoadedSet.named("holdout", holdout))
        temperatures["temperature"] = values["cal/temperature"] = fit_temperature(held_out.logits, held_out.labels)
        values |= evaluator.calibration(test_set, temperatures["temperature"], "cal_ts")
        values |= scaled_measures(evaluator, test_set, fit_scalings(held_out))
        coverage = set_coverage(evaluator, test_set, fit_thresholds(held_out, evaluator.class_counts))
        values |= coverage.values
    values |= surest_predictions(evaluator, test_set)
    if clean is not None:
        values |= _label_noise(evaluator, train_set, test_set, clean)
    if outliers:
        values |= evaluator.ood(train_set, test_set, {n: _LoadedSet.named(n, part) for n, part in outliers.items()})
    if transfer is not None:
        fit_set, scored_set = (_LoadedSet.named("transfer", part) for part in transfer)
        values |= evaluator.transfer(fit_set, scored_set, seed)
    if record is not None:
        names = [str(k) for k in range(num_classes)] if classes is None else list(classes)
        if len(names) != num_classes:
            raise ValueError(f"classes must hold a name for each of the {num_classes} classes, got {len(names)}")
        counts = evaluator.class_counts.tolist()
        outputs = evaluator.outputs(test_set)
        write_test_outputs(
            Path(record), outputs, classes=names, counts=counts, temperatures=temperatures, coverage=coverage.by_class
        )
    return values


@dataclass(eq=False)
class _LoadedSet:
    """The images of a loader, used in place of an image set."""

    loader: _Loader
    clean_labels: Tensor | None = None

    @classmethod
    def named(cls, name: str, loader: _Loader, clean: Tensor | None = None) -> EvaluationSet:
        return EvaluationSet(name, cls(loader, clean))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class _LinearView:
    """A linear layer with the attributes that the metrics read of a head."""

    weight: Tensor
    bias: Tensor | None
    num_classes: int
    scale: float = 1.0
    affine: bool = True


class _ModelEvaluator(Evaluator):
    """An evaluator of any module, over any loader."""

    def __init__(self, model: nn.Module, head: str | None) -> None:
        self._model = unwrap(model)
        self._path = head
        self._found = False
        self._kept, self._kept_results = {}, None
        self.class_counts = torch.zeros(0)

    def _backbone_ranks(self) -> dict[str, float]:
        return mean_stable_rank(self._model, without=self._model.get_submodule(self._path or ""))

    def set_counts(self, counts: Sequence[int] | None, labels: Tensor, num_classes: int) -> None:
        given = labels.bincount(minlength=num_classes).cpu() if counts is None else torch.as_tensor(list(counts))
        if given.shape != (num_classes,):
            raise ValueError(f"class_counts must hold {num_classes} numbers, got {tuple(given.shape)}")
        self.class_counts = given

    def collect(self, images: Any, indices: Tensor | None = None) -> Collected:  # noqa: ARG002
        with untouched(self._model):
            rows = [self._rows(batch) for batch in images.loader]
        if not rows:
            raise ValueError("cannot evaluate an empty data set: give a loader with at least one batch")
        return Collected(*(torch.cat(column) for column in zip(*rows, strict=True)))

    def _rows(self, batch: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inputs, labels, _ = unpack(batch)
        inputs = to_device(inputs, device_of(self._model))
        if not self._found:
            self._find_head(inputs)
        with captured_features(self._model, {}, self._path) as calls, eval_mode(self._model):
            logits = logits_of(call(self._model, inputs))
            features = calls[""][0] if len(calls[""]) == 1 else None
            if logits is None or logits.ndim != 2:
                raise ValueError(
                    f"evaluate needs a model that returns logits (N, K), got "
                    f"{None if logits is None else tuple(logits.shape)}: for tokens and pixels use nc_tools.measure"
                )
            if features is None or features.ndim != 2:
                raise ValueError(
                    f"the head {self._path!r} must run once on features (N, D): pass the name of the classifier layer, "
                    f"as in head='fc'"
                )
            if len(labels) != len(logits) or labels.ndim != 1 or labels.is_floating_point():
                raise ValueError(f"a batch of {len(logits)} needs as many labels, integers, got {tuple(labels.shape)}")
            embedded = features
            if isinstance(self.head, Head):
                embedded = self.head.outputs(features).embedded
        return features.float(), embedded.float(), logits.float(), labels.to(logits.device)

    def _find_head(self, inputs: Any) -> None:
        place = locate_to_measure(self._model, first_two(inputs), self._path)
        self._path, self.head = place.name, _view(place)
        self._found = True


def _view(place: FoundHead) -> HeadView:
    layer, weight = place.module, place.class_vectors
    if isinstance(layer, Head):
        return layer
    if weight is None:
        raise ValueError(f"evaluate reads the class vectors of a head, but {place.name!r} has no matrix (K, D)")
    bias = getattr(layer, "bias", None)
    return _LinearView(weight, bias, len(weight), affine=isinstance(layer, nn.Linear))


def _label_noise(
    evaluator: _ModelEvaluator, train: EvaluationSet, test: EvaluationSet, clean: Tensor
) -> dict[str, float]:
    """Return the measures of label noise that a run of a recipe has."""
    outputs = evaluator.outputs(train)
    values = evaluator.accuracy(train) | evaluator.clean_label_metrics(train) | evaluator.label_noise(train)
    values |= evaluator.dilation(test, evaluator.outputs(test).labels)
    counted = counted_transition(clean.cpu(), outputs.labels.cpu(), outputs.logits.shape[1])
    values["noise/transition_error_anchor"] = transition_error(anchor_transition(outputs.logits), counted)
    suspects = rank_suspects(outputs.features, outputs.logits, outputs.labels)
    return values | suspect_precision(suspects, outputs.labels.cpu() != clean.cpu())
