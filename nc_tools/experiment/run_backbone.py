"""The backbone of a run: built from its configuration, or restored from the run's folder without any download."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.regular_file import check_regular
from nc_tools.experiment.model_config import ModelConfig
from nc_tools.experiment.serialize import encode
from nc_tools.features import Standardize
from nc_tools.models.backbones import build_backbone
from nc_tools.models.feature_width import feature_width
from nc_tools.models.function_backbone import call_function
from nc_tools.models.image_preprocessing import ImagePreprocessing
from nc_tools.models.pretrained import BackboneIdentity, PretrainedBackbone, load_backbone
from nc_tools.models.state_dict_files import load_into, read_state_dict, tensor_hash
from nc_tools.run_records.json_files import MAX_JSON_BYTES
from nc_tools.seeds import stream_seed
from nc_tools.training.trained_part import TrainedPart, lora_targets, train_part

BACKBONE_FOLDER = "backbone"
"""Folder of a run with the settings of a Hugging Face network, from which it is built again."""
_SMALL_SET = 20_000


def new_backbone(model: ModelConfig, *, in_channels: int, image_size: int, num_samples: int, seed: int) -> nn.Module:
    """Return the backbone of a configuration at the start of training, frozen but for the part that is trained.

    Args:
        model: The configuration.
        in_channels: Channels of the data's images.
        image_size: Side of the data's images.
        num_samples: Size of the whole training set, which decides whether batch statistics are kept.
        seed: Seed of the weights that no file gives.
    """
    if model.is_own:
        backbone = _own_network(model, in_channels, image_size, seed)
    elif model.weights is not None:
        backbone = copy.deepcopy(pretrained_of(model).module)
    elif model.is_pretrained:  # an hf: network with random weights, which are other ones for each seed
        backbone = load_backbone(model.name, image_size=model.image_size, seed=seed).module
    else:
        backbone = build_backbone(
            model.name, in_channels=in_channels, image_size=image_size, width=model.width, seed=seed
        )
    expected = preprocessing_of(model, in_channels=in_channels, image_size=image_size)
    return _standardized(_partly_trained(backbone, model, num_samples, seed), model, expected, in_channels, image_size)


def restored_backbone(
    model: ModelConfig, preprocessing: ImagePreprocessing | None, run: Path, *, in_channels: int, image_size: int,
    num_samples: int,
) -> nn.Module:  # fmt: skip
    """Return the backbone of a finished run, with weights that are still to be loaded; nothing is downloaded.

    Args:
        model: The run's configuration.
        preprocessing: The preprocessing in the run's record; None if it has none.
        run: The run's folder.
        in_channels: As for :func:`new_backbone`.
        image_size: As there.
        num_samples: As there.
    """
    if model.is_pretrained and preprocessing is not None:
        name = model.name
        if name.startswith("hf:"):
            name = f"hf:{run / BACKBONE_FOLDER}"
            for file in (run / BACKBONE_FOLDER).iterdir():
                check_regular(file, max_bytes=MAX_JSON_BYTES)
        with _offline():  # the settings of a network may name another repository
            backbone = load_backbone(name, image_size=preprocessing.size).module
    elif model.is_own:
        backbone = _own_network(model, in_channels, image_size, 0, with_weights=False)
    else:
        backbone = build_backbone(model.name, in_channels=in_channels, image_size=image_size, width=model.width)
    trained = _partly_trained(backbone, model, num_samples, 0)
    return _standardized(trained, model, preprocessing, in_channels, image_size)


@contextmanager
def _offline() -> Iterator[None]:
    """Keep huggingface_hub from the network within the block."""
    try:
        from huggingface_hub import constants
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def preprocessing_of(model: ModelConfig, *, in_channels: int, image_size: int) -> ImagePreprocessing | None:
    """Return the preprocessing that a network expects; None for images as the data have them.

    Args:
        model: The configuration.
        in_channels: Channels of the data's images.
        image_size: Side of the data's images.

    Raises:
        TypeError: If the attribute ``preprocessing`` of a user's network is not an ``ImagePreprocessing``.
    """
    if model.is_pretrained:
        return pretrained_of(model).preprocessing
    if not model.is_own:
        return None
    expected = getattr(_own_network(model, in_channels, image_size, 0), "preprocessing", None)
    if expected is not None and not isinstance(expected, ImagePreprocessing):
        raise TypeError(
            f"the attribute preprocessing of an own network must be an ImagePreprocessing, got "
            f"{type(expected).__name__}"
        )
    if expected is None or (model.image_size is None and model.crop_fraction is None):
        return expected
    return expected.at_size(model.image_size or expected.size, crop_fraction=model.crop_fraction)


def backbone_record(model: ModelConfig, *, in_channels: int, image_size: int) -> dict[str, Any]:
    """Return what a run's record holds of its backbone besides the configuration; nothing for one without weights.

    Args:
        model: The configuration.
        in_channels: Channels of the data's images.
        image_size: Side of the data's images.
    """
    if not (model.is_pretrained or model.is_own):
        return {}
    expected = preprocessing_of(model, in_channels=in_channels, image_size=image_size)
    part = TrainedPart.parse(model.train)
    if model.is_pretrained:
        identity = encode(pretrained_of(model).identity)
    else:
        # Hash of the network of seed 0: it shows whether a function, or the weights that it loads, have changed.
        identity = {"sha256": tensor_hash(_own_network(model, in_channels, image_size, 0).state_dict())}
    if part.kind == "lora":
        plain = pretrained_of(model).module if model.is_pretrained else _own_network(model, in_channels, image_size, 0)
        identity["lora_layers"] = lora_targets(plain, model.lora_layers)  # a library may rename its layers
    return {"preprocessing": encode(expected), "backbone": identity}


def write_backbone_files(model: ModelConfig, run: Path) -> None:
    """Write the settings of a Hugging Face network into a run's folder, so that it can be built without a download."""
    if model.is_pretrained:
        for name, text in pretrained_of(model).files.items():
            (run / BACKBONE_FOLDER).mkdir(exist_ok=True)
            with atomic_write(run / BACKBONE_FOLDER / name) as part:
                part.write_text(text, encoding="utf-8")


def describe_backbone(model: ModelConfig) -> str | None:
    """Return a line about a pretrained backbone, its preprocessing and license; None for another network."""
    if not model.is_pretrained:
        return None
    loaded = pretrained_of(model)
    identity = loaded.identity
    licence = identity.licence or "not stated"
    weights = identity.weights if identity.weights in ("pretrained", "random") else f"weights of {identity.weights}"
    return (
        f"{identity.name}, {weights} (tensors {identity.sha256[:12]}, licence {licence}), trained: {model.train}, "
        f"{loaded.feature_dim} features; images: {loaded.preprocessing}"
    )


def pretrained_of(model: ModelConfig) -> PretrainedBackbone:
    """Return the pretrained backbone of a configuration; a process loads it once. Do not change its module."""
    source = model.weights_source
    stamp = source.stat().st_mtime_ns if isinstance(source, Path) and source.exists() else 0
    return _load(model.name, source, model.image_size, model.crop_fraction, stamp)


@lru_cache(maxsize=2)
def _load(
    name: str, weights: Path | Literal["pretrained"] | None, image_size: int | None, crop: float | None, _stamp: int
) -> PretrainedBackbone:
    """Load a pretrained backbone; a worker that makes several runs of one comparison loads it once."""
    return load_backbone(name, weights=weights, image_size=image_size, crop_fraction=crop)


def frozen_backbone(
    model: ModelConfig, *, in_channels: int, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> PretrainedBackbone:
    """Return the backbone whose features heads are trained on, with the preprocessing of its images.

    Args:
        model: The configuration: a pretrained network, or one of the user's own.
        in_channels: Channels of the data's images.
        image_size: Side of the data's images.
        mean: Mean of each channel of the data (C,), for a user's network without a preprocessing.
        std: Standard deviation of each channel (C,), likewise.

    Raises:
        ValueError: If the network has random weights.
    """
    if model.is_pretrained and model.weights is not None:
        return replace(pretrained_of(model), module=copy.deepcopy(pretrained_of(model).module))
    if not model.is_own:
        raise ValueError(
            f"features come from a pretrained network, but {model.name!r} has random weights: give --model timm:NAME "
            f"--weights pretrained, or --weights FILE.safetensors"
        )
    module = _own_network(model, in_channels, image_size, 0)
    expected = preprocessing_of(model, in_channels=in_channels, image_size=image_size)
    if expected is None:
        expected = ImagePreprocessing(mean=tuple(mean), std=tuple(std), size=image_size, resize_size=image_size)
    width = feature_width(module, in_channels=expected.channels, image_size=expected.size, name=model.name)
    digest = tensor_hash(module.state_dict())
    return PretrainedBackbone(module, width, expected, BackboneIdentity(model.name, "own", None, digest, None, ""))


def _own_network(
    model: ModelConfig, in_channels: int, image_size: int, seed: int, *, with_weights: bool = True
) -> nn.Module:
    """Build a class or call a function of the user, with random numbers from the stream "init"."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(stream_seed(seed, "init"))
        if model.network is not None:
            network: nn.Module = model.network.build({"in_channels": in_channels, "image_size": image_size})
        else:
            network = call_function(*model.name.split(":", 1))
    source = model.weights_source
    if source is None or not with_weights:
        return network
    if not isinstance(source, Path):
        raise ValueError(
            f"model.weights='pretrained' is for networks of a library, and {model.name} is your own: load its weights "
            f"in the function or class, or give a file"
        )
    load_into(network, read_state_dict(source), str(source))
    return network


def _standardized(
    backbone: nn.Module, model: ModelConfig, expected: ImagePreprocessing | None, in_channels: int, image_size: int
) -> nn.Module:
    """Return the backbone followed by the standardization of its features, if the configuration asks for it.

    The standardization changes nothing until it is fitted to the training samples, or loaded.
    """
    if not model.standardize:
        return backbone
    channels, size = (in_channels, image_size) if expected is None else (expected.channels, expected.size)
    width = feature_width(backbone, in_channels=channels, image_size=size, name=model.name)
    return nn.Sequential(backbone, Standardize(torch.zeros(width), torch.ones(width)))


def _partly_trained(backbone: nn.Module, model: ModelConfig, num_samples: int, seed: int) -> nn.Module:
    freeze = model.freeze_norm
    if freeze is None:
        freeze = model.weights is not None and num_samples < _SMALL_SET
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "init", 1))  # for the initial low-rank additions
        return train_part(backbone, TrainedPart.parse(model.train), freeze_norm=freeze, lora_layers=model.lora_layers)
