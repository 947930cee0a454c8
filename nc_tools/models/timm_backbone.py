"""Backbones of timm, with the preprocessing that their pretrained configuration states."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import nn

from nc_tools._support.suggestions import did_you_mean
from nc_tools.models.feature_width import wrong_size
from nc_tools.models.hub_access import hub_access
from nc_tools.models.image_preprocessing import ImagePreprocessing, Interpolation
from nc_tools.models.named_backbone import NamedBackbone, no_download
from nc_tools.models.state_dict_files import check_fit, read_state_dict

_INTERPOLATIONS: dict[str, Interpolation] = {"bicubic": "bicubic", "bilinear": "bilinear", "nearest": "nearest"}


def timm_backbone(name: str, weights: Path | Literal["pretrained"] | None, image_size: int | None) -> NamedBackbone:
    """Build a backbone of timm; arguments and errors are those of :func:`~nc_tools.models.pretrained.load_backbone`.

    Args:
        name: Without "timm:", with or without the tag of the pretrained weights.
        weights: As for ``load_backbone``.
        image_size: As for ``load_backbone``. A network with a fixed input size is built for it, and its position
            embeddings are interpolated.
    """
    timm = timm_module(name)
    config = pretrained_config(timm, name)
    full_name = f"timm:{config.architecture}.{config.tag}" if config.tag else f"timm:{name}"
    options: dict[str, Any] = {"num_classes": 0}
    if image_size is not None and config.fixed_input_size and image_size != config.input_size[1]:
        options["img_size"] = image_size
    revision = None
    try:
        if weights is None:
            module = timm.create_model(name, pretrained=False, **options)
        elif isinstance(weights, Path):
            module = _with_file(timm, name, options, config, weights)
        else:
            module = _downloaded(timm, name, full_name, options, config)
            revision = _revision(config.hf_hub_id)
    except (TypeError, AssertionError) as error:
        if "img_size" in options:
            raise wrong_size(full_name, 3, options["img_size"], error) from error
        raise
    if weights != "pretrained" and "." not in name:
        return NamedBackbone(module, f"timm:{name}", _preprocessing(config), full_name)
    return NamedBackbone(module, full_name, _preprocessing(config), full_name, revision, config.license)


def timm_module(name: str) -> Any:
    """Return the library timm, or raise a ValueError that says how to install it for this model."""
    try:
        import timm
    except ImportError:
        raise ValueError(f"timm:{name} needs timm, which is not installed: pip install timm") from None
    return timm


def pretrained_config(timm: Any, name: str) -> Any:
    """Return timm's settings of the pretrained weights of a model, with or without a tag.

    Raises:
        ValueError: If there is no such model or no such tag; similar names are suggested.
    """
    architecture, _, tag = name.partition(".")
    if architecture not in timm.list_models():
        raise ValueError(f"timm has no model {name!r}; {did_you_mean(architecture, timm.list_models())}")
    names = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in names:
        raise ValueError(f"timm has no weights {tag!r} of {architecture}; {did_you_mean(tag, names)}")
    # A few models have no pretrained weights at all; timm gives them no configuration either.
    from timm.models import PretrainedCfg

    return timm.get_pretrained_cfg(name) or PretrainedCfg(architecture=architecture)


def timm_preprocessing(name: str) -> ImagePreprocessing:
    """Return the preprocessing of the pretrained weights of a timm model, without building it."""
    return _preprocessing(pretrained_config(timm_module(name), name))


def _preprocessing(config: Any) -> ImagePreprocessing:
    side = int(config.input_size[1])
    return ImagePreprocessing(
        mean=tuple(config.mean),
        std=tuple(config.std),
        size=side,
        resize_size=max(side, int(side / config.crop_pct)),
        interpolation=_INTERPOLATIONS.get(config.interpolation, "bicubic"),
        squash=config.crop_mode == "squash",
    )


def _with_file(timm: Any, name: str, options: dict[str, Any], config: Any, path: Path) -> nn.Module:
    """Build a model with the weights of a file, converted as timm converts its own files."""
    classifiers = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
    state = read_state_dict(path)
    body = {key: value for key, value in state.items() if key.rpartition(".")[0] not in classifiers}
    overlay = {"state_dict": body, "num_classes": 0}  # as many classes as the model: every tensor must fit
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except (RuntimeError, KeyError) as error:
        check_fit(timm.create_model(name, pretrained=False, **options), body, str(path))
        raise ValueError(f"{path} does not hold the weights of timm:{name} ({error})") from error
    model.pretrained_cfg.pop("state_dict", None)  # it would keep a second copy of the weights
    loaded: nn.Module = model
    return loaded


def _downloaded(timm: Any, name: str, full_name: str, options: dict[str, Any], config: Any) -> nn.Module:
    if not config.has_weights:
        raise ValueError(
            f"timm has no pretrained weights of {name}: choose a model of timm.list_pretrained(), or give a file"
        )
    try:
        with hub_access():
            model: nn.Module = timm.create_model(name, pretrained=True, **options)
    except OSError as error:
        raise no_download(full_name, error) from error
    return model


def _revision(repository: str | None) -> str | None:
    """Return the commit of the repository's weights in the local cache of downloads; None if it is not known."""
    if repository is None:
        return None
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    for file in ("model.safetensors", "pytorch_model.bin"):
        if isinstance(path := try_to_load_from_cache(repository, file), str):
            return Path(path).parent.name
    return None
