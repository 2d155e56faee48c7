# SPDX-License-Identifier: Apache-2.0
"""The compressed blocks of a chunk: uncompressed, Brotli, Zstandard or Snappy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import cramjam
import numpy as np

from envlogger import errors, varints, zstd

NONE = 0
BROTLI = ord("b")
ZSTD = ord("z")
SNAPPY = ord("s")

# How a block in Brotli begins whose window is larger than RFC 7932 knows (`window_log:25` and more).
_LARGE_WINDOW = b"\x11"


class Decompressor:
    """Decompresses the blocks of one chunk, within a budget.

    A block says how large it is decompressed; that much memory is set aside, if the budget has it, and
    what does not fit exactly is an error. So a small block cannot become much more than the chunk says
    that it holds.

    Args:
      kind: The byte that names the compression of the chunk.
      budget: How many bytes all blocks together may have, decompressed.

    Raises:
      ValueError: There is no such compression.
      MissingExtraError: The package `brotli` is not installed, and the chunk is compressed with it.
    """

    def __init__(self, kind: int, budget: int) -> None:
        self._decompress = None if kind == NONE else _decompressor(kind)
        self._budget = budget

    def __call__(self, block: memoryview) -> varints.Bytes:
        """Returns a block, decompressed; uint8 of shape (n,).

        Raises:
          ValueError: The block is damaged, or larger than the budget that is left.
        """
        return self.each([block])[0]

    def each(self, blocks: Sequence[memoryview]) -> list[varints.Bytes]:
        """Returns blocks, decompressed.

        Raises:
          ValueError: As when one is decompressed.
        """
        if self._decompress is None:
            return [np.frombuffer(block, np.uint8) for block in blocks]
        starts = [varints.read(block, 0) for block in blocks]
        total = sum(size for size, _ in starts)
        self._budget -= total
        if self._budget < 0:
            raise ValueError(f"compressed blocks say that they hold {total} bytes, more than fit")
        parts = []
        for block, (size, begin) in zip(blocks, starts, strict=True):
            part = self._decompress(block[begin:], size)
            if len(part) != size:
                raise ValueError(f"a compressed block holds {len(part)} bytes, but says {size}")
            parts.append(part)
        return parts


def _decompressor(kind: int) -> Callable[[memoryview, int], varints.Bytes]:
    """Returns what decompresses a block to so many bytes, or to more, or fewer, or raises ValueError."""
    if kind == BROTLI:
        return _decompress_brotli
    if kind == ZSTD:
        return _decompress_zstd
    if kind == SNAPPY:
        return functools.partial(_decompress_into, cramjam.snappy.decompress_raw_into)
    raise ValueError(f"got the compression {kind:#x}, expected none, brotli, zstd or snappy")


def _decompress_zstd(block: memoryview, size: int) -> varints.Bytes:
    return np.frombuffer(zstd.decompress(block, size), np.uint8)


def _decompress_into(
    into: Callable[[Any, Any], int], block: memoryview, size: int
) -> varints.Bytes:
    out = np.empty(size, np.uint8)
    try:
        return out[: into(block, out)]
    except cramjam.DecompressionError as error:
        raise ValueError(f"a compressed block is damaged: {error}") from error


def _decompress_brotli(block: memoryview, size: int) -> varints.Bytes:
    if block[:1] == _LARGE_WINDOW:  # Google's library has these, its package for Python has not
        return _decompress_into(cramjam.brotli.decompress_into, block, size)
    # cramjam has it, too, but takes twice as long.
    try:
        import brotli
    except ImportError as error:
        raise errors.MissingExtraError("brotli", "riegeli", "A Riegeli file in Brotli") from error
    decompressor = brotli.Decompressor()
    try:
        out = decompressor.process(block, output_buffer_limit=size + 1)
    except brotli.error as error:
        raise ValueError(f"a compressed block is damaged: {error}") from error
    if not decompressor.is_finished():
        raise ValueError(f"a compressed block does not end at the {size} bytes that it says it has")
    return np.frombuffer(out, np.uint8)
