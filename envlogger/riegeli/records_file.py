# SPDX-License-Identifier: Apache-2.0
"""Reads the records of Riegeli/records files."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator

from envlogger import closing, memory
from envlogger.riegeli import chunks, simple_chunk, transposed_chunk
from envlogger.riegeli.records import Records

# A visit makes a few bytes as a rule, and takes about 100 bytes of memory.
_BYTES_PER_VISIT = 16


class RecordsFile(chunks.ChunkFile, closing.Closing):
    """Reads records, a chunk at a time. Safe to share between threads.

    A record has a numeric position: the begin of its chunk plus its index there.

    Args:
      path: The file.
      verify: Whether to check the hash of each chunk's data. (Those of headers are checked always.)
      max_chunk_bytes: A chunk is an error that has more when it is decompressed, and more than four times
        what it has in the file. Reading one takes a few times as much memory.

    Raises:
      OSError: It cannot be opened.
      CorruptDatasetError: It does not begin as Riegeli files do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        verify: bool = False,
        max_chunk_bytes: int = chunks.MAX_CHUNK_BYTES,
    ) -> None:
        super().__init__(path, max_chunk_bytes)
        self._verify = verify

    def read(self, chunk: chunks.Chunk) -> Records:
        """Returns the records of a chunk; none for chunks that are not for records.

        Raises:
          TruncatedError: The file ends in it.
          CorruptDatasetError: It is damaged.
          MissingExtraError: It is compressed, and the package for that is not installed.
        """
        return self.decompress(chunk)()

    def decompress(self, chunk: chunks.Chunk) -> Callable[[], Records]:
        """Does of `read` what needs no interpreter, as a rule; returns what does the rest.

        Both raise what `read` does.
        """
        if chunk.decoded_size >= memory.LARGE:
            memory.keep_freed()
        data = self.read_data(chunk, verify=self._verify)
        if chunk.type == chunks.TRANSPOSED:
            most_visits = self.limit_of(chunk.data_size) // _BYTES_PER_VISIT
            sizes = chunk.num_records, chunk.decoded_size, most_visits
            with self._telling(chunk):
                assemble = transposed_chunk.decompress(data, *sizes)
            return functools.partial(self._finish, chunk, assemble)
        with self._telling(chunk):
            records = Records.none()
            if chunk.type == chunks.SIMPLE:
                records = simple_chunk.decode(data, chunk.num_records, chunk.decoded_size)
            elif chunk.num_records:
                raise ValueError(f"got a chunk of the type {chunk.type:#x}, expected 0x72 or 0x74")
        return lambda: records

    def _finish(self, chunk: chunks.Chunk, assemble: Callable[[], Records]) -> Records:
        with self._telling(chunk):
            return assemble()

    @contextlib.contextmanager
    def _telling(self, chunk: chunks.Chunk) -> Iterator[None]:
        """Makes errors say where the chunk is."""
        try:
            yield
        except ValueError as error:
            raise self.corrupt(chunk.begin, str(error)) from error

    def read_all(self) -> Iterator[tuple[int, bytes]]:
        """Yields the position and the bytes of each record.

        Raises:
          TruncatedError: The file ends within a chunk; all before were yielded.
          CorruptDatasetError: It is damaged.
        """
        for chunk in self.scan():
            for i, record in enumerate(self.read(chunk)):
                yield chunk.begin + i, record
