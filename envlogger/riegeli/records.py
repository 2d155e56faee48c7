# SPDX-License-Identifier: Apache-2.0
"""The records of a chunk, decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import numpy as np

from envlogger.riegeli import varints


class Records:
    """Records that lie one behind the other.

    Args:
      data: All of them; uint8 of shape (n,).
      bounds: Record i is data[bounds[i] : bounds[i + 1]]; int64 of shape (number of records + 1,).
    """

    __slots__ = ("bounds", "data")

    def __init__(self, data: varints.Bytes, bounds: varints.Ints) -> None:
        self.data = data
        self.bounds = bounds

    @classmethod
    def none(cls) -> Self:
        """Returns no records."""
        return cls(np.empty(0, np.uint8), np.zeros(1, np.int64))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, i: int) -> bytes:
        return self.data[self.bounds[i] : self.bounds[i + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(len(self)))
