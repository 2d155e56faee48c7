# SPDX-License-Identifier: Apache-2.0
"""Memory for batches that is used again.

A batch of images takes tens of megabytes, more than the C library keeps when they are freed. Each batch
would be made of new pages, and to get these from the system takes longer than to fill them.
"""

from __future__ import annotations

import collections
import math
from typing import Any

import numpy as np
import numpy.typing as npt

# What is larger comes from here.
_LARGE = 1 << 20
# How much is kept that nobody uses.
_KEPT = 256 << 20
# TensorFlow copies arrays that are not aligned so.
_ALIGNMENT = 64


class Buffers:
    """Gives out arrays; the memory of those that nobody refers to any more is given out again.

    Threads may share one.
    """

    def __init__(self) -> None:
        # Its methods are atomic. With a lock a thread could wait for itself: arrays end at any time.
        self._free: collections.deque[npt.NDArray[np.uint8]] = collections.deque()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Returns an array, not initialized, that TensorFlow takes without copying it.

        It is contiguous, writable, and begins at a multiple of 64 bytes. Below 1 MiB it is numpy's own.
        """
        size = math.prod(shape) * dtype.itemsize
        memory = np.empty(size + _ALIGNMENT, np.uint8) if size < _LARGE else self._lend(size)
        start = -memory.ctypes.data % _ALIGNMENT
        return memory[start : start + size].view(dtype).reshape(shape)

    def _lend(self, size: int) -> npt.NDArray[np.uint8]:
        wanted = size + _ALIGNMENT
        memory = self._find(wanted)
        if memory is None:
            memory = np.empty(wanted, np.uint8)
        return np.asarray(_Loan(self, memory))

    def _find(self, wanted: int) -> npt.NDArray[np.uint8] | None:
        for _ in range(len(self._free)):
            try:
                memory = self._free.popleft()
            except IndexError:  # another thread was faster
                return None
            if wanted <= len(memory) <= 2 * wanted:
                return memory
            self._free.append(memory)
        return None

    def _take_back(self, memory: npt.NDArray[np.uint8]) -> None:
        if sum(map(len, list(self._free)), len(memory)) <= _KEPT:
            self._free.append(memory)


class _Loan:
    """What arrays refer to that use a piece of memory: as long as there is one, so is this."""

    def __init__(self, lender: Buffers, memory: npt.NDArray[np.uint8]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._lender = lender
        self._memory = memory

    def __del__(self) -> None:
        self._lender._take_back(self._memory)
