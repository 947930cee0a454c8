"""The trained model of a finished run, loaded from the run's folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nc_tools._support.allocation_limit import AllocationLimit
from nc_tools._support.damaged_file import DamagedFileError
from nc_tools.data.batch_options import BatchOptions
from nc_tools.evaluation.collect import evaluation_batch
from nc_tools.experiment.build import DataFacts, build_model
from nc_tools.experiment.class_path import path_of
from nc_tools.experiment.deserialize import decode
from nc_tools.experiment.model_config import ModelConfig
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.weight_files import load_weights
from nc_tools.models.classifier import Classifier
from nc_tools.run_records import RunIdentity
from nc_tools.surgery.layers import device_of
from nc_tools.training.in_steps import autocast

# Limits of a tensor while a model is built, in bytes: activations of two images may be larger than all weights.
_MIN_BYTES, _TIMES_WEIGHTS = 2**30, 16


@dataclass(frozen=True)
class TrainedModel:
    """A trained classifier with the facts about its data, such as class names and normalization.

    Attributes:
        model: The classifier, in eval mode; its inputs are normalized images.
        facts: Classes, their training counts, image size, mean and standard deviation.
        config: The arm.
        identity: The contents of run.json, such as seed and kind of the run.
    """

    model: Classifier
    facts: DataFacts
    config: RunConfig
    identity: RunIdentity

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images, uint8 (N, C, H, W); they equal those of the run's own evaluation.

        Raises:
            ValueError: If the images have another dtype or shape.
        """
        device, training = device_of(self.model), self.config.training
        to_inputs = self._to_inputs(images, device)
        logits = []
        for part in torch.split(images, evaluation_batch(self.facts.image_shape[1])):
            with autocast(device, training.dtype_on(device)):
                features = self.model.backbone(to_inputs(part.to(device)))
            logits.append(self.model.head.outputs(features).logits.float())
        return torch.cat(logits)

    def _to_inputs(self, images: Tensor, device: torch.device) -> Callable[[Tensor], Tensor]:
        facts, expected = self.facts, self.facts.preprocessing
        shape = (facts.in_channels, facts.image_size, facts.image_size)
        if images.dtype != torch.uint8 or images.ndim != 4 or (expected is None and images.shape[1:] != shape):
            raise ValueError(
                f"images must be uint8 of shape (N, {', '.join(map(str, shape))}), got {images.dtype} of shape "
                f"{tuple(images.shape)}: resize or convert them"
            )
        return BatchOptions(
            batch_size=1,
            mean=facts.mean if expected is None else expected.mean,
            std=facts.std if expected is None else expected.std,
            geometry=None if expected is None else expected.geometry,
            device=device,
            channels_last=self.config.training.layout_on(device) is torch.channels_last,
        ).to_inputs()


def load_run(
    run: Path | str, *, device: torch.device | str = "cpu", modules: Iterable[ModuleType] = ()
) -> TrainedModel:
    """Load the trained model of a finished run.

    A run's folder may come from other people: it decides numbers, never which code runs. The classes that it names must
    be heads, losses and settings of nc_tools, optimizers of ``torch.optim``, or classes of ``modules``.

    Args:
        run: The run's folder, such as ``outputs/long_tail/runs/etf-s0-d0-final-1a2b3c4d``.
        device: Where to put the model.
        modules: The modules of your own heads, losses and networks, if the run was made with some, as in
            ``modules=[my_heads]``. Classes of the running script need not be given.

    Raises:
        FileNotFoundError: If there is no such run, or it has no weights.
        DamagedFileError: If a file of the run is damaged, or names a class that is not allowed.

    Example::

        trained = nc_tools.load_run("outputs/long_tail/runs/etf-s0-d0-final-1a2b3c4d")
        logits = trained.predict(images)  # uint8 (N, C, H, W)
    """
    path = Path(run)
    for name in ("run.json", "weights.safetensors"):
        if not (path / name).exists():
            raise FileNotFoundError(
                f"{path} is not the folder of a finished run, because it has no {name}: give the folder of a final "
                f"run, such as outputs/long_tail/runs/etf-s0-d0-final-1a2b3c4d"
            )
    identity = RunIdentity.read(path / "run.json")
    modules = tuple(modules)
    try:
        config, facts = read_settings(identity, modules)
        _check_own_network(config.model, modules)
        # Records of version 0.1 hold no frame_seed: there the number of the draw was the seed of the frame.
        frame_seed = identity.draw if identity.frame_seed == "unknown" else identity.frame_seed
        with AllocationLimit(max(_MIN_BYTES, _TIMES_WEIGHTS * (path / "weights.safetensors").stat().st_size)):
            model = build_model(config, facts, seed=identity.seed, frame_seed=frame_seed, restore=path)
    except Exception as error:  # a network fails in many ways on settings that do not fit each other
        raise DamagedFileError(f"the model of {path / 'run.json'} cannot be built: {error}") from error
    load_weights(model, path / "weights.safetensors")
    config.training.place(model, torch.device(device))
    return TrainedModel(model.eval(), facts, config, identity)


def read_settings(identity: RunIdentity, modules: Iterable[ModuleType] = ()) -> tuple[RunConfig, DataFacts]:
    """Return the configuration of a run and the facts about its data, from its record.

    Args:
        identity: The contents of its run.json.
        modules: As for :func:`load_run`.

    Raises:
        ValueError: If the record holds something that is not allowed there.
    """
    config: RunConfig = decode(identity.config, RunConfig, modules=modules)
    return config, _facts(identity.data)


def _check_own_network(model: ModelConfig, modules: Iterable[ModuleType]) -> None:
    """Raise a ValueError unless the caller has passed the module of a function that the record names as the network."""
    if model.network is not None or not model.is_own:
        return
    module = model.name.partition(":")[0]
    if module not in {given.__name__ for given in modules}:
        raise ValueError(
            f"its network is made by {model.name}, and a file never decides which code runs: pass the module, as in "
            f"load_run(folder, modules=[{module}]) or --modules {module}"
        )


def _facts(data: Mapping[str, Any]) -> DataFacts:
    """Return the facts in a run's record, which decide the sizes of its model."""
    names = {field.name for field in dataclasses.fields(DataFacts)}
    given = {"dataclass": path_of(DataFacts), **{name: value for name, value in data.items() if name in names}}
    facts: DataFacts = decode(given, DataFacts, name="data")
    of_classes = (facts.num_classes, len(facts.classes), len(facts.class_counts))
    if len(set(of_classes)) > 1 or facts.num_classes < 1:
        raise ValueError(
            f"data must hold num_classes names and class counts, got {of_classes[1]} and {of_classes[2]} for "
            f"num_classes={of_classes[0]}"
        )
    of_channels = (facts.in_channels, len(facts.mean), len(facts.std))
    if len(set(of_channels)) > 1 or facts.in_channels < 1 or facts.image_size < 1:
        raise ValueError(
            f"data must hold one mean and one std for each channel of images of at least 1 pixel, got {of_channels[1]} "
            f"and {of_channels[2]} for {facts.in_channels} channels of {facts.image_size} pixels"
        )
    if not all(math.isfinite(value) for value in (*facts.mean, *facts.std)) or min(facts.std) <= 0:
        raise ValueError(f"data.mean and data.std must be finite and std positive, got {facts.mean} and {facts.std}")
    return facts
