# SPDX-License-Identifier: Apache-2.0
"""Reads and decompresses the chunks that are likely to be wanted next, in threads.

Decompressing takes most of the time of steps that are large and compress little, such as camera images, and
needs no interpreter: so on several cores it need not be waited for.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import os
from collections.abc import Callable

from envlogger import errors
from envlogger.riegeli import chunks
from envlogger.riegeli.records import Records
from envlogger.riegeli.records_file import RecordsFile

# Smaller records keep the interpreter busy instead.
_LEAST_MEAN_SIZE = 4096
# What has fewer bytes, compressed, is decompressed in less time than threads take to take turns.
_LEAST_SIZE = 1 << 16
_CORES = len(os.sched_getaffinity(0))
_DEPTH = min(_CORES, 4) if _CORES > 1 else 0


class ReadAhead:
    """Begins to decompress the next chunks of a file where they are asked for in order.

    Not safe to share between threads.
    """

    def __init__(self) -> None:
        self._next = -1
        self._pending: dict[int, concurrent.futures.Future[Callable[[], Records]]] = {}
        self._process = os.getpid()

    def take(
        self, file: RecordsFile, chunk: chunks.Chunk
    ) -> concurrent.futures.Future[Callable[[], Records]] | None:
        """Returns what gives the records of a chunk, if it is being read; begins to read the next."""
        if self._process != os.getpid():  # after a fork, nobody works on them
            self._pending.clear()
            self._process = os.getpid()
        pending = self._pending.pop(chunk.begin, None)
        if chunk.begin == self._next and _is_worth_it(chunk):
            self._read_following(file, chunk)
        elif pending is None:
            self.stop()
        self._next = chunk.end
        return pending

    def stop(self) -> None:
        """Returns once nothing is read any more."""
        for future in self._pending.values():
            future.cancel()
        if self._process == os.getpid():
            concurrent.futures.wait(self._pending.values())
        self._pending.clear()

    def _read_following(self, file: RecordsFile, chunk: chunks.Chunk) -> None:
        # Whoever asks for a chunk that is damaged or torn is told then.
        with contextlib.suppress(chunks.TruncatedError, errors.CorruptDatasetError):
            for following in itertools.islice(file.scan(chunk.end), _DEPTH):
                if following.begin not in self._pending and _is_worth_it(following):
                    future = _threads(os.getpid()).submit(file.decompress, following)
                    self._pending[following.begin] = future


def _is_worth_it(chunk: chunks.Chunk) -> bool:
    mean = chunk.decoded_size // max(chunk.num_records, 1)
    return chunk.data_size >= _LEAST_SIZE and mean >= _LEAST_MEAN_SIZE


@functools.lru_cache(1)
def _threads(process: int) -> concurrent.futures.ThreadPoolExecutor:
    """Returns the threads of this process."""
    return concurrent.futures.ThreadPoolExecutor(_DEPTH, "envlogger-read-ahead")
