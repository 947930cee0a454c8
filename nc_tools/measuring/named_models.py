"""An existing model by what the command line calls it: a run, a torchvision or timm name, or a function."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from nc_tools._support.suggestions import did_you_mean
from nc_tools.data import DataConfig
from nc_tools.measuring.measured_sets import Drawn, count_classes
from nc_tools.surgery.find_head import find_head

# What torchvision's own weights were trained with.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RANDOM = "random"


@dataclass(frozen=True)
class NamedModel:
    """A model with what it asks of its images.

    Attributes:
        model: In eval mode, on the CPU.
        name: What a report calls it.
        image_size: Side in pixels, or None for that of the data.
        in_channels: Of the images, or None for those of the data.
        mean: Per channel, or None for that of the data's training images.
        std: Likewise.
        classes: Names of the classes that it was trained on, or None.
        class_counts: Samples of each class that it was trained on, or None.
        data: What it was trained on, or None.
        drawn: Which part of that, or None.
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
    drawn: Drawn | None = None


def load_model(named: str, weights: str | None, *, data: str | None) -> NamedModel:
    """Load a model.

    Args:
        named: The folder of a run of ours, ``torchvision:NAME``, ``timm:NAME``, or ``package.module:function`` of a
            function without arguments that returns a module.
        weights: A safetensors file with the model's state; "random" for a network as it is initialized.
        data: The source of the images, which says K for a model whose weights are random.

    Raises:
        FileNotFoundError: If a run or a weights file is missing.
        ValueError: If the name is unknown, weights are missing, are a pickle or do not fit.
        TypeError: If the function returns no module.
    """
    kind, colon, name = named.partition(":")
    if colon and kind in ("torchvision", "timm"):
        return _library_model(kind, name, weights, data)
    if (Path(named) / "run.json").exists():
        return _run(Path(named), weights)
    if colon and "/" not in kind and "\\" not in kind:
        return _made_by(kind, name, weights)
    if colon or "/" in named or Path(named).exists():
        raise FileNotFoundError(
            f"a model must be the folder of a finished run, and {named} holds no run.json: give a folder below runs/ "
            "in an output folder, torchvision:NAME, timm:NAME or package.module:function"
        )
    raise ValueError(
        f"a model must be a run's folder, torchvision:NAME, timm:NAME or package.module:function, got {named!r}: did "
        f"you mean torchvision:{named} or timm:{named}?"
    )


def _run(folder: Path, weights: str | None) -> NamedModel:
    from nc_tools.experiment.trained_model import load_run

    if weights is not None:
        raise ValueError("a run's folder holds its weights already, and others were given: leave --weights out")
    loaded = load_run(folder)
    told = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    facts = loaded.facts
    return NamedModel(
        loaded.model, folder.resolve().name, facts.image_size, facts.in_channels, facts.mean, facts.std, facts.classes,
        facts.class_counts, loaded.config.data, Drawn(told["seed"], told["kind"] == "final"),
    )  # fmt: skip


def _library_model(kind: str, name: str, weights: str | None, data: str | None) -> NamedModel:
    if data is None:
        raise ValueError(f"{named_as(kind, name)} says nothing of its images: add --data, as imagefolder:PATH")
    if weights is None:
        raise ValueError(
            f"a {kind} model needs its trained weights, and none were given: add --weights FILE.safetensors, or "
            "--weights random to measure the network as it is initialized"
        )
    build = _torchvision(name) if kind == "torchvision" else _timm(name)
    state = None if weights == RANDOM else read_weights(Path(weights))
    classes: int | None = None
    if state is not None:
        head = find_head(build(None))
        classes = next((len(part) for key, part in state.items() if key == f"{head}.weight"), None)
        if classes is None:
            raise ValueError(
                f"the weights must be those of {named_as(kind, name)}, whose head is {head!r}, but {weights} has no "
                f"'{head}.weight'; {did_you_mean(f'{head}.weight', state)}"
            )
    model = build(count_classes(data) if classes is None else classes)
    if state is not None:
        fill(model, state, weights)
    shown = named_as(kind, name) + (", random weights" if state is None else "")
    if kind == "torchvision":
        return NamedModel(model.eval(), shown, 299 if name == "inception_v3" else 224, 3, *_IMAGENET)
    asked = getattr(model, "default_cfg", {})
    channels, size, _ = asked.get("input_size", (3, 224, 224))
    return NamedModel(
        model.eval(),
        shown,
        size,
        channels,
        tuple(asked.get("mean", _IMAGENET[0])),
        tuple(asked.get("std", _IMAGENET[1])),
    )


def named_as(kind: str, name: str) -> str:
    """Return how a library's model is called."""
    return f"{kind}:{name}"


def _torchvision(name: str) -> Callable[[int | None], nn.Module]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"torchvision has no classifier {name!r}; {did_you_mean(name, known)}")
    # These two come with auxiliary heads unless told otherwise.
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}

    def build(num_classes: int | None) -> nn.Module:
        sized = {} if num_classes is None else {"num_classes": num_classes}
        model: nn.Module = models.get_model(name, weights=None, **options, **sized)
        return model

    return build


def _timm(name: str) -> Callable[[int | None], nn.Module]:
    try:
        import timm
    except ImportError:
        raise ValueError("timm's models need timm, which is not installed: pip install nc_tools[timm]") from None
    if name.split(".")[0] not in timm.list_models():
        raise ValueError(f"timm has no model {name!r}; {did_you_mean(name, timm.list_models())}")

    def build(num_classes: int | None) -> nn.Module:
        sized = {} if num_classes is None else {"num_classes": num_classes}
        model: nn.Module = timm.create_model(name, pretrained=False, **sized)
        return model

    return build


def _made_by(module: str, function: str, weights: str | None) -> NamedModel:
    if "" not in sys.path:
        sys.path.insert(0, "")  # a command finds the modules of the folder it is run in, as python -m does
    try:
        home = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the model {module}:{function} needs the module {error.name!r}, which cannot be imported here: run the "
            "command in the folder that holds it"
        ) from error
    if not callable(make := getattr(home, function, None)):
        known = [name for name, thing in vars(home).items() if callable(thing) and not name.startswith("_")]
        raise ValueError(f"{module} has no function {function!r}; {did_you_mean(function, known)}")
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise ValueError(
            f"{module}:{function} must be a function without arguments that returns the model, but it needs some "
            f"({error}): wrap it in one"
        ) from None
    except ValueError:  # a builtin whose arguments nobody can ask for
        raise ValueError(f"{module}:{function} must be a function that returns a model, and it is a builtin") from None
    model = make()
    if not isinstance(model, nn.Module):
        raise TypeError(f"{module}:{function} must return a torch.nn.Module, got {type(model).__name__}")
    if weights is not None and weights != RANDOM:
        fill(model, read_weights(Path(weights)), weights)
    return NamedModel(model.cpu().eval(), f"{module}:{function}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a model's state from a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a pickle, which is never loaded, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"the weights must be a safetensors file, and {path} does not exist: check the path")
    with path.open("rb") as file:
        start = file.read(2)
    # torch.save writes a zip archive or, before 1.6, a bare pickle.
    if start in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04") or path.suffix in (".pt", ".pth", ".pkl", ".bin"):
        raise ValueError(
            f"weights must be safetensors, and {path} looks like a pickle, which can run code when it is loaded: where "
            "you trust it, convert it once with safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
            "'model.safetensors')"
        )
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read as safetensors ({error}): it is damaged or of another format"
        ) from error


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state into a model; every name and shape must match.

    Raises:
        ValueError: If one does not, with the first that differ.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    if missing or extra:
        kinds = (("missing", missing), ("too many", extra))
        said = [f"{len(keys)} {kind} (such as {keys[0]!r})" for kind, keys in kinds if keys]
        raise ValueError(f"{source} must hold the state of {type(model).__name__}, but of its names {', '.join(said)}")
    for key, part in state.items():
        if part.shape != own[key].shape:
            raise ValueError(
                f"{source} must hold the state of {type(model).__name__}, but {key!r} has the shape "
                f"{tuple(part.shape)} instead of {tuple(own[key].shape)}"
            )
    model.load_state_dict(state)
