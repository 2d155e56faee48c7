# SPDX-License-Identifier: Apache-2.0
"""Datasets in TFDS's format and RLDS's form, stored in ArrayRecord shards.

Importing this package makes stock `tfds.load` and its siblings read ArrayRecord as tf.data. It imports
neither TensorFlow nor TFDS; where TFDS is not imported yet, the extension takes effect once it is.

    episodes, steps, transitions, windows, Shuffle     whole columns at once: see `loaders`
    import_rlds                                        the `rlds` package: see `rlds_support`

These are imported when they are first used.
"""

import importlib as _importlib
from typing import Any as _Any

from envlogger.tfds import array_record

array_record.register()

_LAZY = {
    "Shuffle": "envlogger.tfds.loaders",
    "episodes": "envlogger.tfds.loaders",
    "import_rlds": "envlogger.tfds.rlds_support",
    "steps": "envlogger.tfds.loaders",
    "transitions": "envlogger.tfds.loaders",
    "windows": "envlogger.tfds.loaders",
}


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
