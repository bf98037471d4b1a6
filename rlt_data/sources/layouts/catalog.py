"""Every layout, discovered in the folder `public`, so that a new one is a new file and nothing else."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from types import ModuleType

from rlt_data.errors import UsageError
from rlt_data.sources.layouts import public
from rlt_data.sources.layouts.base import Layout
from rlt_data.suggestions import suggest_name


def discover_layouts(package: ModuleType) -> tuple[Layout, ...]:
    """Import the modules of `package` and return the layouts that they define, in the order of names.

    Raises `ValueError` where two layouts have the same name.
    """
    found: dict[str, Layout] = {}
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = import_module(info.name)
        for _, value in inspect.getmembers(module, inspect.isclass):
            own = value.__module__ == module.__name__
            if own and issubclass(value, Layout) and not inspect.isabstract(value):
                if value.name in found:
                    raise ValueError(f"two layouts are named {value.name!r}; the second is in {info.name}")
                found[value.name] = value()
    return tuple(found[name] for name in sorted(found))


LAYOUTS = discover_layouts(public)
"""Every layout, in the order of names."""


def find_layout(name: str) -> Layout:
    """Find a layout by its name. Raises `UsageError` with the nearest name."""
    for layout in LAYOUTS:
        if layout.name == name.casefold().replace("_", "-"):
            return layout
    raise UsageError(
        f"there is no layout {name!r}", remedy=suggest_name(name, [layout.name for layout in LAYOUTS])
    )
