"""The whole model of a run on features of a pretrained backbone, whose own record holds the head alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from nc_tools.experiment.build import DataFacts, build_model
from nc_tools.experiment.model_config import ModelConfig
from nc_tools.experiment.on_features.head_records import HEAD_WEIGHTS
from nc_tools.experiment.run_backbone import backbone_record, write_backbone_files
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.trained_model import read_settings
from nc_tools.experiment.weight_files import load_tensors, save_weights
from nc_tools.models.classifier import Classifier
from nc_tools.run_records import RunIdentity


def write_whole_model(run: Path, target: Path, model: ModelConfig) -> None:
    """Copy the record of a finished run to another folder, with the weights of the whole model.

    The copy needs neither the data nor the pretrained weights: ``load_run(target)`` loads it.

    Args:
        run: The folder of a final run.
        target: The new folder; one that is there already is replaced.
        model: The settings of the backbone. The record must hold the same, so that it never decides which function
            builds the network or which weights are read.

    Raises:
        ValueError: If the record is of another backbone, or the pretrained weights are not those that the features
            were computed with.
        FileNotFoundError: If the pretrained weights are missing.
    """
    staged = target.with_name(f".{target.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(run, staged)
    if (staged / HEAD_WEIGHTS).exists():
        identity = RunIdentity.read(run / "run.json")
        config, facts = read_settings(identity)
        if config.model != model:
            raise ValueError(f"{run / 'run.json'} is the record of another backbone: {config.model}, not {model}")
        save_weights(_assembled(run, identity, config, facts), staged / "weights.safetensors")
        write_backbone_files(config.model, staged)
        (staged / HEAD_WEIGHTS).unlink()
    shutil.rmtree(target, ignore_errors=True)
    staged.rename(target)


def _assembled(run: Path, identity: RunIdentity, config: RunConfig, facts: DataFacts) -> Classifier:
    """Return the model with the backbone's pretrained weights and the run's head."""
    now = backbone_record(config.model, in_channels=facts.in_channels, image_size=facts.image_size)
    recorded = identity.data.get("backbone") or {}
    if now["backbone"]["sha256"] != recorded.get("sha256"):
        raise ValueError(
            f"the weights of {config.model.name} have changed since {run.name} was made: its head does not fit their "
            f"features. Give the former weights, or make the run again"
        )
    frame_seed = None if identity.frame_seed == "unknown" else identity.frame_seed
    model = build_model(config, facts, seed=identity.seed, frame_seed=frame_seed)
    missing, unexpected = model.load_state_dict(load_tensors(run / HEAD_WEIGHTS), strict=False)
    lost = [name for name in missing if name.startswith("head.")]
    if unexpected or lost:
        raise ValueError(f"{run / HEAD_WEIGHTS} does not fit its run: {', '.join([*unexpected, *lost][:5])}")
    return model
