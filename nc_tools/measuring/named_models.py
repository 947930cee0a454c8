"""Load a model by its name on the command line: a run's folder, torchvision:NAME, timm:NAME or module:function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from nc_tools._support.suggestions import did_you_mean
from nc_tools.data import DataConfig
from nc_tools.measuring.measured_sets import TrainedSubset, count_classes
from nc_tools.measuring.safetensors_weights import load_weights_into, read_weights
from nc_tools.models.backbones import check_name
from nc_tools.models.function_backbone import call_function, import_module
from nc_tools.models.image_preprocessing import ImagePreprocessing
from nc_tools.models.timm_backbone import timm_module
from nc_tools.models.torchvision_backbone import torchvision_model
from nc_tools.surgery.find_head import find_head

# Mean and standard deviation by which images are normalized for torchvision's own weights.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RANDOM_WEIGHTS = "random"


@dataclass(frozen=True)
class NamedModel:
    """A loaded model, its name, and the size and normalization of the images that it expects.

    Attributes:
        model: In eval mode, on the CPU.
        name: Its name in reports.
        image_size: Side of the images in pixels, or None for that of the data.
        in_channels: Channels of the images, or None for those of the data.
        mean: Mean of each channel, or None for that of the data's training images.
        std: Standard deviation of each channel, likewise.
        classes: Names of the classes that it was trained on, or None.
        class_counts: Training samples of each class, or None.
        data: The data that it was trained on, or None.
        trained_on: The part of that data that it was trained on, or None.
        preprocessing: Resizes and crops the images of the data for the network, or None.
    """

    model: nn.Module
    name: str
    image_size: int | None = None
    in_channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    class_counts: tuple[int, ...] | None = None
    data: DataConfig | None = None
    trained_on: TrainedSubset | None = None
    preprocessing: ImagePreprocessing | None = None


def load_model(name: str, weights: str | None, *, data: str | None, modules: Sequence[str] = ()) -> NamedModel:
    """Load the model that ``--model`` names.

    Args:
        name: The folder of a finished run, ``torchvision:NAME``, ``timm:NAME``, or ``package.module:function`` for a
            function without arguments that returns a module.
        weights: A safetensors file with the model's state, or "random" for an untrained network. None for a run, or for
            a function whose model has its weights.
        data: The source of the images, which gives K for an untrained library model.
        modules: Names of the user's modules whose heads and losses a run may name.

    Raises:
        FileNotFoundError: If a run or a weights file is missing.
        ValueError: If the name is unknown, or weights are missing, are a pickle or do not fit.
        TypeError: If the function does not return a module.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind in ("torchvision", "timm"):
        return _library_model(kind, rest, weights, data)
    if (Path(name) / "run.json").exists():
        return _run_model(Path(name), weights, modules)
    if colon and "/" not in kind and "\\" not in kind:
        return _function_model(kind, rest, weights)
    if colon or "/" in name or Path(name).exists():
        raise FileNotFoundError(
            f"{name} is not the folder of a finished run: it holds no run.json. Give a folder in OUTPUT_FOLDER/runs/, "
            "or torchvision:NAME, timm:NAME or package.module:function"
        )
    raise ValueError(
        f"a model must be a run's folder, torchvision:NAME, timm:NAME or package.module:function, got {name!r}: did "
        f"you mean torchvision:{name} or timm:{name}?"
    )


def missing_data(name: str) -> ValueError:
    """Return the error for a model that needs ``--data``, because its images are unknown."""
    return ValueError(f"{name} does not define its images. Add --data, such as imagefolder:PATH")


def _run_model(folder: Path, weights: str | None, modules: Sequence[str]) -> NamedModel:
    from nc_tools.experiment.trained_model import load_run

    if weights is not None:
        raise ValueError(f"a run's folder already holds its weights, but --weights is {weights}. Leave --weights out")
    loaded = load_run(folder, modules=[import_module(name) for name in modules])
    facts, identity = loaded.facts, loaded.identity
    mean, std = (facts.mean, facts.std) if facts.preprocessing is None else _statistics(facts.preprocessing)
    return NamedModel(
        loaded.model, folder.resolve().name, facts.image_size, facts.in_channels, mean, std, facts.classes,
        facts.class_counts, loaded.config.data,
        TrainedSubset(identity.seed, with_holdout=identity.kind == "final"), facts.preprocessing,
    )  # fmt: skip


def _statistics(preprocessing: ImagePreprocessing) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return preprocessing.mean, preprocessing.std


def _library_model(kind: str, name: str, weights: str | None, data: str | None) -> NamedModel:
    full_name = f"{kind}:{name}"
    if data is None:
        raise missing_data(full_name)
    if weights is None:
        raise ValueError(
            f"{full_name} needs trained weights, but none were given. Add --weights FILE.safetensors, or "
            "--weights random to measure the untrained network"
        )
    build = _torchvision_builder(name) if kind == "torchvision" else _timm_builder(name)
    if weights == RANDOM_WEIGHTS:
        model, shown = build(count_classes(data)), f"{full_name}, random weights"
    else:
        model, shown = _with_weights(full_name, build, weights), full_name
    if kind == "torchvision":
        return NamedModel(model.eval(), shown, 299 if name == "inception_v3" else 224, 3, *_IMAGENET)
    config = getattr(model, "default_cfg", {})
    channels, size, _ = config.get("input_size", (3, 224, 224))
    mean, std = (tuple(config.get(key, default)) for key, default in zip(("mean", "std"), _IMAGENET, strict=True))
    return NamedModel(model.eval(), shown, size, channels, mean, std)


def _with_weights(full_name: str, build: Callable[[int | None], nn.Module], weights: str) -> nn.Module:
    """Build a model of torchvision or timm with as many classes as the weights have, and load the weights."""
    state = read_weights(Path(weights))
    head = find_head(build(None))
    num_classes = next((len(part) for key, part in state.items() if key == f"{head}.weight"), None)
    if num_classes is None:
        raise _other_head(full_name, weights, head, state)
    model = build(num_classes)
    load_weights_into(model, state, weights)
    return model


def _other_head(full_name: str, weights: str, head: str, state: Mapping[str, Tensor]) -> ValueError:
    """Return the error for weights without the library's own head: those of another model, or of another head."""
    own = sorted(key for key in state if key.startswith(f"{head}."))
    if own:
        return ValueError(
            f"{weights} holds {', '.join(own[:3])} instead of '{head}.weight', so its head was replaced: write a "
            f"function that builds {full_name} with that head, and give --model package.module:function"
        )
    return ValueError(
        f"{weights} does not hold the weights of {full_name}, whose head is {head!r}: it has no '{head}.weight'; "
        f"{did_you_mean(f'{head}.weight', state)}"
    )


def _torchvision_builder(name: str) -> Callable[[int | None], nn.Module]:
    check_name(f"torchvision:{name}")
    return lambda num_classes: torchvision_model(
        name.partition(".")[0], **({} if num_classes is None else {"num_classes": num_classes})
    )


def _timm_builder(name: str) -> Callable[[int | None], nn.Module]:
    timm = timm_module(name)
    check_name(f"timm:{name}")

    def build(num_classes: int | None) -> nn.Module:
        size = {} if num_classes is None else {"num_classes": num_classes}
        model: nn.Module = timm.create_model(name, pretrained=False, **size)
        return model

    return build


def _function_model(module_name: str, function: str, weights: str | None) -> NamedModel:
    model = call_function(module_name, function)
    if weights is not None and weights != RANDOM_WEIGHTS:
        load_weights_into(model, read_weights(Path(weights)), weights)
    return NamedModel(model.cpu().eval(), f"{module_name}:{function}")
