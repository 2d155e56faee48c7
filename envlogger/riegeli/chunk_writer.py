# SPDX-License-Identifier: Apache-2.0
"""Writes Riegeli/records files, a chunk at a time."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import BinaryIO

from envlogger import varints
from envlogger.riegeli import chunks, compression
from envlogger.riegeli.highway_hash import highway_hash


class ChunkWriter:
    """Writes chunks behind each other; begins with the signature.

    Args:
      file: Is written to from its begin on. The caller closes it.

    Attributes:
      position: Where the next chunk begins.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0
        self.write(chunks.SIGNATURE, b"", 0, 0)

    def write(
        self,
        chunk_type: int,
        data: bytes | memoryview,
        num_records: int,
        decoded_size: int,
        data_hash: int | None = None,
    ) -> int:
        """Writes a chunk whose data is encoded already; returns where it begins.

        Args:
          chunk_type: As `Chunk.type`.
          data: What follows the header.
          num_records: How many records that holds.
          decoded_size: How many bytes these have.
          data_hash: The hash of the data, where it is known.
        """
        if data_hash is None:
            data_hash = highway_hash(data)
        begin = self.position
        self.position = chunks.chunk_end(begin, len(data), num_records)
        fields = chunks.CHUNK_HEADER.pack(
            0, len(data), data_hash, chunk_type | num_records << 8, decoded_size
        )[8:]
        stream = memoryview(b"".join([hashed(fields), data]))
        at = begin
        while at < self.position:
            if at % chunks.BLOCK_SIZE == 0:
                self._write_block_header(at, begin)
                at += chunks.BLOCK_HEADER.size
            size = min(self.position - at, chunks.BLOCK_SIZE - at % chunks.BLOCK_SIZE)
            self._file.write(bytes(stream[:size]).ljust(size, b"\0"))
            stream = stream[size:]
            at += size
        return begin

    def write_records(self, records: Sequence[bytes]) -> int:
        """Writes a simple chunk without compression; returns where it begins."""
        sizes = b"".join(varints.encode(len(record)) for record in records)
        values = b"".join(records)
        data = b"".join([bytes([compression.NONE]), varints.encode(len(sizes)), sizes, values])
        return self.write(chunks.SIMPLE, data, len(records), len(values))

    def pad(self) -> None:
        """Writes a padding chunk up to where a block begins."""
        left = -self.position % chunks.BLOCK_SIZE
        if not left:
            return
        if left < chunks.CHUNK_HEADER.size:
            left += chunks.USABLE
        size = left - chunks.CHUNK_HEADER.size
        self.write(chunks.PADDING, bytes(size), 0, 0, _hash_of_zeros(size))

    def _write_block_header(self, block: int, begin: int) -> None:
        fields = chunks.BLOCK_HEADER.pack(0, block - begin, self.position - block)[8:]
        self._file.write(hashed(fields))


# Behind its postscript, each ArrayRecord file has as much padding.
@functools.lru_cache(maxsize=4)
def _hash_of_zeros(size: int) -> int:
    return highway_hash(bytes(size))


def hashed(fields: bytes) -> bytes:
    """Returns a header: its fields, behind their hash."""
    return highway_hash(fields).to_bytes(8, "little") + fields
