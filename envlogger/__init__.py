# SPDX-License-Identifier: Apache-2.0
"""Records dm_env runs as TFDS datasets in RLDS form, and reads them back bit for bit."""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from envlogger.backends.backend_type import BackendType
from envlogger.backends.schedulers import Scheduler
from envlogger.environment_logger import EnvLogger
from envlogger.step_data import StepData

if _TYPE_CHECKING:
    from envlogger.conversion.converting import convert
    from envlogger.reader import Reader
    from envlogger.tfds.recovery import recover
    from envlogger.transitions import Transitions
    from envlogger.windows import Windows

__all__ = [
    # Recording
    "EnvLogger",
    "BackendType",
    "Scheduler",
    "recover",
    # Converting
    "convert",
    # Reading
    "Reader",
    "StepData",
    # Training, by index
    "Transitions",
    "Windows",
]

# Imported when they are first used: whoever records has no use for them, nor has the helper process,
# whose start is a good part of what recording costs.
_LAZY = {
    "Reader": "envlogger.reader",
    "Transitions": "envlogger.transitions",
    "Windows": "envlogger.windows",
    "convert": "envlogger.conversion.converting",
    "recover": "envlogger.tfds.recovery",
}


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
