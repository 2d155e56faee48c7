# SPDX-License-Identifier: Apache-2.0
"""Zstandard blocks, of which it is known how many bytes they hold, as Riegeli and ArrayRecord have them."""

from __future__ import annotations

import threading

import numpy as np
import zstandard

# How much of a block is decompressed at first, for the head of a record; and of how many parts that lie
# behind it each is decompressed by itself, before the whole block is.
_HEAD = 1 << 16
_PARTS = 2


class _Local(threading.local):
    """A decompressor serves one thread at a time, and to make one takes as long as 1 KB of data."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()
        self.passed_by = memoryview(bytearray(_HEAD))


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
        self._size = size
        self._known: bytes | memoryview = b""  # from the first byte on
        self._num_parts = 0

    def read(self, start: int, stop: int) -> memoryview:
        """Returns a copy of the bytes from a place to another.

        Raises:
          ValueError: The block is damaged, or holds fewer.
        """
        known = self._known
        if stop > max(start, len(known)):
            if stop <= _HEAD < self._size:
                known = self._part(0, _HEAD)
            elif self._num_parts < _PARTS:
                self._num_parts += 1
                return self._part(start, stop)
            else:
                known = decompress(self._data, self._size)
            self._known = known
        return memoryview(bytearray(known[start:stop]))

    def _part(self, start: int, stop: int) -> memoryview:
        """Decompresses some bytes, and all that lie before them into memory that is used again and again.

        So it stays in the processor's cache, which twice as much is decompressed into in the same time.
        """
        values = np.empty(stop - start, np.uint8).data
        try:
            stream = _local.decompressor.stream_reader(self._data)
            count, passed_by = 0, _local.passed_by
            while count < start and (found := stream.readinto(passed_by[: start - count])):
                count += found
            count += stream.readinto(values)
        except zstandard.ZstdError as error:
            raise ValueError(f"a compressed block is damaged: {error}") from error
        if count != stop:
            raise ValueError(f"a compressed block holds {count} bytes, but says {self._size}")
        return values
