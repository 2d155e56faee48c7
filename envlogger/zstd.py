# SPDX-License-Identifier: Apache-2.0
"""Zstandard blocks, of which it is known how many bytes they hold, as Riegeli and ArrayRecord have them."""

from __future__ import annotations

import threading

import numpy as np
import zstandard

# How much of a block is decompressed at first, and how many times it is begun anew before the rest of it
# is decompressed: for the head of a record, and for a row of it.
_FIRST = 1 << 16
_TIMES = 2


class _Local(threading.local):
    """A decompressor serves one thread at a time, and to make one takes as long as 1 KB of data."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_local = _Local()


def decompress(data: memoryview, size: int) -> bytes:
    """Returns the bytes that a block holds.

    Args:
      data: The block.
      size: How many they are.

    Raises:
      ValueError: The block is damaged, or holds another number of bytes. No more than `size` are set aside.
    """
    if not size and not data:
        return b""
    try:
        promised = zstandard.frame_content_size(data)  # -1: the block does not say
        if promised not in (-1, size):
            raise ValueError(f"a block that holds {size} bytes says that they are {promised}")
        # For the package, a limit of 0 is none.
        values = _local.decompressor.decompress(data, max_output_size=max(size, 1))
    except zstandard.ZstdError as error:
        raise ValueError(f"a compressed block is damaged: {error}") from error
    if len(values) != size:
        raise ValueError(f"a compressed block holds {len(values)} bytes, but says {size}")
    return values


class LazyBytes:
    """The bytes of a block, decompressed as far as they were asked for. Threads may share them.

    Args:
      data: The block.
      size: How many bytes it holds.
    """

    def __init__(self, data: memoryview, size: int) -> None:
        self._data = data
        self._values = np.empty(size, np.uint8).data
        self._done = 0
        self._times = 0

    def read(self, start: int, stop: int) -> memoryview:
        """Returns a copy of the bytes from a place to another.

        Raises:
          ValueError: The block is damaged, or holds fewer.
        """
        if stop > self._done:
            self._times += 1
            self._begin_anew(max(stop, _FIRST) if self._times <= _TIMES else len(self._values))
        return memoryview(bytearray(self._values[start:stop]))

    def _begin_anew(self, stop: int) -> None:
        """Decompresses so many bytes, from the first one on: to go on would take keeping a window of 2 MB."""
        values = self._values[:stop]
        try:
            count = _local.decompressor.stream_reader(self._data).readinto(values)
        except zstandard.ZstdError as error:
            raise ValueError(f"a compressed block is damaged: {error}") from error
        if count != len(values):
            raise ValueError(
                f"a compressed block holds {count} bytes, but says {len(self._values)}"
            )
        self._done = max(self._done, count)
