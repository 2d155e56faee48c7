# SPDX-License-Identifier: Apache-2.0
"""Imports the `rlds` package where one of its dependencies, Reverb, can't be had.

`import rlds` (0.1.8) fails wherever `import reverb` does, and dm-reverb's last release does not load
beside TensorFlow 2.16 or later. Of all that rlds has, `pattern_map` and `pattern_map_from_transform`
are what needs it; the others only pass by its name. So where there is no Reverb, a stand-in takes its
place while rlds is being imported, and is gone afterwards: `import reverb` still fails elsewhere.

    rlds = envlogger.tfds.import_rlds()
    batches = rlds.transformations.batch(episode["steps"], size=2, shift=1)

From then on `import rlds` works, too.
"""

from __future__ import annotations

import importlib
import sys
import threading
import types
from typing import Any, NoReturn

from envlogger import errors

_LOCK = threading.Lock()


class NoReverbError(errors.EnvLoggerError, ImportError):
    """Something was called that needs Reverb, which can't be imported."""


def import_rlds() -> types.ModuleType:
    """Returns the module `rlds`; imports it without Reverb if it must.

    A Reverb that can be imported is used. Without one, `rlds.transformations.pattern_map` and
    `pattern_map_from_transform` raise `NoReverbError`; everything else works.

    Raises:
      MissingExtraError: rlds or TensorFlow is not installed.
    """
    with _LOCK:
        if sys.modules.get("rlds") is None:
            try:
                importlib.import_module("tensorflow")
                _import_rlds()
            except ModuleNotFoundError as error:
                package = (error.name or "").partition(".")[0]
                if package not in ("rlds", "tensorflow"):
                    raise
                raise errors.MissingExtraError(package, "tensorflow", "RLDS") from error
        return sys.modules["rlds"]


def _import_rlds() -> None:
    before = set(sys.modules)
    try:
        importlib.import_module("reverb")
    except (
        Exception
    ) as error:  # where its library doesn't fit TensorFlow: one of TensorFlow's errors
        _forget(before)
        sys.modules["reverb"] = _stand_in(error)
        try:
            importlib.import_module("rlds")
        finally:
            del sys.modules["reverb"]
    else:
        importlib.import_module("rlds")


def _forget(before: set[str]) -> None:
    """Removes what a failed import of Reverb left behind."""
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "reverb":
            del sys.modules[name]


def _stand_in(reason: Exception) -> types.ModuleType:
    """Returns a module that has what rlds names while it is being imported.

    Args:
      reason: Why there is no Reverb.
    """

    def fail(*args: Any, **kwargs: Any) -> NoReturn:
        raise NoReverbError(
            f"rlds.transformations.pattern_map needs Reverb, which can't be imported ({reason}). "
            "Use envlogger.tfds.transitions or envlogger.tfds.windows instead."
        ) from reason

    structured_writer: Any = types.ModuleType("reverb.structured_writer")
    for name in ("Condition", "Config", "Pattern", "ReferenceStep"):  # in annotations
        setattr(structured_writer, name, type(name, (), {}))
    structured_writer.create_config = fail
    structured_writer.pattern_from_transform = fail
    reverb: Any = types.ModuleType("reverb", "Stands in for Reverb while rlds is imported.")
    reverb.structured_writer = structured_writer
    reverb.PatternDataset = fail
    module: types.ModuleType = reverb
    return module
