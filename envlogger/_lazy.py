# SPDX-License-Identifier: Apache-2.0
"""Names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attach(
    package: dict[str, Any], modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and `__dir__` of a package.

    Args:
      package: The package's `globals()`.
      modules: The module that has each name, or is it.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        module = importlib.import_module(modules[name])
        is_module = modules[name] == f"{package['__name__']}.{name}"
        value = package[name] = module if is_module else getattr(module, name)
        return value

    return get, lambda: sorted({*package, *modules})
