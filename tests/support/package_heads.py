"""The concrete heads in the files of nc_tools/heads, whether exported or not."""

import importlib
import inspect
import pkgutil

import nc_tools.heads
from nc_tools.heads import Head


def head_classes() -> list[type[Head]]:
    """Return the public concrete heads that the modules of nc_tools.heads define, by name."""
    names = [f"nc_tools.heads.{module.name}" for module in pkgutil.iter_modules(nc_tools.heads.__path__)]
    modules = [importlib.import_module(name) for name in names]
    heads = {cls for module in modules for cls in vars(module).values() if _is_concrete_head(cls, module.__name__)}
    return sorted(heads, key=lambda cls: cls.__name__)


def _is_concrete_head(value: object, module: str) -> bool:
    return (
        inspect.isclass(value)
        and issubclass(value, Head)
        and value is not Head
        and not inspect.isabstract(value)
        and value.__module__ == module
        and not value.__name__.startswith("_")
    )
