# SPDX-License-Identifier: Apache-2.0
"""Random access to the values in a file of storage protobufs."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from envlogger import errors
from envlogger.fork_safe_lock import ForkSafeLock
from envlogger.riegeli import chunks, read_ahead, storage_columns
from envlogger.riegeli.records import Records
from envlogger.riegeli.records_file import RecordsFile

# Values are decoded so many bytes at a time, up to so many values.
_BLOCK_BYTES = 1 << 20
_BLOCK_VALUES = 256
# So much is kept of what is read in order.
_IN_ORDER_BYTES = 2 << 20


class ChunkCache:
    """Keeps the chunks that were used last. Safe to share between threads and files.

    Args:
      max_bytes: How many bytes they may have, decompressed. One chunk is kept in any case.

    Attributes:
      last: The chunk that was asked for last.
    """

    def __init__(self, max_bytes: int) -> None:
        self.last: ValueChunk | None = None
        self._max_bytes = max_bytes
        self._bytes = 0
        # The file of the chunk that was read last, and where it begins and ends.
        self._read_last = Path(), -1, -1
        self._chunks: collections.OrderedDict[tuple[Path, int], ValueChunk] = (
            collections.OrderedDict()
        )
        self._lock = ForkSafeLock()

    def get(
        self, path: Path, chunk: chunks.Chunk, read: Callable[[chunks.Chunk], Records]
    ) -> ValueChunk:
        """Returns the values of a chunk.

        Args:
          path: The file it is in.
          chunk: The chunk.
          read: Is called where it is not here.
        """
        key = path, chunk.begin
        with self._lock:
            if found := self._chunks.get(key):
                self._chunks.move_to_end(key)
                self.last = found
                return found
            self._drop_passed(path, chunk)
        found = ValueChunk(path, chunk, read(chunk))
        with self._lock:
            self.last = found
            if key not in self._chunks:
                self._bytes += chunk.decoded_size
            self._chunks[key] = found
            while self._bytes > self._max_bytes and len(self._chunks) > 1:
                self._drop(next(iter(self._chunks)))
        return found

    def _drop_passed(self, path: Path, chunk: chunks.Chunk) -> None:
        """Drops the chunk before `chunk` if that was read just now.

        Read in order, a chunk is done with when the next one comes. To use its memory again is cheaper
        than to take other memory.
        """
        before = self._read_last
        self._read_last = path, chunk.begin, chunk.end
        if (
            before[0] == path
            and before[2] == chunk.begin
            and before[:2] in self._chunks
            and self._bytes > _IN_ORDER_BYTES
        ):
            self.last = None
            self._drop(before[:2])

    def _drop(self, key: tuple[Path, int]) -> None:
        self._bytes -= self._chunks.pop(key).decoded_size

    def clear(self) -> None:
        """Forgets all chunks."""
        with self._lock:
            self._chunks.clear()
            self._bytes = 0
            self.last = None


class ValuesFile(RecordsFile):
    """Reads values by the positions of their records. Safe to share between threads.

    Args:
      path: The file.
      cache: Where to keep its chunks.
      verify: As `RecordsFile` takes it.
      max_chunk_bytes: Likewise.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        cache: ChunkCache,
        *,
        verify: bool = False,
        max_chunk_bytes: int = chunks.MAX_CHUNK_BYTES,
    ) -> None:
        super().__init__(path, verify=verify, max_chunk_bytes=max_chunk_bytes)
        self._cache = cache
        self._ahead = read_ahead.ReadAhead()
        self._ahead_lock = ForkSafeLock()

    def read_value(self, position: int) -> Any:
        """Returns the value at a position, a new one each time.

        Raises:
          TruncatedError: The file ends before.
          CorruptDatasetError: It is damaged there.
        """
        values = self._cache.last
        if (
            values is None
            or values.path is not self.path
            or not values.begin <= position < values.stop
        ):
            values = self._cache.get(self.path, self.locate(position), self._read_chunk)
        return values.take(position - values.begin)

    def close(self) -> None:
        """Closes the file. May be called more than once."""
        with self._ahead_lock:
            self._ahead.stop()
        super().close()

    def _read_chunk(self, chunk: chunks.Chunk) -> Records:
        with self._ahead_lock:
            pending = self._ahead.take(self, chunk)
        return pending.result()() if pending else self.read(chunk)


class ValueChunk:
    """The values of a chunk, decoded in blocks of them once one follows another.

    Each decoded value is handed out once: the caller may change it.

    Attributes:
      path: The file.
      begin: The position of the first value.
      stop: The one behind the last.
      decoded_size: How many bytes the chunk has, decompressed.
    """

    def __init__(self, path: Path, chunk: chunks.Chunk, records: Records) -> None:
        self.path = path
        self.begin = chunk.begin
        self.stop = chunk.begin + len(records)
        self._records = records
        self._values: dict[int, Any] = {}
        self._next = 0
        self.decoded_size = chunk.decoded_size
        mean = chunk.decoded_size // max(chunk.num_records, 1) + 1
        self._block = max(1, min(_BLOCK_BYTES // mean, _BLOCK_VALUES))

    def take(self, i: int) -> Any:
        """Returns value i."""
        try:
            return self._values.pop(i)
        except KeyError:
            pass
        if i != self._next:  # perhaps it is the only one that is wanted here
            self._next = i + 1
            return self._decode(i, i + 1)[0]
        stop = min(i + self._block, len(self._records))
        self._next = stop
        try:
            values = self._decode(i, stop)
        except errors.CorruptDatasetError:
            self._block = 1  # one of them is damaged, the others are not
            return self._decode(i, i + 1)[0]
        self._values.update(zip(range(i + 1, stop), values[1:], strict=True))
        return values[0]

    def _decode(self, start: int, stop: int) -> list[Any]:
        records = self._records
        try:
            return storage_columns.decode(
                records.data, records.begins[start:stop], records.ends[start:stop]
            )
        except (ValueError, OverflowError) as error:
            raise chunks.corrupt(
                self.path, self.begin + start, f"the value is damaged: {error}"
            ) from error
