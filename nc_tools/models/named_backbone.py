"""What the loader of each library returns, and the error messages that the loaders share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from nc_tools.models.image_preprocessing import ImagePreprocessing


@dataclass(frozen=True, eq=False)
class NamedBackbone:
    """A backbone as its library gives it.

    Attributes:
        module: Maps normalized images (N, C, size, size) to features (N, D).
        name: Name of the network; with the tag of pretrained weights, unless the weights come from a file.
        preprocessing: That of the pretrained weights.
        preprocessing_of: The name, with tag, of the weights that the preprocessing belongs to.
        revision: Commit of the repository that the weights came from, or None.
        licence: Licence of the weights, or None if it is not known.
        files: Texts of settings files by file name, from which the network can be built without a download; empty if
            its name suffices.
    """

    module: nn.Module
    name: str
    preprocessing: ImagePreprocessing
    preprocessing_of: str
    revision: str | None = None
    licence: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def unclear_library(name: str) -> ValueError:
    """Return the error for a network with weights whose name does not say which library it belongs to."""
    return ValueError(
        f"a network with weights must be timm:NAME, torchvision:NAME, hf:ID_OR_FOLDER or package.module:function, got "
        f"{name!r}: a name in two libraries means two networks, such as timm:resnet18 and torchvision:resnet18"
    )


def no_download(name: str, error: BaseException) -> ValueError:
    """Return the error for pretrained weights that cannot be downloaded."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return ValueError(
        f"the pretrained weights of {name} are not on this machine and cannot be downloaded ({lines[0]}): connect to "
        f"the internet once, or copy the weights here and give --weights FILE.safetensors"
    )
