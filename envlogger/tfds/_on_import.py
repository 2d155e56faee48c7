# SPDX-License-Identifier: Apache-2.0
"""Runs a callback once a module has been imported, without importing it.

Recording must not load TensorFlow Datasets, yet `import envlogger.tfds` has to extend it in either order
of imports. So the extension waits here until somebody else imports the module.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:  # at run time they would cost more than all else that recording imports
    import importlib.abc
    import importlib.machinery

_Callback = Callable[[types.ModuleType], None]


def on_import(name: str, callback: _Callback) -> None:
    """Calls `callback(module)` at once if `name` is imported, and after each later import of it.

    "Each later import" is the first one, and those by `importlib.reload`, which run the module's code
    again and so undo what the callback did. The callback runs before anybody who waits for the import
    gets the module. It may be called twice for one import (another thread is importing just now), so it
    has to be idempotent. Where it raises, the error is logged and the import succeeds.

    Args:
        name: The full name of a module. It need not be installed.
        callback: What to call with the module.
    """
    # Before looking into sys.modules: an import that starts in between is then seen by the finder.
    sys.meta_path[:] = [
        cast(Any, _Finder(name, callback)),
        *(f for f in sys.meta_path if getattr(f, "waits_for", None) != name),
    ]
    if name in sys.modules:
        # Not sys.modules[name]: this one waits if another thread is still running the module's code.
        _call(callback, importlib.import_module(name))


def _call(callback: _Callback, module: types.ModuleType) -> None:
    try:
        callback(module)
    except Exception:
        # The importer asked for `module` and may have no use for the extension.
        import logging

        logging.getLogger(__name__).exception("Could not extend %s.", module.__name__)


class _Finder:
    """Lets the other finders find the module, and wraps its loader.

    It stays in `sys.meta_path` for the sake of reloads; it costs one comparison per module imported.
    """

    def __init__(self, name: str, callback: _Callback) -> None:
        self.waits_for = name
        self._callback = callback

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the spec that the import system would have found without this finder."""
        if fullname != self.waits_for:
            return None
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec: importlib.machinery.ModuleSpec | None = find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = cast(Any, _Loader(spec.loader, self._callback))
                return spec
        return None


class _Loader:
    """Calls back after the module's own loader; leaves no trace of itself in the module."""

    def __init__(self, loader: importlib.abc.Loader, callback: _Callback) -> None:
        self._loader = loader
        self._callback = callback

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        # inspect, pkgutil and pickle ask a module's loader for its source and its resources.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _call(self._callback, module)
