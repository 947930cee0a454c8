"""The classes that a run's record may name: those of nc_tools, of torch.optim, and of modules that the caller passes.

A record is a file, and files come from other people. A class that a record names is therefore never imported: it is
looked up among classes that are loaded already, and only among those that fit the place where it stands.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from types import ModuleType
from typing import Any, TypeGuard

import torch

from nc_tools import heads, losses, schedules
from nc_tools.experiment.class_path import path_of
from nc_tools.heads.head import Head
from nc_tools.losses.loss_term import LossTerm

# Base classes of what a spec may build if its type hint does not say it.
_BUILT_BY_SPECS = (Head, LossTerm, torch.optim.Optimizer)
# Hints that say nothing about the class of a dataclass.
_OPEN = (Any, Callable)
# Where the dataclasses are that heads and losses take as arguments.
_ARGUMENTS = (heads, losses, schedules)


class AllowedClasses:
    """Finds the class that a record names, if a record may name it there.

    Args:
        modules: Modules of the caller, whose classes are allowed too. The running script is always one of them.

    Raises:
        TypeError: If one of them is not a module.
    """

    def __init__(self, modules: Iterable[ModuleType] = ()) -> None:
        self._modules = (*modules, sys.modules["__main__"])
        for module in self._modules:
            if not isinstance(module, ModuleType):
                raise TypeError(
                    f"modules must hold modules that are imported, got {module!r}: write import my_heads, then pass "
                    "modules=[my_heads]"
                )

    def to_build(self, path: str, base: Any) -> type[Any] | None:
        """Return the class at a dotted path if a spec of ``base`` may build it; base is Any without a type hint."""
        bases = _BUILT_BY_SPECS if base is Any else base
        return self._find(path, lambda cls: issubclass(cls, bases))

    def dataclass(self, path: str, options: Sequence[Any]) -> type[Any] | None:
        """Return the dataclass at a dotted path if one of the options of a type hint allows it.

        A class among the options allows itself and its subclasses. ``Callable``, and ``Any`` for no hint at all, allow
        the dataclasses that heads and losses take as arguments, such as schedules, and those of the caller.
        """
        bases = tuple(option for option in options if isinstance(option, type) and option not in _OPEN)
        is_open = any(option in _OPEN for option in options)

        def fits(cls: type[Any]) -> bool:
            derived = issubclass(cls, bases) or (is_open and _is_argument_or_callers(cls))
            return derived and dataclasses.is_dataclass(cls)

        return self._find(path, fits)

    def _find(self, path: str, fits: Callable[[type[Any]], bool]) -> type[Any] | None:
        if path.partition(".")[0] == "nc_tools":
            # The names of its classes are unique, so a record stays readable when a class moves to another file.
            return next(filter(fits, _own_classes(path)), None)
        optimizers = [cls for cls in _classes_in(torch.optim) if issubclass(cls, torch.optim.Optimizer)]
        callers = [cls for module in self._modules for cls in _classes_in(module)]
        return next((cls for cls in (*callers, *optimizers) if _path_or_none(cls) == path and fits(cls)), None)


def _is_argument_or_callers(cls: type[Any]) -> bool:
    own = cls.__module__.partition(".")[0] == "nc_tools"
    return not own or any(vars(module).get(cls.__name__) is cls for module in _ARGUMENTS)


def _own_classes(path: str) -> Iterator[type[Any]]:
    """Yield the public classes of nc_tools whose name ends a dotted path, first that of the module in the path."""
    named, _, name = path.rpartition(".")
    loaded = (module for module in tuple(sys.modules) if module.startswith("nc_tools."))
    for module in chain([named] if named in sys.modules else [], loaded):
        thing = vars(sys.modules[module]).get(name)
        if _is_concrete_class(thing) and (thing.__module__, thing.__name__) == (module, name) and name[:1] != "_":
            yield thing


def _classes_in(module: ModuleType) -> list[type[Any]]:
    """Return the classes in a module's namespace that are not abstract."""
    return [thing for thing in vars(module).values() if _is_concrete_class(thing)]


def _is_concrete_class(thing: object) -> TypeGuard[type[Any]]:
    return isinstance(thing, type) and not inspect.isabstract(thing)


def _path_or_none(cls: type[Any]) -> str | None:
    try:
        return path_of(cls)
    except ValueError:  # defined inside a function, where no record can name it
        return None
