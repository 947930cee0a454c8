"""The evaluator of a trained model: it passes each image set through the model once, for all metrics together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nc_tools._support.by_content import ByContent
from nc_tools._support.class_sums import class_sums
from nc_tools.data.image_set import Images
from nc_tools.evaluation.collect import collect
from nc_tools.evaluation.further_measures import (
    class_vector_geometry,
    duality_with,
    further_calibration,
    further_collapse,
    mean_stable_rank,
    means_by_frequency,
)
from nc_tools.evaluation.head_view import HeadView, class_vectors
from nc_tools.evaluation.ood_values import ood_values
from nc_tools.metrics import (
    calibration,
    classification,
    memorization,
    neural_collapse,
    outlier_orthogonality,
    transfer_report,
)
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch, Collected

PlainBatches = Callable[[Images, Tensor | None], Iterable[Batch]]
"""Returns the batches of all images, or of the images at some indices, in order and without augmentation."""


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """A named set of images on which a model is evaluated.

    Attributes:
        name: First part of the keys of its metrics, such as "train" or "test".
        images: The images that the set is taken from.
        indices: Positions of the set's images (M,), int64; None for all of them.
    """

    name: str
    images: Images
    indices: Tensor | None = None

    @property
    def clean_labels(self) -> Tensor | None:
        """True labels (M,) if the set's labels are noisy and its true labels are known; otherwise None.

        They are for reporting only: choose nothing by them.
        """
        clean = self.images.clean_labels
        return clean if clean is None or self.indices is None else clean[self.indices]


class Evaluator:
    """Computes the metrics of one model, whose weights must not change while the evaluator is used.

    The metrics of a set read the outputs of one pass over it, which is made when they are first needed and kept until
    :meth:`release`. Every method returns ``<set>/<group>/<metric>``: "test/gen/accuracy", "train/nc/nc1_pinv".

    Args:
        model: The classifier, on its device.
        plain_batches: Returns the batches of a set, on the same device.
        class_counts: Training samples of each class (K,), which decide the frequency groups.
        dtype: Arithmetic of the backbone, as in training.
        kept_results: Results that the evaluators of several models share where their features are equal, as those of
            heads on a frozen backbone; None to share nothing.
    """

    def __init__(
        self,
        model: Classifier,
        plain_batches: PlainBatches,
        *,
        class_counts: Sequence[int],
        dtype: torch.dtype,
        kept_results: ByContent | None = None,
    ) -> None:
        self.model = model
        self.head: HeadView = model.head
        self.plain_batches = plain_batches
        self.class_counts = torch.tensor(class_counts)
        self.dtype = dtype
        self._kept_results = kept_results
        self._kept: dict[tuple[int, int], tuple[EvaluationSet, Collected]] = {}

    def collect(self, images: Images, indices: Tensor | None = None) -> Collected:
        """Return the model's outputs on images, without keeping them for other metrics."""
        return collect(self.model, self.plain_batches(images, indices), dtype=self.dtype)

    def outputs(self, part: EvaluationSet) -> Collected:
        """Return the model's outputs on a set, and keep them; two sets of the same images share them."""
        key = (id(part.images), id(part.indices))  # the set is kept with its outputs, so that no id is used again
        if key not in self._kept:
            self._kept[key] = (part, self.collect(part.images, part.indices))
        return self._kept[key][1]

    def release(self) -> None:
        """Delete all kept model outputs to free memory."""
        self._kept.clear()

    def accuracy(self, part: EvaluationSet) -> dict[str, float]:
        """Return accuracy metrics as ``<set>/gen/`` and calibration metrics as ``<set>/cal/``."""
        return self._accuracy(part.name, self.outputs(part), "")

    def calibration(self, part: EvaluationSet, temperature: float, group: str) -> dict[str, float]:
        """Return the calibration metrics of ``logits / temperature``, as ``<set>/<group>/``."""
        outputs = self.outputs(part)
        values = calibration(outputs.logits / temperature, outputs.labels)
        return {f"{part.name}/{group}/{key}": value for key, value in values.items()}

    def collapse(self, part: EvaluationSet) -> dict[str, float]:
        """Return neural-collapse metrics of the backbone's features and of the features after the head's own map.

        ``<set>/nc/`` is about the backbone's features and can be compared between heads. ``<set>/nc_embedded/`` is
        about the features that the head compares with its class vectors; it is left out if both are the same. NC3 needs
        features and class vectors in one space: ``nc_embedded`` always has it, and ``nc`` has it if the class vectors
        have the width of the backbone's features.
        """
        return self._collapse(part.name, self.outputs(part), "")

    def further_measures(self, train: EvaluationSet, test: EvaluationSet) -> dict[str, float]:
        """Return the measures that only final models have: more of calibration, of collapse and of the head.

        Their keys begin with ``<test>/gen/``, ``<test>/cal/``, ``<test>/cal_groups/<group>/``, ``<set>/nc/``,
        ``<set>/nc_embedded/``, ``head/`` and ``backbone/``.
        """
        outputs = self.outputs(test)
        values = {
            f"{test.name}/{key}": value
            for key, value in further_calibration(outputs.logits, outputs.labels, self.class_counts).items()
        }
        for part in (train, test):
            outputs = self.outputs(part)
            for space, (points, rows, _) in self._spaces(outputs).items():
                measures = self._collapse_of_features(points, outputs.labels)
                if rows is not None:
                    measures |= duality_with(rows, points, outputs.labels)
                values |= {f"{part.name}/{space}/{key}": value for key, value in measures.items()}
        return values | self.by_frequency(train) | {f"backbone/{k}": v for k, v in self._backbone_ranks().items()}

    def by_frequency(self, part: EvaluationSet) -> dict[str, float]:
        """Return the geometry of rare and frequent classes: of class means, ``<set>/nc/``, and of the head, ``head/``.

        The class means are those of the backbone's features.
        """
        outputs = self.outputs(part)
        counts = self.class_counts.to(outputs.labels.device)
        means = means_by_frequency(outputs.features, outputs.labels, counts)
        vectors = class_vector_geometry(self.head.weight.detach().float(), counts)
        return {f"{part.name}/nc/{key}": value for key, value in means.items()} | {
            f"head/{key}": value for key, value in vectors.items()
        }

    def clean_label_metrics(self, part: EvaluationSet) -> dict[str, float]:
        """Return accuracy, calibration and collapse under the true labels: ``<set>/gen_clean/``, ``cal_clean/``, ...

        Empty where no true labels are known.
        """
        if (clean := part.clean_labels) is None:
            return {}
        outputs = self.outputs(part)
        outputs = replace(outputs, labels=clean.to(outputs.labels.device))
        return self._accuracy(part.name, outputs, "_clean") | self._collapse(part.name, outputs, "_clean")

    def label_noise(self, part: EvaluationSet) -> dict[str, float]:
        """Return metrics of wrong labels in a set, as ``<set>/noise/``: their share, memorization, dilation.

        Empty where no true labels are known.
        """
        if (clean := part.clean_labels) is None:
            return {}
        outputs = self.outputs(part)
        clean = clean.to(outputs.labels.device)
        values = {f"{part.name}/noise/rate": float((outputs.labels != clean).double().mean())}
        values |= self.dilation(part, clean)
        memorized = memorization(outputs.features, outputs.logits, outputs.labels, clean)
        return values | {f"{part.name}/noise/{key}": value for key, value in memorized.items()}

    def dilation(self, part: EvaluationSet, true_labels: Tensor) -> dict[str, float]:
        """Return ``<set>/noise/dilation``, the ratio tr(S_W) / tr(S_B) for true labels (N,); empty if undefined.

        Memorizing wrong labels increases the spread of the classes, and so this ratio (Nguyen et al. 2023).
        """
        outputs = self.outputs(part)
        values = neural_collapse(outputs.features, true_labels, num_classes=outputs.logits.shape[1])
        return {f"{part.name}/noise/dilation": values["nc1_trace"]} if "nc1_trace" in values else {}

    def ood(self, train: EvaluationSet, test: EvaluationSet, outliers: Mapping[str, EvaluationSet]) -> dict[str, float]:
        """Return how well each score separates outliers from test images, as ``<test>/ood/<outliers>/<score>/``.

        ``mean`` in place of the outliers is the mean AUROC over the sets; ``nc5`` in place of a score is how far the
        outliers are from being orthogonal to the class means.

        Scores are fitted on the training set. They read the embedded features, which lie in the space of the head's
        class vectors. If the logits are not an affine function of them, scores that need class vectors are left out.

        Args:
            train: The training set.
            test: Images of the same classes that were not trained on.
            outliers: Images of other classes, by name.
        """
        weight, bias = class_vectors(self.head)
        collected = {name: self.outputs(part) for name, part in outliers.items()}
        fitted = self.outputs(train)
        values = ood_values(fitted, self.outputs(test), collected, weight, bias, self._kept_results)
        values |= self._orthogonality(fitted, collected)
        scores = {key.partition("/")[2] for key in values if key.endswith("/auroc")}
        for score in sorted(scores):
            of_sets = [values[key] for name in collected if (key := f"{name}/{score}") in values]
            values[f"mean/{score}"] = sum(of_sets) / len(of_sets)
        return {f"{test.name}/ood/{key}": value for key, value in values.items()}

    def transfer(self, train: EvaluationSet, test: EvaluationSet, seed: int) -> dict[str, float]:
        """Return the accuracy of simple classifiers on frozen features of a transfer set, as ``transfer/``.

        Args:
            train: Images of the transfer classes, to fit the classifiers on.
            test: Images of the same classes, to score the classifiers on.
            seed: Seed of the random choices in fitting.
        """
        fitted, scored = self.outputs(train), self.outputs(test)
        values = transfer_report(fitted.features, fitted.labels, scored.features, scored.labels, seed)
        return {f"transfer/{key}": value for key, value in values.items()}

    def _collapse_of_features(self, points: Tensor, labels: Tensor) -> dict[str, float]:
        classes = self.head.num_classes

        def compute() -> dict[str, float]:
            return further_collapse(points, labels, classes)

        return dict(
            compute() if self._kept_results is None else self._kept_results(f"{classes}", [points, labels], compute)
        )

    def _accuracy(self, name: str, outputs: Collected, suffix: str) -> dict[str, float]:
        shares = classification(outputs.logits, outputs.labels, self.class_counts)
        errors = calibration(outputs.logits, outputs.labels)
        values = {f"{name}/gen{suffix}/{key}": value for key, value in shares.items()}
        return values | {f"{name}/cal{suffix}/{key}": value for key, value in errors.items()}

    def _collapse(self, name: str, outputs: Collected, suffix: str) -> dict[str, float]:
        return {
            f"{name}/{space}{suffix}/{key}": value
            for space, (points, rows, offsets) in self._spaces(outputs).items()
            for key, value in neural_collapse(
                points, outputs.labels, rows, offsets, self.head.num_classes, logits=outputs.logits
            ).items()
        }

    def _spaces(self, outputs: Collected) -> dict[str, tuple[Tensor, Tensor | None, Tensor | None]]:
        """Return features, class vectors and biases before ("nc") and after ("nc_embedded") the head's own map.

        There is no "nc_embedded" if the map changes nothing. The class vectors and biases of "nc" are None if the class
        vectors do not have the width of the backbone's features.
        """
        head, features, embedded = self.head, outputs.features, outputs.embedded
        weight = head.weight.detach().float()
        bias = None if head.bias is None else head.bias.detach().float()
        same_width = weight.shape[1] == features.shape[1]
        spaces = {"nc": (features, weight if same_width else None, bias if same_width else None)}
        if embedded is not features and (embedded.shape != features.shape or not torch.equal(embedded, features)):
            spaces["nc_embedded"] = (embedded, weight, bias)
        return spaces

    def _backbone_ranks(self) -> dict[str, float]:
        return mean_stable_rank(self.model.backbone)

    def _orthogonality(self, fitted: Collected, outliers: Mapping[str, Collected]) -> dict[str, float]:
        counts, sums = class_sums(fitted.features, fitted.labels, self.head.num_classes)
        means = sums / counts.clamp(min=1)[:, None]
        return {
            f"{name}/{key}": value
            for name, part in outliers.items()
            for key, value in outlier_orthogonality(means, part.features, counts).items()
        }
