# SPDX-License-Identifier: Apache-2.0
"""The errors this library raises; each also is the builtin that fits it.

Every message says where (the nested path), what was got, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class EnvLoggerError(Exception):
    """Base of every error of this library."""


class ValueMismatchError(EnvLoggerError, ValueError):
    """A value does not fit what the dataset already holds at its path."""


class UnsupportedValueError(EnvLoggerError, TypeError):
    """A value of a kind that cannot be stored without loss."""


class NameConflictError(EnvLoggerError, ValueError):
    """A key is reserved, illegal, or collides with another key."""


class OptionError(EnvLoggerError, ValueError):
    """An argument has a value that is not allowed."""


class DatasetError(EnvLoggerError, OSError):
    """A directory that cannot be used as a dataset: not one, not writable, or of another form."""


class CorruptDatasetError(DatasetError):
    """A file of a dataset is missing, truncated or damaged; the message names the file."""


class MissingExtraError(EnvLoggerError, ImportError):
    """A package is missing that belongs to one of the extras."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'envlogger[{extra}]'"
        )
        self.package = package
        self.extra = extra
        self._purpose = purpose

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets worker processes raise it."""
        return type(self), (self.package, self.extra, self._purpose)


def format_path(path: Sequence[object]) -> str:
    """Returns a nested path as users read it: `observation/camera/0`."""
    return "/".join(map(str, path)) or "(the value itself)"
