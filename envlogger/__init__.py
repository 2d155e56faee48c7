# SPDX-License-Identifier: Apache-2.0
"""Records dm_env runs as TFDS datasets in RLDS form, and reads them back bit for bit."""

from envlogger.backends.backend_type import BackendType
from envlogger.backends.schedulers import Scheduler
from envlogger.conversion.converting import convert
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
