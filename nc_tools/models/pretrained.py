"""Load a backbone with pretrained weights, the preprocessing that they expect, and a record of what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from nc_tools.models.feature_width import feature_width
from nc_tools.models.function_backbone import function_backbone
from nc_tools.models.hf_backbone import hf_backbone, hf_preprocessing
from nc_tools.models.image_preprocessing import ImagePreprocessing
from nc_tools.models.named_backbone import NamedBackbone, unclear_library
from nc_tools.models.state_dict_files import tensor_hash
from nc_tools.models.timm_backbone import timm_backbone, timm_preprocessing
from nc_tools.models.torchvision_backbone import torchvision_backbone, torchvision_preprocessing
from nc_tools.seeds import stream_seed

Weights = Path | Literal["pretrained"] | None


@dataclass(frozen=True)
class BackboneIdentity:
    """Name, version and hash of a backbone and its weights, by which a record identifies them years later.

    Attributes:
        name: With the tag of pretrained weights, such as "timm:resnet50.a1_in1k", because the weights behind a name
            without a tag change.
        weights: "pretrained", "random", or the name of the file.
        revision: The commit of the repository that the weights were downloaded from, or None.
        sha256: Hash of the tensors of the backbone, see :func:`~nc_tools.models.state_dict_files.tensor_hash`.
        licence: Licence of the weights as their source states it, or None.
        preprocessing_of: The pretrained weights that the preprocessing belongs to. A file of weights says nothing about
            its images, so they are treated as those of the library's own weights.
    """

    name: str
    weights: str
    revision: str | None
    sha256: str
    licence: str | None
    preprocessing_of: str


@dataclass(frozen=True, eq=False)
class PretrainedBackbone:
    """A backbone with its weights.

    Attributes:
        module: Maps normalized images (N, C, size, size) to features (N, D). On the CPU; call ``train()`` or
            ``eval()`` before you use it, because libraries differ in the mode that they set.
        feature_dim: D.
        preprocessing: What the weights expect: uint8 images to normalized images.
        identity: Name with tag, revision, hash of the tensors, licence.
        files: Texts of settings files by file name, from which a Hugging Face network can be built again; empty for
            other libraries.
    """

    module: nn.Module
    feature_dim: int
    preprocessing: ImagePreprocessing
    identity: BackboneIdentity
    files: Mapping[str, str] = field(default_factory=dict)


def load_backbone(
    name: str,
    *,
    weights: Weights = None,
    image_size: int | None = None,
    crop_fraction: float | None = None,
    seed: int = 0,
) -> PretrainedBackbone:
    """Load a backbone by name, without its classifier.

    No code that a file names is executed: safetensors files and tensors-only files of ``torch.save`` are read, and code
    in a model repository is never run.

    Args:
        name: ``timm:NAME[.TAG]``, ``torchvision:NAME[.TAG]``, ``hf:ID_OR_FOLDER[@REVISION]``, or
            ``package.module:function`` for a function without arguments that returns a module, which maps images to
            features. The function may set the attribute ``preprocessing`` of the module.
        weights: "pretrained" for the library's own download (a folder of ``hf:`` needs none); a .safetensors file or a
            state dict saved by ``torch.save``; None for initial weights drawn from the seed.
        image_size: Side of the network's input in pixels. None: that of the pretrained weights.
        crop_fraction: Share of the side that is kept by the center crop. None: as for the pretrained weights.
        seed: The run's seed, for weights that no file gives.

    Raises:
        ValueError: If there is no such model, the weights cannot be loaded or belong to another architecture, or the
            network does not accept the image size. The message says what to do.
        FileNotFoundError: If the weights file does not exist.
        TypeError: If the function does not return a module.

    Example:
        >>> loaded = load_backbone("torchvision:shufflenet_v2_x0_5", image_size=32)
        >>> loaded.feature_dim, loaded.preprocessing.size, loaded.identity.preprocessing_of
        (1024, 32, 'torchvision:shufflenet_v2_x0_5.IMAGENET1K_V1')
        >>> images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
        >>> loaded.module(loaded.preprocessing(images)).shape
        torch.Size([2, 1024])
    """
    library, colon, rest = name.partition(":")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(stream_seed(seed, "init"))
        if not colon:
            raise unclear_library(name)
        loaded = _load(library, rest, weights, image_size)
    preprocessing = loaded.preprocessing
    if image_size is not None or crop_fraction is not None:
        preprocessing = preprocessing.at_size(image_size or preprocessing.size, crop_fraction=crop_fraction)
    size, channels = preprocessing.size, preprocessing.channels
    width = feature_width(loaded.module, in_channels=channels, image_size=size, name=loaded.name)
    used = "random" if weights is None else weights if isinstance(weights, str) else weights.name
    digest = tensor_hash(loaded.module.state_dict())
    identity = BackboneIdentity(loaded.name, used, loaded.revision, digest, loaded.licence, loaded.preprocessing_of)
    return PretrainedBackbone(loaded.module, width, preprocessing, identity, loaded.files)


def expected_preprocessing(
    name: str, *, image_size: int | None = None, crop_fraction: float | None = None
) -> ImagePreprocessing:
    """Return the preprocessing that the pretrained weights of a library expect, without building the network.

    Arguments and errors are those of :func:`load_backbone`, except that a function of the user is a ValueError: its
    preprocessing is known only when the network is built.

    Example:
        >>> expected_preprocessing("torchvision:resnet18").resize_size
        256
    """
    library, _, rest = name.partition(":")
    if library == "timm":
        loaded = timm_preprocessing(rest)
    elif library == "torchvision":
        loaded = torchvision_preprocessing(rest)
    elif library == "hf":
        loaded = hf_preprocessing(rest)
    else:
        raise unclear_library(name)
    if image_size is None and crop_fraction is None:
        return loaded
    return loaded.at_size(image_size or loaded.size, crop_fraction=crop_fraction)


def _load(library: str, name: str, weights: Weights, image_size: int | None) -> NamedBackbone:
    if library == "timm":
        return timm_backbone(name, weights, image_size)
    if library == "torchvision":
        return torchvision_backbone(name, weights, image_size)
    if library == "hf":
        return hf_backbone(name, weights, image_size)
    return function_backbone(library, name, weights)
