"""Whether a value is of the kind that a field or an argument asks for, said in its own words where it is not."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from nc_tools.spec import Spec

_ROWS = (tuple, list, collections.abc.Sequence, collections.abc.Iterable)


def hints_of(cls: type[Any]) -> Mapping[str, Any]:
    """Return the kinds of a record's fields or of a class's arguments; of what names none that can be found, nothing.

    Example:
        >>> hints_of(Spec)["arguments"]
        collections.abc.Mapping[str, typing.Any]
    """
    try:
        return typing.get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__)
    except (NameError, TypeError, AttributeError):  # names that exist for a type checker alone
        return {}


def options(hint: Any) -> tuple[Any, ...]:
    """Return what a union is made of, or the hint alone."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.get_args(hint)
    return (hint,)


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a kind; where a kind cannot be looked at, it is.

    A truth value is no number, a whole number serves as any other, text is no sequence, and a spec serves as what it
    builds.

    Example:
        >>> fits((1, 2.5), tuple[float, ...]), fits("ab", tuple[str, ...]), fits(True, int | None)
        (True, False, False)
    """
    return any(_fits_one(value, option) for option in options(hint))


def _fits_one(value: Any, option: Any) -> bool:
    kind, inner = typing.get_origin(option) or option, typing.get_args(option)
    if option is None or option is type(None):
        return value is None
    if kind is typing.Any:
        return True
    if kind is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if kind in _ROWS:
        as_is = isinstance(value, collections.abc.Iterable) if kind not in (tuple, list) else isinstance(value, kind)
        if not as_is or isinstance(value, str):
            return False
        if kind is tuple and inner and Ellipsis not in inner:  # a kind for each place
            return len(value) == len(inner) and all(fits(*pair) for pair in zip(value, inner, strict=True))
        return not inner or all(fits(item, inner[0]) for item in value)
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    if isinstance(value, Spec) and kind is not Spec:
        return issubclass(value.cls, kind)
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


def type_name(hint: Any) -> str:
    """Write a kind for people.

    Example:
        >>> told(tuple[float, ...] | None), told(typing.Literal["a", "b"])
        ('tuple[float, ...] or None', "'a' or 'b'")
    """
    return " or ".join(_told_one(option) for option in options(hint))


def _told_one(option: Any) -> str:
    if option is None or option is type(None):
        return "None"
    inner = typing.get_args(option)
    if typing.get_origin(option) is typing.Literal:
        return " or ".join(repr(choice) for choice in inner)
    if option is Ellipsis:
        return "..."
    name = getattr(typing.get_origin(option) or option, "__name__", str(option))
    return f"{name}[{', '.join(_told_one(i) for i in inner)}]" if inner else name


def check_kinds(config: Any, path: str = "") -> None:
    """Refuse a record that holds a value of the wrong kind, in a record or a spec inside it too.

    Raises:
        ValueError: With the path of the first one.

    Example:
        >>> from nc_tools.training import TrainConfig
        >>> check_kinds(TrainConfig(mixing=0.4), "training")
        Traceback (most recent call last):
        ...
        ValueError: training.mixing must be Mixup or CutMix or None, got 0.4
    """
    if isinstance(config, Spec):
        hints, held = hints_of(config.cls), dict(config.arguments)
    elif dataclasses.is_dataclass(config) and not isinstance(config, type):
        hints = hints_of(type(config))
        held = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    elif isinstance(config, tuple | list):
        hints, held = {}, {str(place): item for place, item in enumerate(config)}
    else:
        return
    for name, value in held.items():
        where = f"{path}.{name}" if path else name
        if name in hints and not fits(value, hints[name]):
            raise ValueError(f"{where} must be {type_name(hints[name])}, got {value!r}")
        check_kinds(value, where)
