"""What to build, written down before the facts of a run are known."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from nc_tools._support.suggestions import did_you_mean

T = TypeVar("T", covariant=True)  # a spec of LinearHead is a spec of a Head


@dataclass(frozen=True)
class Spec(Generic[T]):
    """A class and the arguments chosen for it; the rest is filled in when it is built. Made by :func:`spec`."""

    cls: type[T]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameter_names(self) -> list[str]:
        """Names of the arguments that the class has."""
        return list(_parameters(self.cls))

    def takes(self, name: str) -> bool:
        """Tell whether the class has an argument of this name that the spec leaves open."""
        return name in self.parameter_names and name not in self.arguments

    def classes(self) -> Iterator[type]:
        """Name the class, and those of all specs among its arguments.

        Example:
            >>> [cls.__name__ for cls in Spec(dict, {"parts": (Spec(int), {"more": Spec(str)})}).classes()]
            ['dict', 'int', 'str']
        """
        yield self.cls
        for inner in _specs(self.arguments):
            yield from inner.classes()

    def with_arguments(self, arguments: Mapping[str, Any]) -> Spec[T]:
        """Return the same spec with some arguments set anew, checked as :func:`spec` checks them."""
        return _checked(self.cls, {**self.arguments, **arguments})

    def build(self, facts: Mapping[str, Any]) -> T:
        """Build the object, filling from ``facts`` the arguments that the class names and the spec leaves open.

        Specs among the arguments, in tuples, lists, mappings and dataclasses too, are built from the same facts.

        Args:
            facts: What a run knows: feature_dim, num_classes, class_counts, generator, frame_seed.

        Raises:
            TypeError: If an argument without a default is neither in the spec nor among the facts.
        """
        parameters = _parameters(self.cls)
        filled = {name: value for name, value in facts.items() if name in parameters} | dict(self.arguments)
        required = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}
        missing = sorted(required - set(filled))
        if missing:
            raise TypeError(
                f"{self.cls.__name__} needs {', '.join(missing)}, which neither the spec nor the run gives: "
                f"write spec({self.cls.__name__}, {missing[0]}=...)"
            )
        return self.cls(**{name: _built(value, facts) for name, value in filled.items()})


def _built(value: Any, facts: Mapping[str, Any]) -> Any:
    """Build the specs inside an argument; what holds none is returned as it is."""
    if not _holds_spec(value):
        return value
    if isinstance(value, Spec):
        return value.build(facts)
    if isinstance(value, Mapping):
        return {key: _built(item, facts) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_built(item, facts) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return dataclasses.replace(value, **{f.name: _built(getattr(value, f.name), facts) for f in _fields(value)})


def _holds_spec(value: Any) -> bool:
    return any(True for _ in _specs(value))


def _specs(value: Any) -> Iterator[Spec[Any]]:
    """Find the outermost specs in an argument."""
    if isinstance(value, Spec):
        yield value
        return
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, tuple | list):
        parts = list(value)
    else:
        parts = [getattr(value, f.name) for f in _fields(value)]
    for part in parts:
        yield from _specs(part)


def _fields(value: Any) -> tuple[dataclasses.Field[Any], ...]:
    is_one = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return tuple(f for f in dataclasses.fields(value) if f.init) if is_one else ()


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {n: p for n, p in inspect.signature(cls).parameters.items() if p.kind in named}


def _checked(cls: type[T], arguments: Mapping[str, Any]) -> Spec[T]:
    known = _parameters(cls)
    for name in arguments:
        if name not in known:
            raise TypeError(f"{cls.__name__} has no argument {name!r}; {did_you_mean(name, known)}")
    return Spec(cls, dict(arguments))


def spec(cls: type[T], /, **arguments: Any) -> Spec[T]:
    """Write down a head, loss or optimizer to be built later, with its arguments checked now.

    A recipe states ``head=spec(ETFHead, scale=8.0)`` before the width of the backbone or the class counts are known;
    a mistyped argument is an error on that line, not hours later in a worker.

    Args:
        cls: The class.
        arguments: Some of its arguments, by name.

    Raises:
        TypeError: If the class has no such argument (the nearest names are offered) or is not a class.

    Example:
        >>> import torch
        >>> spec(torch.nn.Linear, bias=False).build({"in_features": 3, "out_features": 2})
        Linear(in_features=3, out_features=2, bias=False)
        >>> spec(torch.nn.Linear, bais=False)
        Traceback (most recent call last):
        ...
        TypeError: Linear has no argument 'bais'; did you mean 'bias'?
    """
    if not isinstance(cls, type):
        raise TypeError(f"spec takes a class and its arguments, got {cls!r}: write spec(ETFHead, scale=8.0)")
    return _checked(cls, arguments)
