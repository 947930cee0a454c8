"""Predict with the model of a finished run: calibrated probabilities, and how unusual each image is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools.data.source_names import parse_source
from nc_tools.experiment.trained_model import TrainedModel, load_run
from nc_tools.experiment.weight_files import load_tensors
from nc_tools.ood import Energy

PREDICTIONS = "predictions.safetensors"
"""File of a run with the logits of its test images and its temperature."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions for N images and K classes.

    Attributes:
        probabilities: (N, K), softmax of the logits divided by the run's temperature.
        energy: (N,), log sum_k exp(z_k) of the logits z; the higher, the more an image looks like the training images.
        unusual: (N,), share of the run's test images with a higher energy: at .99, an image is more unusual than 99 %
            of them. None if the run has no test images on record.
    """

    probabilities: Tensor
    energy: Tensor
    unusual: Tensor | None

    @property
    def labels(self) -> Tensor:
        """The class with the largest probability, (N,)."""
        return self.probabilities.argmax(1)


@dataclass(frozen=True, eq=False)
class Predictor:
    """The model of a finished run with its temperature and the energies of its test images.

    Attributes:
        trained: The run's model, classes and preprocessing.
        temperature: Fitted on the hold-out of the run; 1 if it had none.
        reference: Energies of the run's N test images in ascending order (N,); None if they are not on record.

    Example::

        predictor = Predictor.load("outputs/long_tail/runs/etf-s0-d0-final-1a2b3c4d")
        predictions = predictor(images)  # uint8 (N, C, H, W)
        names = [predictor.classes[label] for label in predictions.labels]
    """

    trained: TrainedModel
    temperature: float = 1.0
    reference: Tensor | None = None

    @classmethod
    def load(
        cls, run: Path | str, *, device: torch.device | str = "cpu", modules: Iterable[ModuleType] = ()
    ) -> Predictor:
        """Load the model of a finished run, or of a safetensors export of one.

        Args:
            run: The folder.
            device: Where to put the model.
            modules: As for :func:`nc_tools.load_run`.

        Raises:
            FileNotFoundError: If there is no such run, or it has no weights.
            ValueError: If one of its files is damaged or names code that is not in ``modules``.
        """
        trained = load_run(run, device=device, modules=modules)
        path = Path(run) / PREDICTIONS
        if not path.exists():
            return cls(trained)
        tensors = load_tensors(path)
        logits = tensors.get("test_logits")
        if logits is not None and (
            logits.ndim != 2 or logits.shape[1] != trained.facts.num_classes or not logits.is_floating_point()
        ):
            raise DamagedFileError(
                f"{path} must hold floating-point test_logits (N, {trained.facts.num_classes}), got {logits.dtype} of "
                f"shape {tuple(logits.shape)}: it belongs to another run"
            )
        return cls(
            trained,
            _temperature(tensors, path),
            None if logits is None or not len(logits) else energies(logits).sort().values,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.trained.facts.classes

    @property
    def is_calibrated(self) -> bool:
        """Whether the probabilities are scaled by a fitted temperature (other than 1)."""
        return self.temperature != 1.0

    def check_takes_images(self) -> None:
        """Check that the model was trained on images, and not on features from a file.

        Raises:
            ValueError: If it was trained on features; the message says how to use such a model.
        """
        if parse_source(self.trained.config.data.source).kind == "embeddings":
            width = self.trained.facts.image_shape[0]
            raise ValueError(
                f"this model was trained on features of {width} dimensions and not on images: compute the features in "
                f"the same way, and give them to nc_tools.load_run(FOLDER).model, which takes (N, {width}); the format "
                f"safetensors takes it to another machine"
            )

    def __call__(self, images: Tensor) -> Predicted:
        """Predict for uint8 images (N, C, H, W).

        Raises:
            ValueError: If images are not uint8, or have another shape than a network without preprocessing takes.
        """
        logits = self.trained.predict(images).cpu()
        energy = energies(logits)
        unusual = None
        if self.reference is not None:
            higher = len(self.reference) - torch.searchsorted(self.reference, energy, right=True)
            unusual = higher.double() / len(self.reference)
        return Predicted((logits / self.temperature).softmax(1), energy, unusual)


def energies(logits: Tensor) -> Tensor:
    """Return the energy score (N,) of logits (N, K), float64; see :class:`nc_tools.ood.Energy`."""
    no_features = logits.new_zeros(len(logits), 1)
    return Energy().fit(no_features, logits, torch.zeros(len(logits)).long()).score_samples(no_features, logits)


def _temperature(tensors: Mapping[str, Tensor], path: Path) -> float:
    stored = tensors.get("temperature")
    if stored is None:
        return 1.0
    if stored.numel() != 1 or not 0 < float(stored) < math.inf:
        raise DamagedFileError(f"{path} must hold one positive number as temperature, got {stored.tolist()[:3]}")
    return float(stored)
