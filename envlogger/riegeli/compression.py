# SPDX-License-Identifier: Apache-2.0
"""The compressed blocks of a chunk: uncompressed, Brotli, Zstandard or Snappy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from envlogger import errors
from envlogger.riegeli import varints

NONE = 0
BROTLI = ord("b")
ZSTD = ord("z")
SNAPPY = ord("s")


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
      MissingExtraError: The package `cramjam` is not installed, and the chunk is compressed.
    """

    def __init__(self, kind: int, budget: int) -> None:
        self._into = None if kind == NONE else _decompress_into(kind)
        self._budget = budget

    def __call__(self, block: memoryview) -> varints.Bytes:
        """Returns a block, decompressed; uint8 of shape (n,).

        Raises:
          ValueError: The block is damaged, or larger than the budget that is left.
        """
        return self.join([block])[0]

    def join(self, blocks: Sequence[memoryview]) -> tuple[varints.Bytes, list[int]]:
        """Returns blocks, decompressed and joined, and the size of each.

        Raises:
          ValueError: As when one is decompressed.
        """
        if self._into is None:
            joined = blocks[0] if len(blocks) == 1 else b"".join(blocks)
            return np.frombuffer(joined, np.uint8), [len(block) for block in blocks]
        starts = [varints.read(block, 0) for block in blocks]
        sizes = [size for size, _ in starts]
        self._budget -= sum(sizes)
        if self._budget < 0:
            raise ValueError(
                f"compressed blocks say that they hold {sum(sizes)} bytes, more than fit"
            )
        out = np.empty(sum(sizes), np.uint8)
        end = 0
        for block, (size, begin) in zip(blocks, starts, strict=True):
            end += size
            try:
                got = self._into(block[begin:], out[end - size : end])
            except _decompression_error() as error:
                raise ValueError(f"a compressed block is damaged: {error}") from error
            if got != size:
                raise ValueError(f"a compressed block holds {got} bytes, but says {size}")
        return out, sizes


@functools.cache
def _decompress_into(kind: int) -> Callable[[Any, Any], int]:
    if kind not in (BROTLI, ZSTD, SNAPPY):
        raise ValueError(f"got the compression {kind:#x}, expected none, brotli, zstd or snappy")
    cramjam = _cramjam()
    functions: dict[int, Callable[[Any, Any], int]] = {
        BROTLI: cramjam.brotli.decompress_into,
        ZSTD: cramjam.zstd.decompress_into,
        SNAPPY: cramjam.snappy.decompress_raw_into,
    }
    return functions[kind]


def _decompression_error() -> type[Exception]:
    error: type[Exception] = _cramjam().DecompressionError
    return error


def _cramjam() -> Any:
    try:
        import cramjam
    except ImportError as error:
        raise errors.MissingExtraError("cramjam", "riegeli", "A compressed Riegeli file") from error
    return cramjam
