"""The trained model of a finished run, loaded from the run's folder."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nc_tools.data.augment import Normalize
from nc_tools.evaluation.collect import EVALUATION_BATCH
from nc_tools.experiment.build import DataFacts, build_model
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.serialize import decode
from nc_tools.experiment.weight_files import load_weights
from nc_tools.models.classifier import Classifier
from nc_tools.training.loop import autocast


@dataclass(frozen=True)
class TrainedModel:
    """A trained classifier with the facts about its data, such as class names and normalization.

    Attributes:
        model: The classifier, in eval mode; its inputs are normalized images.
        facts: Classes, their training counts, image size, mean and standard deviation.
        config: The arm.
    """

    model: Classifier
    facts: DataFacts
    config: RunConfig

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images, uint8 (N, C, H, W); they equal those of the run's own evaluation."""
        shape = (self.facts.in_channels, self.facts.image_size, self.facts.image_size)
        if images.dtype != torch.uint8 or images.shape[1:] != shape:
            raise ValueError(
                f"images must be uint8 of shape (N, {', '.join(map(str, shape))}), got {images.dtype} of shape "
                f"{tuple(images.shape)}: resize or convert them"
            )
        device, training = next(self.model.parameters()).device, self.config.training
        layout = training.layout_on(device)
        normalize = Normalize(
            self.facts.mean, self.facts.std, device=device, channels_last=layout is torch.channels_last
        )
        logits = []
        for part in torch.split(images, EVALUATION_BATCH):
            with autocast(device, training.dtype_on(device)):
                features = self.model.backbone(normalize(part.to(device)))
            logits.append(self.model.head.outputs(features).logits.float())
        return torch.cat(logits)


def load_run(run: Path | str, *, device: torch.device | str = "cpu") -> TrainedModel:
    """Load the trained model of a finished run.

    Args:
        run: The run's folder, such as ``outputs/long_tail/runs/etf-s0-d0-final-1a2b3c4d``.
        device: Where to put the model.

    Raises:
        FileNotFoundError: If there is no such run, or it has no weights.
        ValueError: If a class that the run was made with cannot be imported.

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
    record = json.loads((path / "run.json").read_text())
    config: RunConfig = decode(record["config"])
    names = {f.name for f in dataclasses.fields(DataFacts)}
    facts = DataFacts(**{k: decode(v) for k, v in record["data"].items() if k in names})
    # Records of version 0.1 hold no frame_seed: there the number of the draw was the seed of the frame.
    frame_seed = record.get("frame_seed", record["draw"])
    model = build_model(config, facts, seed=record["seed"], frame_seed=frame_seed)
    load_weights(model, path / "weights.safetensors")
    config.training.place(model, torch.device(device))
    return TrainedModel(model.eval(), facts, config)
