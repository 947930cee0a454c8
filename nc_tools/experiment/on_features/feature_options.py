"""The options of commands that work on fixed features: images with a pretrained model, or embeddings, and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nc_tools.data import DataConfig
from nc_tools.data.guess_source import guess_source
from nc_tools.data.source_names import BUILTIN_KINDS, OWN_LABELS, parse_source
from nc_tools.data.table_config import TableConfig
from nc_tools.experiment.model_config import ModelConfig
from nc_tools.experiment.on_features.data_settings import plain_data, with_augmentation
from nc_tools.experiment.on_features.feature_sources import EMBEDDINGS
from nc_tools.experiment.on_features.head_settings import check_head_settings, check_protocol_settings
from nc_tools.experiment.overrides import TUNED_RATE, parse_setting, put, put_all, rate_is_tuned
from nc_tools.experiment.plan import RunOptions
from nc_tools.experiment.run_config import Protocol, RunConfig
from nc_tools.experiment.torchrun import started_processes
from nc_tools.experiment.worker_count import worker_count
from nc_tools.features import GivenFeatures
from nc_tools.specs import spec

DATA_FIELDS = "data."
"""Beginning of the settings that are about the data."""
_EMBEDDING_FILES = (".npz", ".safetensors", ".parquet")


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The options that say where features come from, see the help of ``nc-tools choose``."""

    data: str
    model: str | None = None
    weights: str | None = None
    image_size: int | None = None
    test_table: str | None = None
    skip_unreadable: bool = False
    skip_missing: bool = False
    drop_duplicates: bool = False
    cache: Path | None = None
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(SourceOptions):
    """The options that all comparisons on fixed features have, see the help of ``nc-tools choose``."""

    labels: str | None = None
    clean: str | None = None
    corrections: str | None = None
    views: int = 1
    settings: Sequence[str] = ()
    out: Path
    workers: int | None = None
    tracking_uri: str | None = None


def data_config(options: FeatureOptions, flags: Mapping[str, Any] | None = None) -> DataConfig:
    """Return the data that the options name, with their labels and the settings ``data.FIELD=VALUE``.

    Args:
        options: Options of the command line.
        flags: Fields that flags of one command set; settings are applied after them.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If the source cannot be read so.
    """
    if options.clean == OWN_LABELS and options.labels is None and options.corrections is None:
        raise ValueError(
            "--clean data takes the labels of the data set as the true ones, so training needs other labels, and none "
            "were given: add --labels FILE:COLUMN, or leave --clean out"
        )
    config = replace(
        source_config(options), labels=options.labels, clean=options.clean, corrections=options.corrections,
        views=options.views, **(flags or {}),
    )  # fmt: skip
    settings = [parse_setting(text) for text in options.settings]  # errors come before data are read
    start = len(DATA_FIELDS)
    settings = [(path[start:], value) for path, value in settings if path.startswith(DATA_FIELDS)]
    plain = put_all(config, settings)
    return plain if plain.views == 1 else put_all(with_augmentation(config), settings)


def with_settings(
    arms: Mapping[str, RunConfig], protocol: Protocol, settings: Sequence[str]
) -> tuple[dict[str, RunConfig], Protocol]:
    """Return arms and protocol with the settings ``FIELD=VALUE`` of the command line; those of the data are left out.

    Raises:
        ValueError: If there is no such field, it cannot have this value, or it would change nothing.
    """
    changed = dict(arms)
    for path, value in map(parse_setting, settings):
        section, _, rest = path.partition(".")
        if section == "protocol":
            protocol = put(protocol, rest, value)
        elif path == TUNED_RATE:
            raise rate_is_tuned(value)
        elif not path.startswith(DATA_FIELDS):
            changed = {name: put(arm, path, value) for name, arm in changed.items()}
    check_protocol_settings(protocol)
    for name, arm in changed.items():
        check_head_settings(name, arm)
    return changed, protocol


def source_config(options: SourceOptions) -> DataConfig:
    """Return the data that the options name, with the labels of their source and without augmentation.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If the source cannot be read so.
    """
    source = options.data
    if Path(source).is_file() and Path(source).suffix.lower() in _EMBEDDING_FILES:
        source = f"{EMBEDDINGS}{source}"
    source = guess_source(source)
    if ":" not in source and source not in BUILTIN_KINDS:
        if Path(source).expanduser().exists():
            raise ValueError(
                f"it is not clear what {source} is: give a folder of images, a table (.csv), an embedding file (.npz, "
                f".safetensors, .parquet), or KIND:PATH, such as table:FILE"
            )
        raise FileNotFoundError(f"{source} does not exist: give a folder of images, an embedding file, or KIND:PATH")
    parse_source(source)
    return replace(
        plain_data(source),
        table=TableConfig(test_table=options.test_table),
        skip_unreadable=options.skip_unreadable,
        skip_missing=options.skip_missing,
        drop_duplicates=options.drop_duplicates,
    )


def model_config(options: SourceOptions) -> ModelConfig:
    """Return the backbone that computes the features, which are standardized before the head.

    Raises:
        ValueError: If images come without a model, or embeddings with one or with a cache.
    """
    if embedding_file(options) is not None:
        if (options.model, options.weights, options.image_size) != (None, None, None):
            raise ValueError(
                "embeddings are the features of a model already: leave out --model, --weights and --image-size"
            )
        if options.cache is not None:
            raise ValueError(
                "embeddings are read from their own file, and nothing of them is cached: leave out --cache"
            )
        return ModelConfig(network=spec(GivenFeatures), train="head", standardize=True)
    if options.model is None:
        raise ValueError(
            "features of images come from a pretrained model: give one, such as --model timm:resnet18 --weights "
            "pretrained, or an embedding file (.npz, .safetensors, .parquet) in place of the images"
        )
    return ModelConfig(
        name=options.model, weights=options.weights, image_size=options.image_size, train="head", standardize=True
    )


def embedding_file(options: SourceOptions) -> Path | None:
    """Return the path of the embedding file that is given as data; None for images."""
    path = Path(options.data.removeprefix(EMBEDDINGS)).expanduser()
    return path if options.data.startswith(EMBEDDINGS) or path.suffix.lower() in _EMBEDDING_FILES else None


def run_options(options: FeatureOptions, device: str) -> RunOptions:
    """Return where and by how many processes the runs are made.

    Raises:
        ValueError: If there is less than one worker, or torchrun has started several processes.
    """
    if (started := started_processes()) > 1:
        raise ValueError(
            f"heads on features are trained by one command and its worker processes, but torchrun has started "
            f"{started}: start the command without torchrun; --workers says how many processes work at the same time"
        )
    workers, threads = worker_count(options.workers, device)
    return RunOptions(
        out=options.out, device=device, workers=workers, threads=threads,
        tracking_uri=options.tracking_uri,
    )  # fmt: skip
