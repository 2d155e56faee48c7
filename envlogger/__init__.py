# SPDX-License-Identifier: Apache-2.0
"""Records dm_env runs as TFDS datasets in RLDS form, and reads them back bit for bit."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from envlogger import _lazy, errors

if _TYPE_CHECKING:
    from envlogger import reader, riegeli, step_data, tfds
    from envlogger.backends.backend_type import BackendType
    from envlogger.backends.schedulers import Scheduler
    from envlogger.batched_env_logger import BatchedEnvLogger
    from envlogger.conversion.converting import convert
    from envlogger.environment_logger import EnvLogger
    from envlogger.gymnasium_environment import GymnasiumEnvironment
    from envlogger.reader import Reader
    from envlogger.step_data import StepData
    from envlogger.tfds.recovery import recover
    from envlogger.transitions import Transitions
    from envlogger.windows import Windows

__all__ = [
    "errors",
    # Recording
    "EnvLogger",
    "BatchedEnvLogger",
    "GymnasiumEnvironment",
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
    # Packages, and modules as EnvLogger 1.x had them
    "reader",
    "riegeli",
    "step_data",
    "tfds",
]

# Nobody uses all of them, and the helper process none: what it imports is a good part of the CPU time
# that recording costs.
__getattr__, __dir__ = _lazy.attach(
    globals(),
    {
        "BackendType": "envlogger.backends.backend_type",
        "BatchedEnvLogger": "envlogger.batched_env_logger",
        "EnvLogger": "envlogger.environment_logger",
        "GymnasiumEnvironment": "envlogger.gymnasium_environment",
        "Reader": "envlogger.reader",
        "Scheduler": "envlogger.backends.schedulers",
        "StepData": "envlogger.step_data",
        "Transitions": "envlogger.transitions",
        "Windows": "envlogger.windows",
        "convert": "envlogger.conversion.converting",
        "reader": "envlogger.reader",
        "recover": "envlogger.tfds.recovery",
        "riegeli": "envlogger.riegeli",
        "step_data": "envlogger.step_data",
        "tfds": "envlogger.tfds",
    },
)
