# SPDX-License-Identifier: Apache-2.0
"""Reads the records of Riegeli/records files."""

from __future__ import annotations

import os
from collections.abc import Iterator

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
      max_chunk_bytes: A chunk that says it has more is an error. Reading one takes a few times as
        much memory.

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
        if chunk.decoded_size >= memory.LARGE:
            memory.keep_freed()
        data = self.read_data(chunk, verify=self._verify)
        try:
            if chunk.type == chunks.TRANSPOSED:
                return transposed_chunk.decode(
                    data,
                    chunk.num_records,
                    chunk.decoded_size,
                    self.max_chunk_bytes // _BYTES_PER_VISIT,
                )
            if chunk.type == chunks.SIMPLE:
                return simple_chunk.decode(data, chunk.num_records, chunk.decoded_size)
            if chunk.num_records:
                raise ValueError(f"got a chunk of the type {chunk.type:#x}, expected 0x72 or 0x74")
        except ValueError as error:
            raise self.corrupt(chunk.begin, str(error)) from error
        return Records.none()

    def read_all(self) -> Iterator[tuple[int, bytes]]:
        """Yields the position and the bytes of each record.

        Raises:
          TruncatedError: The file ends within a chunk; all before were yielded.
          CorruptDatasetError: It is damaged.
        """
        for chunk in self.scan():
            for i, record in enumerate(self.read(chunk)):
                yield chunk.begin + i, record
