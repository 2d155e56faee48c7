# SPDX-License-Identifier: Apache-2.0
"""The records of a chunk, decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import numpy as np

from envlogger import varints


class Records:
    """Records, somewhere in an array.

    Args:
      data: All of them; uint8 of shape (n,).
      begins: Where each begins; int64 of shape (number of records,).
      ends: Where each ends; likewise.
    """

    __slots__ = ("begins", "data", "ends")

    def __init__(self, data: varints.Bytes, begins: varints.Ints, ends: varints.Ints) -> None:
        self.data = data
        self.begins = begins
        self.ends = ends

    @classmethod
    def none(cls) -> Self:
        """Returns no records."""
        return cls(np.empty(0, np.uint8), *np.empty((2, 0), np.int64))

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, i: int) -> bytes:
        return self.data[self.begins[i] : self.ends[i]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(len(self)))
