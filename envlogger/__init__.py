# SPDX-License-Identifier: Apache-2.0
"""Records dm_env runs as TFDS datasets in RLDS form, and reads them back bit for bit."""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from envlogger.backends.backend_type import BackendType
from envlogger.backends.schedulers import Scheduler
from envlogger.environment_logger import EnvLogger
from envlogger.reader import Reader
from envlogger.step_data import StepData
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

if _TYPE_CHECKING:
    from envlogger.conversion.converting import convert


def __getattr__(name: str) -> _Any:
    # Not with the others: whoever records has no use for it, nor has the helper process.
    if name == "convert":
        from envlogger.conversion.converting import convert

        return convert
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
