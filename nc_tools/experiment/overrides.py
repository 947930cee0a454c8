"""Settings from the command line: a.b=value."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from nc_tools._support.suggestions import did_you_mean
from nc_tools.experiment.type_check import fits, hints_of, options, type_name
from nc_tools.spec import Spec

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
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two for what nests too deep
        return path.strip(), value.strip()


def put(config: C, path: str, value: Any) -> C:
    """Return a copy of a nested dataclass with one field set; arguments of a spec count as its fields.

    Args:
        config: A dataclass, or a spec.
        path: Dotted, such as "optim.lr" or "head.scale".
        value: Checked against the type of the field or argument; an int serves where a float is asked for, and text
            such as "PairNoise(rate=0.3)" where a record is.

    Raises:
        TypeError: If the class of a spec has no such argument (the nearest names are offered).
        ValueError: If there is no such field (likewise) or the value is of another kind.
    """
    first, _, rest = path.partition(".")
    if isinstance(config, Spec):
        if rest:
            raise ValueError(f"nothing can be set below an argument of {config.cls.__name__}: {path!r} goes too deep")
        config.with_arguments({first: value})  # is there such an argument?
        hint = hints_of(config.cls).get(first, Any)
        return typing.cast(C, config.with_arguments({first: _fitting(value, hint, first)}))
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"nothing can be set below {type(config).__name__}: {path!r} goes one level too deep")
    names = [f.name for f in dataclasses.fields(config)]
    if first not in names:
        raise ValueError(f"there is no field {first!r} in {type(config).__name__}; {did_you_mean(first, names)}")
    if rest and getattr(config, first) is None:
        raise ValueError(f"{first} is None here and has no {rest!r} to set: set {first} itself, as a whole")
    if rest:
        new = put(getattr(config, first), rest, value)
    else:
        new = _fitting(value, hints_of(type(config)).get(first, Any), first)
    return typing.cast(C, dataclasses.replace(config, **{first: new}))


def put_all(config: C, settings: Iterable[tuple[str, Any]]) -> C:
    """Apply several settings in order."""
    for path, value in settings:
        config = put(config, path, value)
    return config


def _fitting(value: Any, hint: Any, name: str) -> Any:
    value = _frozen(value)
    if isinstance(value, str):
        value = _written(value, options(hint), name)
    if isinstance(value, int) and not isinstance(value, bool) and float in options(hint) and int not in options(hint):
        return float(value)
    if fits(value, hint):
        return value
    if any(typing.get_origin(option) is tuple for option in options(hint)) and not isinstance(value, tuple):
        return _fitting((value,), hint, name)
    if any((typing.get_origin(option) or option) is Spec for option in options(hint)):
        raise ValueError(
            f"{name} must be a spec, which a recipe's file writes, got {value!r}: a setting changes one of its "
            f"arguments, as in {name}.argument=value"
        )
    raise ValueError(f"{name} must be {type_name(hint)}, got {value!r}")


def _frozen(value: Any) -> Any:
    """Turn lists into tuples, those inside too: what a record holds can be hashed."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _written(text: str, kinds_asked: Iterable[Any], name: str) -> Any:
    """Build a record that the field may hold from how Python writes it, such as "PairNoise(rate=0.3)"."""
    records = [o for o in kinds_asked if isinstance(o, type) and dataclasses.is_dataclass(o)]
    kinds = {kind.__name__: kind for record in records for kind in _concrete(record)}
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return text
    if not kinds or not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return text
    if call.func.id not in kinds:
        raise ValueError(f"there is no {call.func.id!r} here; {did_you_mean(call.func.id, kinds)}")
    kind = kinds[call.func.id]
    fields = [f.name for f in dataclasses.fields(kind) if f.init]
    try:
        values = [_frozen(ast.literal_eval(a)) for a in call.args]
        named = {str(k.arg): _frozen(ast.literal_eval(k.value)) for k in call.keywords}
    except ValueError:
        raise ValueError(f"{name} must be written with plain numbers, text and tuples in it, got {text!r}") from None
    if len(values) > len(fields):
        raise ValueError(f"{kind.__name__} takes {', '.join(fields)}, got {len(values)} values in {text!r}")
    given = dict(zip(fields, values, strict=False)) | named
    for field in given:
        if field not in fields:
            raise ValueError(f"{kind.__name__} has no argument {field!r}; {did_you_mean(field, fields)}")
    required = {
        f.name for f in dataclasses.fields(kind)
        if f.init and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }  # fmt: skip
    if missing := sorted(required - set(given)):
        raise ValueError(f"{kind.__name__} needs {', '.join(missing)}, got {text!r}: write {missing[0]}=...")
    return kind(**{field: _fitting(v, hints_of(kind).get(field, Any), field) for field, v in given.items()})


def _concrete(record: type[Any]) -> list[type[Any]]:
    """Return a record and those that derive from it, without what stands only for a family of them."""
    derived = [kind for sub in record.__subclasses__() for kind in _concrete(sub)]
    return derived if inspect.isabstract(record) else [record, *derived]
