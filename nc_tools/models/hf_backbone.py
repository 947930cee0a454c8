"""Backbones of Hugging Face transformers: safetensors weights only, and never code from a model repository."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nc_tools.models.feature_width import wrong_size
from nc_tools.models.hub_access import hub_access
from nc_tools.models.image_preprocessing import ImagePreprocessing, Interpolation
from nc_tools.models.named_backbone import NamedBackbone, no_download
from nc_tools.models.state_dict_files import read_state_dict
from nc_tools.surgery.find_head import find_head
from nc_tools.surgery.swap import split_head
from nc_tools.surgery.trace import FAILS_ON_A_WRONG_INPUT
from nc_tools.surgery.untouched import trial_run

# Pillow's numbers for resampling, as processors store them. Lanczos (1) exists for files, not for tensors.
_RESAMPLING: dict[int, Interpolation] = {0: "nearest", 1: "bicubic", 2: "bilinear", 3: "bicubic"}


class HFBackbone(nn.Module):
    """A Hugging Face image classifier without its head: normalized images (N, C, H, W) to features (N, D).

    Args:
        model: The classifier, with ``nn.Identity`` in place of its head.
        interpolate: Interpolate the position embeddings, for images of another size than in pretraining.
    """

    def __init__(self, model: nn.Module, *, interpolate: bool = False) -> None:
        super().__init__()
        self.model = model
        self.interpolate = interpolate

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, which are the input of the removed head."""
        options = {"interpolate_pos_encoding": True} if self.interpolate else {}
        features: Tensor = self.model(pixel_values=images, **options).logits
        return features


def hf_backbone(name: str, weights: Path | Literal["pretrained"] | None, image_size: int | None) -> NamedBackbone:
    """Build a backbone of transformers; arguments and errors as :func:`~nc_tools.models.pretrained.load_backbone`.

    The features are what the library's own image classifier of this architecture gives to its linear layer.

    Args:
        name: Without "hf:": a repository of the Hub, or a folder that holds config.json; a revision may follow after
            "@".
        weights: As for ``load_backbone``.
        image_size: As for ``load_backbone``.
    """
    transformers = _transformers(name)
    check_hf_name(name)
    source, _, revision = name.partition("@")
    where: dict[str, Any] = {"trust_remote_code": False, **({"revision": revision} if revision else {})}
    with _quiet(transformers):
        config = _read(name, lambda: transformers.AutoConfig.from_pretrained(source, **where))
        classes = transformers.AutoModelForImageClassification
        options = {"config": config, "use_safetensors": True, "output_loading_info": True, "dtype": torch.float32}
        info: dict[str, Any] = {}
        if weights == "pretrained":
            model, info = _read(name, lambda: classes.from_pretrained(source, **where, **options))
        else:
            model = _read(name, lambda: classes.from_config(config, trust_remote_code=False))
            if weights is not None:
                options |= {"state_dict": read_state_dict(weights), "ignore_mismatched_sizes": True}
                model, info = type(model).from_pretrained(None, **options)
        processor = _processor(transformers, name)
    preprocessing = _preprocessing(processor, name)
    size = image_size or preprocessing.size
    head, module = _without_head(model, _own_size(config) or preprocessing.size, name)
    _check_all_loaded(info, head, f"hf:{name}" if weights == "pretrained" else str(weights), type(model).__name__)
    commit = getattr(config, "_commit_hash", None)
    full_name = f"hf:{source}@{revision or commit}" if revision or commit else f"hf:{source}"
    backbone = HFBackbone(module)
    backbone.interpolate = not _runs(backbone, preprocessing.channels, size)
    licence = _licence(source) if weights == "pretrained" else None
    return NamedBackbone(backbone, full_name, preprocessing, full_name, commit, licence, _files(config, processor))


def _check_all_loaded(info: dict[str, Any], head: str, source: str, model: str) -> None:
    """Raise a ValueError if a tensor of the backbone was missing in the weights or had another shape."""
    misfits = [*info.get("missing_keys", ()), *(key for key, *_ in info.get("mismatched_keys", ()))]
    if below := sorted(key for key in misfits if not key.startswith(f"{head}.")):
        raise ValueError(
            f"{source} does not hold the weights of {model}: {len(below)} are missing or have another shape "
            f"({', '.join(below[:3])}{', ...' if len(below) > 3 else ''}). Give the weights of the same architecture"
        )


def _own_size(config: Any) -> int | None:
    """Return the side of the images that a network was built for, as its configuration states it."""
    for part in (config, getattr(config, "vision_config", None)):
        if isinstance(size := getattr(part, "image_size", None), int):
            return size
    return None


def _runs(backbone: nn.Module, channels: int, size: int) -> bool:
    try:
        with trial_run(backbone):
            backbone(torch.zeros(1, channels, size, size))
    except FAILS_ON_A_WRONG_INPUT:
        return False
    return True


def hf_preprocessing(name: str) -> ImagePreprocessing:
    """Return the preprocessing of a Hugging Face model; only its settings are read, or downloaded."""
    transformers = _transformers(name)
    check_hf_name(name)
    with _quiet(transformers):
        return _preprocessing(_processor(transformers, name), name)


def _transformers(name: str) -> Any:
    try:
        import transformers
    except ImportError:
        raise ValueError(f"hf:{name} needs transformers, which is not installed: pip install transformers") from None
    return transformers


def _processor(transformers: Any, name: str) -> Any:
    source, _, revision = name.partition("@")
    where: dict[str, Any] = {"trust_remote_code": False, **({"revision": revision} if revision else {})}
    return _read(name, lambda: transformers.AutoImageProcessor.from_pretrained(source, **where))


def check_hf_name(name: str) -> None:
    """Raise a FileNotFoundError if a name, without "hf:", is written as a path and there is no such folder."""
    source = name.partition("@")[0]
    if not Path(source).is_dir() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise FileNotFoundError(f"hf:{name} is no folder: give a folder that save_pretrained wrote, or hf:OWNER/NAME")


def _without_head(model: nn.Module, size: int, name: str) -> tuple[str, nn.Module]:
    example = {"pixel_values": torch.zeros(2, int(getattr(model.config, "num_channels", 3)), size, size)}
    try:
        head = find_head(model, example=example)
        module, _ = split_head(model, name=head)
    except (RuntimeError, AssertionError) as error:
        raise wrong_size(f"hf:{name}", 3, size, error) from error
    return head, module


def _read(name: str, load: Any) -> Any:
    """Call a loader of transformers; turn its errors into one sentence."""
    try:
        with hub_access():
            return load()
    except OSError as error:
        if "safetensors" in str(error):
            raise ValueError(
                f"hf:{name} has no weights in safetensors format, and other formats can run code when they are loaded: "
                f"choose a repository or revision with model.safetensors, or convert the weights and give --weights "
                f"FILE.safetensors"
            ) from error
        if Path(name).is_dir():
            raise ValueError(
                f"hf:{name} cannot be read ({_first_line(error)}): save it again with save_pretrained"
            ) from error
        raise no_download(f"hf:{name}", error) from error
    except ValueError as error:
        raise ValueError(
            f"hf:{name} is not an image classifier of the installed transformers ({_first_line(error)}). Code of a "
            f"repository is never executed: choose a model that transformers itself contains"
        ) from error


def _preprocessing(processor: Any, name: str) -> ImagePreprocessing:
    """Convert the settings of an image processor of transformers to an ImagePreprocessing."""

    def get(key: str, default: Any = None) -> Any:
        value = getattr(processor, key, None)
        return default if value is None else value

    size: dict[str, int] = dict(get("size", {}))
    crop: dict[str, int] = dict(get("crop_size", {})) if get("do_center_crop", False) else {}
    squash = "shortest_edge" not in size
    resize = size.get("height", 0) if squash else size["shortest_edge"]
    if not resize or (squash and size.get("width") != resize):
        raise ValueError(f"hf:{name} expects images of size {size}, but only square ones are supported")
    final, fraction = crop.get("height", resize), get("crop_pct")
    if fraction is not None and resize < 384:  # ConvNeXt
        final, resize, squash = resize, int(resize / float(fraction)), False
    factor = 255 * (float(get("rescale_factor", 1 / 255)) if get("do_rescale", True) else 1.0)
    normalized = get("do_normalize", True)
    mean = get("image_mean", (0.5, 0.5, 0.5)) if normalized else (0.0, 0.0, 0.0)
    std = get("image_std", (0.5, 0.5, 0.5)) if normalized else (1.0, 1.0, 1.0)
    return ImagePreprocessing(
        mean=tuple(float(v) / factor for v in mean),
        std=tuple(float(v) / factor for v in std),
        size=final,
        resize_size=max(final, resize),
        interpolation=_RESAMPLING.get(get("resample", 2), "bicubic"),
        squash=squash,
    )


def _files(config: Any, processor: Any) -> dict[str, str]:
    """Return the texts of config.json and preprocessor_config.json, without the path of this machine."""
    settings = json.loads(config.to_json_string(use_diff=False))
    settings.pop("_name_or_path", None)
    return {
        "config.json": json.dumps(settings, indent=2, sort_keys=True),
        "preprocessor_config.json": processor.to_json_string(),
    }


def _licence(source: str) -> str | None:
    """Return the licence that the card of a local model states."""
    card = Path(source) / "README.md"
    if not card.is_file():
        return None
    lines = (line.strip() for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:100])
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("license:")), None) or None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silence progress bars, and the advice of transformers to train a new head: the head is removed at once."""
    log = transformers.logging
    before, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(before)
        if bars:
            log.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
