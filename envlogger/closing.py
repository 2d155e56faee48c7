# SPDX-License-Identifier: Apache-2.0
"""What is closed at the end of a `with` block."""

from __future__ import annotations

import abc
from types import TracebackType
from typing import Self


class Closing(abc.ABC):
    """A context manager that closes itself, whether the block ends by an error or not."""

    @abc.abstractmethod
    def close(self) -> None:
        """Releases all resources. May be called more than once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
