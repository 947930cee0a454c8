"""Settings given on the command line, such as ``--set optim.weight_decay=1e-4``."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from nc_tools._support.suggestions import did_you_mean
from nc_tools.specs import Spec
from nc_tools.type_check import hint_text, hints_of, matches, options_of

C = TypeVar("C")


TUNED_RATE = "optim.lr"
"""The setting that every comparison tunes: no value can be set for it."""


def rate_is_tuned(value: object) -> ValueError:
    """Return the error for a learning rate that was set although it is tuned."""
    return ValueError(
        f"{TUNED_RATE} cannot be set, because the learning rate is tuned for every arm: for a single rate write "
        f"--set protocol.rates={value} --set protocol.max_extensions=0"
    )


def parse_setting(text: str) -> tuple[str, Any]:
    """Split a setting ``a.b=value`` into its path and value; a value that is not a Python literal stays a string.

    Example:
        >>> parse_setting("optim.lr=0.1"), parse_setting("model.name=resnet32")
        (('optim.lr', 0.1), ('model.name', 'resnet32'))

    Raises:
        ValueError: If there is no "=" or no name.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ValueError(f"a setting must read a.b=value, such as optim.weight_decay=1e-4, got {text!r}")
    try:
        return path.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two if it nests too deep
        return path.strip(), value.strip()


def put(config: C, path: str, value: Any) -> C:
    """Return a copy of a nested dataclass with one field replaced; arguments of a spec count as its fields.

    Args:
        config: A dataclass or a spec.
        path: Dotted, such as "optim.lr" or "head.scale".
        value: Must match the type of the field or argument. Where the type asks for it, an int becomes a float, a whole
            float such as 1e4 becomes an int, a single value becomes a tuple, "true", "false" and "none" become Python's
            constants, and text such as "PairNoise(rate=0.3)" becomes that dataclass. Lists become tuples.

    Raises:
        TypeError: If the class of a spec has no such argument; the message suggests similar names.
        ValueError: If there is no such field (likewise), or the value does not match.
    """
    first, _, rest = path.partition(".")
    if isinstance(config, Spec):
        if rest:
            raise ValueError(
                f"cannot set {path!r}: {first!r} is an argument of {config.cls.__name__} and has no fields; set "
                f"{first!r} itself"
            )
        config.with_arguments({first: value})  # raises if there is no such argument
        hint = hints_of(config.cls).get(first, Any)
        return typing.cast(C, config.with_arguments({first: _converted(value, hint, first)}))
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"cannot set {path!r}: a value of type {type(config).__name__} has no fields")
    names = [f.name for f in dataclasses.fields(config)]
    if first not in names:
        advice = getattr(config, "ADVICE", {}).get(first) or did_you_mean(first, names)
        raise ValueError(f"there is no field {first!r} in {type(config).__name__}; {advice}")
    if rest and getattr(config, first) is None:
        raise ValueError(f"cannot set {path!r}: {first} is None, so it has no {rest!r}; set {first} itself")
    if rest:
        new = put(getattr(config, first), rest, value)
    else:
        new = _converted(value, hints_of(type(config)).get(first, Any), first)
    return typing.cast(C, dataclasses.replace(config, **{first: new}))


def put_all(config: C, settings: Iterable[tuple[str, Any]]) -> C:
    """Return a copy of a configuration with several settings, pairs of path and value, applied in order."""
    for path, value in settings:
        config = put(config, path, value)
    return config


def _converted(value: Any, hint: Any, name: str) -> Any:
    """Convert a value from the command line to the type that the field's type hint asks for."""
    value, options = _as_tuples(value), options_of(hint)
    if isinstance(value, str):
        value = _constant_from_text(value, options)
    if isinstance(value, str):
        value = _dataclass_from_text(value, options, name)
    if isinstance(value, float) and value.is_integer() and int in options and float not in options:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in options and int not in options:
        return float(value)
    if matches(value, hint):
        return value
    if any(typing.get_origin(option) is tuple for option in options) and not isinstance(value, tuple):
        return _converted((value,), hint, name)
    if any((typing.get_origin(option) or option) is Spec for option in options):
        raise ValueError(
            f"{name} must be a spec, as in spec(CLASS, ...), got {value!r}: write the spec in the recipe's file, or "
            f"set one of its arguments, as in {name}.ARGUMENT=VALUE"
        )
    raise ValueError(f"{name} must be {hint_text(hint)}, got {value!r}")


def _constant_from_text(text: str, options: Collection[Any]) -> Any:
    """Return True, False or None for text that says so, in any case, where the field takes it; else the text."""
    word = text.lower()
    if word in ("none", "null") and type(None) in options:
        return None
    if word in ("true", "false") and bool in options:
        return word == "true"
    return text


def _as_tuples(value: Any) -> Any:
    """Turn lists into tuples at every depth, so that a configuration can be hashed."""
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _dataclass_from_text(text: str, options: Iterable[Any], name: str) -> Any:
    """Build the dataclass that text such as "PairNoise(rate=0.3)" describes; return any other text unchanged."""
    bases = [option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)]
    classes = {cls.__name__: cls for base in bases for cls in _concrete_classes(base)}
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return text
    if not classes or not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return text
    if call.func.id not in classes:
        raise ValueError(
            f"{name} cannot be {text!r}: there is no {call.func.id!r}; {did_you_mean(call.func.id, classes)}"
        )
    cls = classes[call.func.id]
    fields = [f.name for f in dataclasses.fields(cls) if f.init]
    try:
        positional = [_as_tuples(ast.literal_eval(a)) for a in call.args]
        named = {str(k.arg): _as_tuples(ast.literal_eval(k.value)) for k in call.keywords}
    except ValueError:
        raise ValueError(
            f"the arguments of {name} must be numbers, quoted text or tuples, got {text!r}: write them out"
        ) from None
    if len(positional) > len(fields):
        raise ValueError(
            f"{cls.__name__} takes only {', '.join(fields)}, got {len(positional)} values in {text!r}: remove the "
            f"surplus values"
        )
    arguments = dict(zip(fields, positional, strict=False)) | named
    for field in arguments:
        if field not in fields:
            raise ValueError(f"{cls.__name__} has no argument {field!r}; {did_you_mean(field, fields)}")
    required = {
        f.name for f in dataclasses.fields(cls)
        if f.init and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }  # fmt: skip
    if missing := sorted(required - set(arguments)):
        wanted = ", ".join(f"{field}=..." for field in missing)
        raise ValueError(f"{cls.__name__} needs {', '.join(missing)}, got {text!r}: write {cls.__name__}({wanted})")
    hints = hints_of(cls)
    return cls(**{field: _converted(v, hints.get(field, Any), field) for field, v in arguments.items()})


def _concrete_classes(cls: type[Any]) -> list[type[Any]]:
    """Return a class and all its subclasses, without abstract ones."""
    derived = [concrete for sub in cls.__subclasses__() for concrete in _concrete_classes(sub)]
    return derived if inspect.isabstract(cls) else [cls, *derived]
