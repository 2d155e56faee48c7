# SPDX-License-Identifier: Apache-2.0
"""The backend that reads the logs of EnvLogger 1.x, which lie in Riegeli files."""

from __future__ import annotations

import bisect
import collections
import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import dm_env
import numpy as np
import numpy.typing as npt

from envlogger import errors, step_data
from envlogger.backends import backend_reader
from envlogger.fork_safe_lock import ForkSafeLock
from envlogger.options import check_count, check_path
from envlogger.riegeli import chunks, log, values_file
from envlogger.varints import Ints

DEFAULT_CACHE_BYTES = 128 << 20
_MAX_OPEN_FILES = 16

_STEP_TYPES = {int(step_type): step_type for step_type in dm_env.StepType}


class RiegeliBackendReader(backend_reader.BackendReader):
    """Reads a log that EnvLogger 1.0 to 1.3 wrote with its Riegeli backend.

    What a writer that was killed left is read as far as it goes, with a `LogWarning` that says what is
    missing. That may be more than EnvLogger showed: steps that it had not indexed yet are there; and
    where it put the steps of an episode that was not indexed into the last one, there are two.

    Args:
      data_directory: The directory that was logged into, the one that holds `metadata.riegeli`.
      verify: Whether to check the hashes of all data that is read, which takes 0.2 s for each MB of
        the files. Those of headers, of indexes and of the metadata are checked always.
      max_chunk_bytes: A chunk is an error that has more when it is decompressed, and more than four times
        what it has in the file. Reading one takes a few times as much memory.
      cache_bytes: How much memory to take for the chunks that were used last. The very last one is kept
        in any case.

    Threads may share a reader. It can be pickled, and used after a fork.

    Raises:
      DatasetError: The directory does not hold such a log.
      OptionError: `cache_bytes` or `max_chunk_bytes` is not a number of bytes.
      CorruptDatasetError: Its metadata or an index is damaged. Damage of steps is an error where they
        are read; the others can be read.
    """

    def __init__(
        self,
        data_directory: str | os.PathLike[str],
        *,
        verify: bool = False,
        max_chunk_bytes: int = chunks.MAX_CHUNK_BYTES,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self._directory = Path(check_path("data_directory", data_directory))
        self._verify = verify
        self._max_chunk_bytes = check_count("max_chunk_bytes", max_chunk_bytes)
        self._cache_bytes = check_count("cache_bytes", cache_bytes, at_least=0)
        if not log.is_log(self._directory):
            raise errors.DatasetError(
                f"{self._directory}: got a directory without {log.METADATA}, expected one that "
                "EnvLogger 1.x wrote."
            )
        self._metadata = log.read_metadata(self._directory)
        self._shards = log.open_shards(self._directory, self._max_chunk_bytes)
        counts = [len(shard.positions) for shard in self._shards]
        # The index of the first step of each shard, and the number of all steps.
        self._first_steps = [0, *itertools.accumulate(counts)]
        self._known_episodes: _Episodes | None = None
        self._open()

    def _open(self) -> None:
        self._lock = ForkSafeLock()
        self._cache = values_file.ChunkCache(self._cache_bytes)
        self._files: collections.OrderedDict[tuple[int, str], values_file.ValuesFile] = (
            collections.OrderedDict()
        )

    def metadata(self) -> dict[str, Any]:
        """Returns the metadata that was passed to EnvLogger, with `environment_specs`."""
        return self._metadata

    def episode_ranges(self) -> Ints:
        """Returns the first step of each episode and the one behind its last, int64 (episodes, 2)."""
        episodes = self._episodes()
        return np.stack([episodes.starts, episodes.stops], axis=1)

    def close(self) -> None:
        """Closes the files. They are opened again where they are needed."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
            self._cache.clear()

    def episode_lengths(self) -> npt.NDArray[np.int64]:
        """Returns the number of steps of each episode, int64 (N,)."""
        episodes = self._episodes()
        return episodes.stops - episodes.starts

    def __getstate__(self) -> dict[str, Any]:
        """Returns what the reader knows, but no open file and no step."""
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_lock", "_cache", "_files")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens the reader elsewhere."""
        self.__dict__.update(state)
        self._open()

    def _copy(self) -> Self:
        twin = type(self).__new__(type(self))
        twin.__setstate__(self.__getstate__())
        return twin

    def _get_num_steps(self) -> int:
        return self._first_steps[-1]

    def _get_num_episodes(self) -> int:
        return len(self._episodes().starts)

    def _get_nth_step(self, i: int) -> step_data.StepData:
        shard = bisect.bisect_right(self._first_steps, i) - 1
        position = self._shards[shard].positions.item(i - self._first_steps[shard])
        return _read_step(self._file(shard, log.STEPS), position)

    def _scan_steps(self, indices: range) -> Iterator[step_data.StepData]:
        shards = np.searchsorted(self._first_steps, indices, side="right") - 1
        changes = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(indices)]
        for start, stop in itertools.pairwise(changes):
            if start < stop:
                shard = int(shards[start])
                local = np.array(indices[start:stop]) - self._first_steps[shard]
                file = self._file(shard, log.STEPS)
                for position in self._shards[shard].positions[local].tolist():
                    yield _read_step(file, position)

    def _get_nth_episode_info(
        self, i: int, include_metadata: bool = False
    ) -> backend_reader.EpisodeInfo:
        episodes = self._episodes()
        start, stop = int(episodes.starts[i]), int(episodes.stops[i])
        metadata = None
        position = int(episodes.metadata_positions[i])
        if include_metadata and position > 0:
            metadata = self._read_episode_metadata(int(episodes.shards[i]), position)
        return backend_reader.EpisodeInfo(start, stop - start, metadata)

    def _read_episode_metadata(self, shard: int, position: int) -> Any:
        try:
            return self._file(shard, log.EPISODE_METADATA).read_value(position)
        except (FileNotFoundError, chunks.TruncatedError):
            path = self._shards[shard].path / log.EPISODE_METADATA
            warnings.warn(
                f"{path}: the file ends before the metadata of an episode; it is None.",
                log.LogWarning,
                stacklevel=2,
            )
            return None

    def _file(self, shard: int, name: str) -> values_file.ValuesFile:
        with self._lock:
            file = self._files.get((shard, name))
            if file is None:
                file = self._files[shard, name] = values_file.ValuesFile(
                    self._shards[shard].path / name,
                    self._cache,
                    verify=self._verify,
                    max_chunk_bytes=self._max_chunk_bytes,
                )
                if len(self._files) > _MAX_OPEN_FILES:
                    self._files.popitem(last=False)  # closed once nobody reads it
            return file

    def _episodes(self) -> _Episodes:
        """Returns where the episodes lie. That needs the last one of each shard: see `_find_starts`."""
        with self._lock:
            if self._known_episodes is None:
                self._known_episodes = self._find_episodes()
            return self._known_episodes

    def _find_episodes(self) -> _Episodes:
        found = [_Episodes(*(np.empty(0, np.int64) for _ in _Episodes._fields))]
        for i, shard in enumerate(self._shards):
            first, stop = self._first_steps[i : i + 2]
            starts = shard.episode_starts + first
            more = self._find_starts(i, int(starts[-1]) + 1 if len(starts) else first, stop)
            starts = np.concatenate([starts, more])
            found.append(
                _Episodes(
                    starts,
                    np.append(starts, stop)[1:],
                    np.full(len(starts), i),
                    np.concatenate([shard.metadata_positions, np.full(len(more), -1)]),
                )
            )
        return _Episodes(*map(np.concatenate, zip(*found, strict=True)))

    def _find_starts(self, shard: int, start: int, stop: int) -> Ints:
        """Returns which steps begin an episode among those that the index has as the last one.

        An episode gets into the index when it is over: one that was under way when the writer was killed
        is not there, and only its steps tell.
        """
        found = []
        for i in range(start, stop):
            try:
                if self._get_nth_step(i).timestep.first():
                    found.append(i)
            except errors.CorruptDatasetError:
                continue  # it says so when it is read
        if found and self._shards[shard].has_episode_index:
            warnings.warn(
                f"{self._shards[shard].path}: its writer was killed: episodes that were not in the index "
                f"({len(found)}) are told by their first steps, and have no metadata.",
                log.LogWarning,
                stacklevel=2,
            )
        return np.array(found, np.int64)


class _Episodes(NamedTuple):
    """Where the episodes lie; all of shape (episodes,).

    Attributes:
      starts: The first step of each, among those of all shards.
      stops: The step behind its last.
      shards: The shard it is in.
      metadata_positions: Where its metadata is; less than 1 if it has none.
    """

    starts: Ints
    stops: Ints
    shards: Ints
    metadata_positions: Ints


def _read_step(file: values_file.ValuesFile, position: int) -> step_data.StepData:
    try:
        value = file.read_value(position)
    except chunks.TruncatedError:
        raise file.corrupt(file.size, "the file has become shorter") from None
    try:
        timestep, action, custom_data = value
        step_type, reward, discount, observation = timestep
        timestep = dm_env.TimeStep(_STEP_TYPES[step_type], reward, discount, observation)
    except (TypeError, LookupError, ValueError) as error:
        raise file.corrupt(
            position,
            f"expected a step, (timestep, action, custom_data), got another value: {error}",
        ) from error
    return step_data.StepData(timestep, action, custom_data)


__all__ = ["RiegeliBackendReader"]
