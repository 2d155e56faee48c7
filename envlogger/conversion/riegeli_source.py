# SPDX-License-Identifier: Apache-2.0
"""Logs of EnvLogger 1.x as a source."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from envlogger import step_data
from envlogger.backends import riegeli_backend_reader
from envlogger.conversion import sources

# Who converts a log wants all of it, and knows where it comes from: four times what a reader takes.
_MAX_CHUNK_BYTES = 1 << 30


class RiegeliSource(sources.StepSource):
    """A log that EnvLogger 1.x wrote.

    Steps that belong to no episode, as a killed writer may leave them before the first one of a shard,
    are an episode here: no step is left out.

    Raises:
      DatasetError, CorruptDatasetError: As `RiegeliBackendReader` does.
    """

    kind = "a log of EnvLogger 1.x"
    _ENDING = ".riegeli"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._reader = riegeli_backend_reader.RiegeliBackendReader(
            path, max_chunk_bytes=_MAX_CHUNK_BYTES
        )

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata that was passed to EnvLogger, with `environment_specs`."""
        return self._reader.metadata()

    @property
    def num_episodes(self) -> int:
        """How many episodes there are."""
        return len(self._ranges)

    def episode(self, index: int) -> tuple[Iterator[step_data.StepData], Any]:
        """Returns the steps of an episode, and its metadata."""
        start, stop, number = self._ranges[index]
        if number is None:
            return map(self._reader.steps.__getitem__, range(start, stop)), None
        return iter(self._reader.episodes[number]), self._reader.episode_metadata()[number]

    def close(self) -> None:
        """Closes the files."""
        self._reader.close()

    @functools.cached_property
    def _ranges(self) -> list[tuple[int, int, int | None]]:
        """First step, the one behind the last, and number of each episode; None for steps of none."""
        found: list[tuple[int, int, int | None]] = []
        position = 0
        for number, (start, stop) in enumerate(self._reader.episode_ranges().tolist()):
            if position < start:
                found.append((position, start, None))
            if start < stop:
                found.append((start, stop, number))
            position = stop
        count = len(self._reader.steps)
        return [*found, (position, count, None)] if position < count else found
