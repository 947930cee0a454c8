"""Specs: a class with some of its arguments, to be built once the other arguments are known."""

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
    """A class and some of its arguments. Create one with :func:`spec`, which checks the arguments.

    Attributes:
        cls: The class.
        arguments: The arguments that are set, by name.
    """

    cls: type[T]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameter_names(self) -> list[str]:
        """The names of all arguments of the class."""
        return list(_parameters(self.cls))

    def leaves_open(self, name: str) -> bool:
        """Return True if the class has an argument ``name`` and the spec does not set it."""
        return name in self.parameter_names and name not in self.arguments

    def classes(self) -> Iterator[type]:
        """Yield the class of the spec, and the classes of all specs among its arguments.

        Example:
            >>> [cls.__name__ for cls in Spec(dict, {"parts": (Spec(int), {"more": Spec(str)})}).classes()]
            ['dict', 'int', 'str']
        """
        yield self.cls
        for inner in _specs(self.arguments):
            yield from inner.classes()

    def with_arguments(self, arguments: Mapping[str, Any]) -> Spec[T]:
        """Return a copy of the spec with some arguments set or replaced.

        Raises:
            TypeError: If the class has no such argument.
        """
        return _checked_spec(self.cls, {**self.arguments, **arguments})

    def build(self, facts: Mapping[str, Any]) -> T:
        """Build the object that the spec describes.

        Arguments that the spec does not set are taken from ``facts`` if the class has an argument of that name. Specs
        among the arguments, also inside tuples, lists, mappings and dataclasses, are built from the same facts.

        Args:
            facts: Values that only the run knows: feature_dim, num_classes, class_counts, generator, frame_seed.

        Raises:
            TypeError: If an argument without a default is neither in the spec nor in ``facts``.
        """
        parameters = _parameters(self.cls)
        filled = {name: value for name, value in facts.items() if name in parameters} | dict(self.arguments)
        required = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}
        missing = sorted(required - set(filled))
        if missing:
            raise TypeError(
                f"{self.cls.__name__} needs {', '.join(missing)}, which neither the spec nor the run sets. "
                f"Write spec({self.cls.__name__}, {', '.join(f'{name}=...' for name in missing)})"
            )
        return self.cls(**{name: _built(value, facts) for name, value in filled.items()})


def _built(value: Any, facts: Mapping[str, Any]) -> Any:
    """Return an argument with the specs inside it built. An argument without specs is returned unchanged."""
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
    """Yield the outermost specs in an argument."""
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
    """Return the fields of a dataclass instance; none for any other value."""
    is_instance = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return tuple(f for f in dataclasses.fields(value) if f.init) if is_instance else ()


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class that can be passed by name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {n: p for n, p in inspect.signature(cls).parameters.items() if p.kind in by_name}


def _checked_spec(cls: type[T], arguments: Mapping[str, Any]) -> Spec[T]:
    parameters = _parameters(cls)
    for name in arguments:
        if name not in parameters:
            raise TypeError(f"{cls.__name__} has no argument {name!r}; {did_you_mean(name, parameters)}")
    return Spec(cls, dict(arguments))


def spec(cls: type[T], /, **arguments: Any) -> Spec[T]:
    """Describe a head, loss or optimizer that is built later; its arguments are checked now.

    A recipe can say ``head=spec(ETFHead, scale=8.0)`` before the backbone's width and the class counts are known. A
    mistyped argument is an error on that line, not hours later in a worker process.

    Args:
        cls: The class.
        arguments: Some of its arguments, by name.

    Raises:
        TypeError: If ``cls`` is not a class, or has no argument of one of these names. The message suggests similar
            names.

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
        raise TypeError(
            f"spec needs a class, got {cls!r}. Write the class and its arguments, as in spec(ETFHead, scale=8.0)"
        )
    return _checked_spec(cls, arguments)
