# SPDX-License-Identifier: Apache-2.0
"""The physical form of Riegeli/records files: blocks of 64 KiB, and the chunks that lie across them.

    block header (24)  at every multiple of 65536
      8 hash of the rest | 8 bytes back to the begin of the chunk it interrupts | 8 bytes to its end
    chunk header (40)
      8 hash of the rest | 8 data size | 8 data hash | 1 type | 7 number of records | 8 decoded size

Integers are little-endian. Positions are offsets in the file, block headers included.
"""

from __future__ import annotations

import bisect
import dataclasses
import operator
import os
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from envlogger import errors
from envlogger.fork_safe_lock import ForkSafeLock
from envlogger.riegeli import highway_hash

BLOCK_SIZE = 65536
BLOCK_HEADER = struct.Struct("<QQQ")
CHUNK_HEADER = struct.Struct("<QQQQQ")
USABLE = BLOCK_SIZE - BLOCK_HEADER.size  # in a block

SIGNATURE_SIZE = BLOCK_HEADER.size + CHUNK_HEADER.size

SIGNATURE = ord("s")
PADDING = ord("p")
SIMPLE = ord("r")
TRANSPOSED = ord("t")

_MOST_UNPADDED = 1 << 16

# Linux takes so many at most.
_PARTS_AT_ONCE = 1024

# What a chunk may need, decoded. EnvLogger's have about 1 MB, or one step that is larger.
MAX_CHUNK_BYTES = 1 << 28
# A chunk may have more that does not grow by more than this: its data lies in the file, and is no bomb.
_NO_BOMB = 4


_begin = operator.attrgetter("begin")


class TruncatedError(Exception):
    """The file ends within a chunk, as when its writer was killed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """The header of a chunk.

    Attributes:
      begin: Where the chunk begins.
      end: Where the next one begins. It may be past the end of the file, if that lacks padding.
      data_size: How many bytes of data follow the header.
      data_hash: Their hash.
      type: One of the constants above, or another byte.
      num_records: How many records it holds.
      decoded_size: How many bytes these have.
    """

    begin: int
    end: int
    data_size: int
    data_hash: int
    type: int
    num_records: int
    decoded_size: int


class ChunkFile:
    """Reads chunks of a file. Safe to share between threads.

    Args:
      path: The file.
      max_chunk_bytes: A chunk is an error that has more when it is decompressed, and more than four times
        what it has in the file. Reading one takes a few times as much memory.

    Raises:
      OSError: It cannot be opened.
      CorruptDatasetError: It does not begin as Riegeli files do.
    """

    def __init__(
        self, path: str | os.PathLike[str], max_chunk_bytes: int = MAX_CHUNK_BYTES
    ) -> None:
        self.path = Path(path)
        self._max_chunk_bytes = max_chunk_bytes
        # The chunks that were found on the way to another one, in order.
        self._known: list[Chunk] = []
        self._lock = ForkSafeLock()
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self._closer = weakref.finalize(self, os.close, self._descriptor)
        try:
            self.size = os.fstat(self._descriptor).st_size
            if self.size >= SIGNATURE_SIZE:
                self._check_signature()
        except BaseException:
            self._closer()
            raise

    def limit_of(self, data_size: int) -> int:
        """Returns how many bytes a chunk may have, decoded, that has so many in the file."""
        return max(self._max_chunk_bytes, _NO_BOMB * min(data_size, self.size))

    def close(self) -> None:
        """Closes the file, as does the last reference to it. May be called more than once."""
        self._closer()

    def scan(self, begin: int = 0) -> Iterator[Chunk]:
        """Yields the chunks from `begin` on, where one must begin, to the end of the file.

        Raises:
          TruncatedError: The file ends within a chunk; all before were yielded.
          CorruptDatasetError: The header of a chunk is damaged.
        """
        while begin < self.size:
            chunk = self.read_header(begin)
            if end_of(begin, CHUNK_HEADER.size + chunk.data_size) > self.size:
                raise TruncatedError
            yield chunk
            begin = chunk.end

    def locate(self, position: int) -> Chunk:
        """Returns the chunk that the record at a numeric position is in: its begin plus an index.

        Raises:
          TruncatedError: The file ends before or within that chunk.
          CorruptDatasetError: A header on the way is damaged, or there is no such record.
        """
        with self._lock:
            i = bisect.bisect_right(self._known, position, key=_begin)
            begin = 0
            if i:
                chunk = self._known[i - 1]
                if position < chunk.end:
                    return self._check_has(chunk, position)
                begin = chunk.end
            if begin // BLOCK_SIZE < position // BLOCK_SIZE:
                begin = max(begin, self.begin_before(position))
            for chunk in self.scan(begin):
                bisect.insort(self._known, chunk, key=_begin)
                if position < chunk.end:
                    return self._check_has(chunk, position)
        raise TruncatedError

    def resume(self, position: int) -> int:
        """Returns where the next chunk begins after `position`, from block headers alone."""
        block = position // BLOCK_SIZE * BLOCK_SIZE
        while (block := block + BLOCK_SIZE) < self.size:
            if header := self._read_block_header(block):
                previous, following = header
                return block if previous == 0 else block + following
        return self.size

    def begin_before(self, position: int) -> int:
        """Returns where a chunk begins, at or before `position` and near it; 0 if nothing says."""
        block = position // BLOCK_SIZE * BLOCK_SIZE
        while block > 0:
            header = self._read_block_header(block)
            if header and header[0] <= block:
                return block - header[0]
            block -= BLOCK_SIZE
        return 0

    def read_header(self, begin: int) -> Chunk:
        """Returns the header of the chunk that begins at a position.

        Raises:
          TruncatedError: The file ends in it.
          CorruptDatasetError: It is damaged, or its sizes are beyond the limit.
        """
        if -begin % BLOCK_SIZE >= USABLE:
            raise self.corrupt(begin, "a chunk cannot begin in a block header")
        raw = self._read(begin, CHUNK_HEADER.size)
        header_hash, data_size, data_hash, packed, decoded_size = CHUNK_HEADER.unpack(raw)
        if highway_hash.highway_hash(raw[8:]) != header_hash:
            raise self.corrupt(begin, "the header of the chunk does not fit its hash")
        num_records = packed >> 8
        limit = self.limit_of(data_size)
        # Padding makes chunks as long as they have records; the last one may lack it.
        most_records = min(limit // 8, max(self.size, _MOST_UNPADDED))
        if data_size > limit or decoded_size > limit or num_records > most_records:
            raise self.corrupt(
                begin,
                f"the chunk says that it has {data_size} bytes, decoded {decoded_size}, of {num_records} "
                f"records, and more than {limit} bytes are too much for it. Either the file is damaged; or "
                "if it is to be trusted, say max_chunk_bytes=... to RiegeliBackendReader",
            )
        return Chunk(
            begin,
            chunk_end(begin, data_size, num_records),
            data_size,
            data_hash,
            packed & 0xFF,
            num_records,
            decoded_size,
        )

    def read_data(self, chunk: Chunk, *, verify: bool = False) -> memoryview:
        """Returns the data of a chunk, as stored.

        Args:
          chunk: The chunk.
          verify: Whether to check the data's hash.

        Raises:
          TruncatedError: The file ends in it.
          CorruptDatasetError: It does not fit its hash.
        """
        data = self._read(chunk.begin, CHUNK_HEADER.size + chunk.data_size)[CHUNK_HEADER.size :]
        if verify and highway_hash.highway_hash(data) != chunk.data_hash:
            raise self.corrupt(chunk.begin, "the data of the chunk does not fit its hash")
        return data

    def corrupt(self, position: int, what: str) -> errors.CorruptDatasetError:
        """Returns the error that says what is wrong at a position."""
        return corrupt(self.path, position, what)

    def _check_signature(self) -> None:
        if self._read_block_header(0) is None:
            raise self.corrupt(0, "got other bytes, expected the block header of a Riegeli file")
        chunk = self.read_header(0)
        if (chunk.type, chunk.data_size, chunk.num_records) != (SIGNATURE, 0, 0):
            raise self.corrupt(0, "the first chunk is not the signature of a Riegeli file")

    def _check_has(self, chunk: Chunk, position: int) -> Chunk:
        if position < chunk.begin + chunk.num_records:
            return chunk
        raise self.corrupt(position, "expected a record here, got none")

    def _read_block_header(self, block: int) -> tuple[int, int] | None:
        """Returns the distances to the chunk's begin and its end; None if the header is damaged."""
        raw = os.pread(self._descriptor, BLOCK_HEADER.size, block)
        if len(raw) < BLOCK_HEADER.size:
            return None
        header_hash, previous, following = BLOCK_HEADER.unpack(raw)
        if highway_hash.highway_hash(raw[8:]) != header_hash:
            return None
        return previous, following

    def _read(self, begin: int, size: int) -> memoryview:
        """Reads `size` bytes from a position on, without the block headers between them."""
        stop = end_of(begin, size)
        if stop > self.size:
            raise TruncatedError
        # Not set to zero first: that would cost as much as reading it.
        read = np.empty(size, np.uint8).data
        header = bytearray(BLOCK_HEADER.size)
        parts: list[bytearray | memoryview] = []
        position = filled = 0
        while filled < size:
            to_header = -(begin + position) % BLOCK_SIZE
            if to_header == 0:
                parts.append(header)
                position += BLOCK_HEADER.size
                to_header = USABLE
            part = read[filled : filled + to_header]
            parts.append(part)
            position += len(part)
            filled += len(part)
        position = begin
        for i in range(0, len(parts), _PARTS_AT_ONCE):
            some = parts[i : i + _PARTS_AT_ONCE]
            expected = sum(map(len, some))
            if os.preadv(self._descriptor, some, position) < expected:
                raise TruncatedError
            position += expected
        return read


def corrupt(path: Path, position: int, what: str) -> errors.CorruptDatasetError:
    """Returns the error that says what is wrong in a file at a position."""
    return errors.CorruptDatasetError(f"{path}, offset {position}: {what}.")


def chunk_end(begin: int, data_size: int, num_records: int) -> int:
    """Returns where the chunk after one begins: chunks have no fewer bytes than records."""
    least = begin + num_records
    # No chunk begins in a block header, nor just behind one.
    least += max(-least % BLOCK_SIZE - (USABLE - 1), 0)
    return max(end_of(begin, CHUNK_HEADER.size + data_size), least)


def end_of(begin: int, size: int) -> int:
    """Returns the position behind `size` bytes of chunks from a position on: adds block headers."""
    headers = (size + (begin + USABLE - 1) % BLOCK_SIZE) // USABLE
    return begin + size + BLOCK_HEADER.size * headers
