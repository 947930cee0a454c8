"""Rebuild configurations from JSON, guided by the type hints of their fields, never by what the JSON names."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import typing
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from nc_tools._support.short_repr import short_repr
from nc_tools._support.suggestions import did_you_mean
from nc_tools.experiment.allowed_classes import AllowedClasses
from nc_tools.experiment.run_config import RunConfig
from nc_tools.run_records.renames import current_names
from nc_tools.specs import Spec
from nc_tools.type_check import hint_text, hints_of, matches, options_of


def decode(value: Any, expected: Any = RunConfig, *, modules: Iterable[ModuleType] = (), name: str = "config") -> Any:
    """Rebuild a configuration from the JSON values that :func:`nc_tools.experiment.serialize.encode` returned.

    Each value is checked against the type hint of its field before anything is built. A field that holds a head gets a
    head: one of nc_tools, or of a module that the caller passes. Nothing that the JSON names is imported. Names of
    earlier versions are replaced by today's first, see :mod:`nc_tools.run_records.renames`. Lists become tuples, unless
    the hint asks for a list.

    Args:
        value: The JSON values.
        expected: The type hint of the whole: a dataclass, or a hint such as ``Spec[Head]``.
        modules: Modules with heads, losses, optimizers and dataclasses of the caller, which may be named too.
        name: What to call the whole in messages.

    Raises:
        ValueError: If a value does not match its hint, a class may not be named there, or a field is unknown or
            missing. The message names the field.

    Example:
        >>> from nc_tools.experiment import ModelConfig
        >>> decode({"dataclass": "nc_tools.experiment.run_config.ModelConfig", "width": 8}, ModelConfig).width
        8
        >>> decode({"dataclass": "torch.jit.load", "f": "model.pt"}, ModelConfig, name="model")
        Traceback (most recent call last):
        ...
        ValueError: model must be ModelConfig, got the class 'torch.jit.load'
    """
    return _Decoder(AllowedClasses(modules)).value(current_names(value), expected, name)


class _Decoder:
    """Rebuilds values, each by the type hint of the place where it stands."""

    def __init__(self, allowed: AllowedClasses) -> None:
        self._allowed = allowed

    def value(self, value: Any, hint: Any, where: str) -> Any:
        if isinstance(value, dict):
            made = self._from_dictionary(value, hint, where)
        elif isinstance(value, list):
            made = self._from_list(value, hint, where)
        else:
            made = value
        if not matches(made, hint):
            raise ValueError(f"{where} must be {hint_text(hint)}, got {short_repr(value)}")
        return made

    def _from_dictionary(self, value: dict[str, Any], hint: Any, where: str) -> Any:
        options = [(typing.get_origin(option) or option, typing.get_args(option)) for option in options_of(hint)]
        kinds = [option for option, _ in options]
        is_open = Any in kinds
        if "class" in value and (Spec in kinds or is_open):
            base = next((inner[0] for option, inner in options if option is Spec and inner), Any)
            return self._spec(value, base, hint, where)
        if "dataclass" in value:
            return self._dataclass(value, kinds, hint, where)
        item = next((inner[1] for option, inner in options if option in (Mapping, dict) and len(inner) == 2), Any)
        return {key: self.value(part, item, f"{where}.{key}") for key, part in value.items()}

    def _spec(self, value: dict[str, Any], base: Any, hint: Any, where: str) -> Spec[Any]:
        path, given = value["class"], value.get("arguments")
        cls = self._allowed.to_build(path, base) if isinstance(path, str) else None
        if cls is None:
            raise _not_allowed(where, hint, path)
        if not isinstance(given, dict):
            raise ValueError(f"{where} must hold the arguments of {cls.__name__} by name, got {short_repr(given)}")
        return Spec(cls, self._arguments(cls, given, list(inspect.signature(cls).parameters), where))

    def _dataclass(self, value: dict[str, Any], kinds: list[Any], hint: Any, where: str) -> Any:
        path = value["dataclass"]
        cls = self._allowed.dataclass(path, kinds) if isinstance(path, str) else None
        if cls is None:
            raise _not_allowed(where, hint, path)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        given = {key: part for key, part in value.items() if key != "dataclass"}
        arguments = self._arguments(cls, given, list(fields), where)
        missing = dataclasses.MISSING
        needed = [n for n, f in fields.items() if f.default is missing and f.default_factory is missing]
        if absent := [name for name in needed if name not in arguments]:
            raise ValueError(f"{where} lacks {', '.join(absent)}, which {cls.__name__} needs")
        try:
            return cls(**arguments)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ValueError(f"{where} cannot be built: {error}") from error

    def _arguments(self, cls: type[Any], given: dict[str, Any], names: list[str], where: str) -> dict[str, Any]:
        hints = hints_of(cls)
        for name in given:
            if name not in names:
                raise ValueError(f"{where} has no {name!r}; {did_you_mean(name, names)}")
        return {name: self.value(part, hints.get(name, Any), f"{where}.{name}") for name, part in given.items()}

    def _from_list(self, value: list[Any], hint: Any, where: str) -> list[Any] | tuple[Any, ...]:
        sequences = [
            (typing.get_origin(option) or option, typing.get_args(option))
            for option in options_of(hint)
            if (typing.get_origin(option) or option) in (tuple, list, collections.abc.Sequence, Iterable)
        ]
        kinds = [kind for kind, _ in sequences]
        inner = next((inner for _, inner in sequences if inner), (Any,))
        by_position = tuple in kinds and Ellipsis not in inner and len(inner) == len(value)
        hints = inner if by_position else (inner[0],) * len(value)
        items = [self.value(part, hints[i], f"{where}[{i}]") for i, part in enumerate(value)]
        return items if kinds == [list] else tuple(items)


def _not_allowed(where: str, hint: Any, path: object) -> ValueError:
    advice = ""
    if isinstance(path, str) and path.partition(".")[0] not in ("nc_tools", "torch"):
        advice = (
            ": if you wrote this class, pass its module, as in load_run(folder, modules=[my_heads]) or "
            "nc-tools measure --modules my_heads"
        )
    return ValueError(f"{where} must be {hint_text(hint)}, got the class {short_repr(path)}{advice}")
