"""Check the values of a configuration against the type hints of their fields and arguments."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from nc_tools._support.short_repr import short_repr
from nc_tools.specs import Spec

_SEQUENCES = (tuple, list, collections.abc.Sequence, collections.abc.Iterable)


def hints_of(cls: type[Any]) -> Mapping[str, Any]:
    """Return the type hints of a dataclass's fields or a class's arguments; empty if they cannot be resolved.

    Example:
        >>> hints_of(Spec)["arguments"]
        collections.abc.Mapping[str, typing.Any]
    """
    try:
        return _resolved_hints(cls)  # type: ignore[arg-type]  # to mypy, type[Any] is not hashable
    except (NameError, TypeError, AttributeError):  # names that are imported for a type checker only
        return {}


@lru_cache(maxsize=1024)
def _resolved_hints(cls: type[Any]) -> Mapping[str, Any]:
    return types.MappingProxyType(typing.get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__))


def options_of(hint: Any) -> tuple[Any, ...]:
    """Return the member types of a union type hint, or a tuple of the hint alone if it is no union."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.get_args(hint)
    return (hint,)


def matches(value: Any, hint: Any) -> bool:
    """Return True if a value matches a type hint, or if the hint cannot be checked at run time.

    A bool matches neither int nor float, an int matches float, a string matches no sequence, and a spec matches the
    class that it builds.

    Example:
        >>> matches((1, 2.5), tuple[float, ...]), matches("ab", tuple[str, ...]), matches(True, int | None)
        (True, False, False)
    """
    if type(value) is hint:  # most values in a run's files
        return True
    try:
        parts = _parts_of(hint)
    except TypeError:  # a hint that has no hash, such as an annotation with a dictionary
        parts = _parts_of.__wrapped__(hint)
    return any(_matches_one(value, *part) for part in parts)


@lru_cache(maxsize=1024)
def _parts_of(hint: Any) -> tuple[tuple[Any, Any, tuple[Any, ...]], ...]:
    """Return (hint, class, arguments) for each member of a union, or for the hint itself if it is no union."""
    return tuple((option, typing.get_origin(option) or option, typing.get_args(option)) for option in options_of(hint))


def _matches_one(value: Any, option: Any, cls: Any, inner: tuple[Any, ...]) -> bool:
    if option is None or option is type(None):
        return value is None
    if cls is typing.Any:
        return True
    if cls is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if cls in _SEQUENCES:
        return _matches_sequence(value, cls, inner)
    if cls is Mapping and inner and isinstance(value, Mapping):
        return all(matches(key, inner[0]) and matches(item, inner[1]) for key, item in value.items())
    if not isinstance(cls, type) or getattr(cls, "_is_protocol", False):
        return True
    if isinstance(value, Spec):
        built = inner[0] if cls is Spec and inner else cls
        return built in (Spec, typing.Any) or not isinstance(built, type) or issubclass(value.cls, built)
    if cls in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, cls) or (cls is float and isinstance(value, int))


def _matches_sequence(value: Any, cls: Any, inner: tuple[Any, ...]) -> bool:
    is_sequence = isinstance(value, cls if cls in (tuple, list) else collections.abc.Iterable)
    if not is_sequence or isinstance(value, str):
        return False
    if cls is tuple and inner and Ellipsis not in inner:  # a hint for each position
        return len(value) == len(inner) and all(matches(*pair) for pair in zip(value, inner, strict=True))
    return not inner or all(matches(item, inner[0]) for item in value)


def hint_text(hint: Any) -> str:
    """Return a type hint as readable text for an error message.

    Example:
        >>> hint_text(tuple[float, ...] | None), hint_text(typing.Literal["a", "b", "c"])
        ('tuple[float, ...] or None', "'a', 'b' or 'c'")
    """
    names = [name for option in options_of(hint) for name in _names(option)]
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _names(option: Any) -> list[str]:
    if option is None or option is type(None):
        return ["None"]
    inner = typing.get_args(option)
    if typing.get_origin(option) is typing.Literal:
        return [repr(choice) for choice in inner]
    name = getattr(typing.get_origin(option) or option, "__name__", str(option))
    texts = ["..." if item is Ellipsis else hint_text(item) for item in inner]
    return [f"{name}[{', '.join(texts)}]" if inner else name]


def check_types(config: Any, path: str = "") -> None:
    """Raise a ValueError that names the first value of a configuration that does not match its type hint.

    Dataclasses, specs, tuples and lists inside are checked too.

    Args:
        config: A dataclass, spec, tuple or list; any other value passes.
        path: The name of the configuration, with which the message begins.

    Raises:
        ValueError: If a value does not match.

    Example:
        >>> from nc_tools.training import TrainConfig
        >>> check_types(TrainConfig(mixing=0.4), "training")
        Traceback (most recent call last):
        ...
        ValueError: training.mixing must be Mixup, CutMix or None, got 0.4
    """
    if isinstance(config, Spec):
        hints, values = hints_of(config.cls), dict(config.arguments)
    elif dataclasses.is_dataclass(config) and not isinstance(config, type):
        hints = hints_of(type(config))
        values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    elif isinstance(config, tuple | list):
        hints, values = {}, {str(position): item for position, item in enumerate(config)}
    else:
        return
    for name, value in values.items():
        where = f"{path}.{name}" if path else name
        if name in hints and not matches(value, hints[name]):
            raise ValueError(f"{where} must be {hint_text(hints[name])}, got {short_repr(value)}")
        check_types(value, where)
