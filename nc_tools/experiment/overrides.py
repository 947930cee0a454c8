"""Settings from the command line: a.b=value."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import types
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from nc_tools.spec import Spec
from nc_tools.suggestions import did_you_mean

C = TypeVar("C")


def parse_setting(text: str) -> tuple[str, Any]:
    """Split ``a.b=value``; the value is a Python literal, or a string where it is none.

    Example:
        >>> parse_setting("optim.lr=0.1"), parse_setting("model.name=resnet32")
        (('optim.lr', 0.1), ('model.name', 'resnet32'))

    Raises:
        ValueError: If there is no "=" or no name.
    """
    path, found, value = text.partition("=")
    if not found or not path.strip():
        raise ValueError(f"a setting reads a.b=value, such as optim.weight_decay=1e-4, got {text!r}")
    try:
        return path.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return path.strip(), value.strip()


def put(config: C, path: str, value: Any) -> C:
    """Return a copy of a nested dataclass with one field set; arguments of a spec count as its fields.

    Args:
        config: A dataclass, or a spec.
        path: Dotted, such as "optim.lr" or "head.scale".
        value: Checked against the field's type; an int serves where a float is asked for, and text such as
            "PairNoise(rate=0.3)" where a record is.

    Raises:
        ValueError: If there is no such field (the nearest names are offered) or the value is of another kind.
    """
    first, _, rest = path.partition(".")
    if isinstance(config, Spec):
        if rest:
            raise ValueError(f"nothing can be set below an argument of {config.cls.__name__}: {path!r} goes too deep")
        return typing.cast(C, config.with_arguments({first: value}))
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"nothing can be set below {type(config).__name__}: {path!r} goes one level too deep")
    names = [f.name for f in dataclasses.fields(config)]
    if first not in names:
        raise ValueError(f"there is no field {first!r} in {type(config).__name__}; {did_you_mean(first, names)}")
    if rest:
        new = put(getattr(config, first), rest, value)
    else:
        new = _fitting(value, typing.get_type_hints(type(config))[first], first)
    return typing.cast(C, dataclasses.replace(config, **{first: new}))


def put_all(config: C, settings: Iterable[tuple[str, Any]]) -> C:
    """Apply several settings in order."""
    for path, value in settings:
        config = put(config, path, value)
    return config


def _fitting(value: Any, hint: Any, name: str) -> Any:
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, str):
        value = _written(value, _options(hint))
    if any(_fits(value, option) for option in _options(hint)):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and float in _options(hint):
        return float(value)
    if any(typing.get_origin(option) is tuple for option in _options(hint)) and not isinstance(value, tuple):
        return _fitting((value,), hint, name)
    told = " or ".join(getattr(o, "__name__", str(o)) if not typing.get_args(o) else str(o) for o in _options(hint))
    raise ValueError(f"{name} must be {told.replace('NoneType', 'None')}, got {value!r}")


def _written(text: str, options: Iterable[Any]) -> Any:
    """Build a record that the field may hold from how Python writes it, such as "PairNoise(rate=0.3)"."""
    records = [o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)]
    kinds = {kind.__name__: kind for record in records for kind in _concrete(record)}
    try:
        call = ast.parse(text, mode="eval").body
    except SyntaxError:
        return text
    if not kinds or not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return text
    if call.func.id not in kinds:
        raise ValueError(f"there is no {call.func.id!r} here; {did_you_mean(call.func.id, kinds)}")
    given = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    return kinds[call.func.id](*(ast.literal_eval(a) for a in call.args), **given)


def _concrete(record: type[Any]) -> list[type[Any]]:
    """Return a record and those that derive from it, without what stands only for a family of them."""
    derived = [kind for sub in record.__subclasses__() for kind in _concrete(sub)]
    return derived if inspect.isabstract(record) else [record, *derived]


def _options(hint: Any) -> tuple[Any, ...]:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.get_args(hint)
    return (hint,)


def _fits(value: Any, option: Any) -> bool:
    if option is typing.Any:
        return True
    if typing.get_origin(option) is typing.Literal:
        return value in typing.get_args(option)
    kind = typing.get_origin(option) or option
    if kind is int and isinstance(value, bool):
        return False
    if kind is tuple and isinstance(value, tuple):
        inner = typing.get_args(option)[0] if typing.get_args(option) else typing.Any
        return all(_fits(item, inner) or (inner is float and isinstance(item, int)) for item in value)
    return isinstance(kind, type) and isinstance(value, kind)
