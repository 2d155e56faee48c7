# SPDX-License-Identifier: Apache-2.0
"""The backend that reads a TFDS dataset in RLDS form, without TensorFlow."""

from __future__ import annotations

import array
import bisect
import os
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from envlogger import errors, memory, step_data
from envlogger.backends import backend_reader, sequences
from envlogger.options import check_count, check_path
from envlogger.tfds import dataset, lru, shard_pool, step_index, stored_episode

# An episode of 100 steps of 84x84x4 bytes takes 2.8 MB.
DEFAULT_CACHE_BYTES = 128 << 20

# Of what is known of large episodes, some KB for each.
_OUTLINES_BYTES = 16 << 20


class TFDSBackendReader(backend_reader.BackendReader):
    """Reads the episodes of a dataset in ArrayRecord or TFRecord shards, whoever wrote it.

    Opening it reads the JSON files alone. Steps are found by an index of how many of them each episode
    has, which is read, or made, when it is first needed. Episodes are read when they are asked for, and
    those that were used last are kept.

    A reader that is pickled is opened again elsewhere, with the episodes that it had.

    Args:
      data_directory: The version directory, the one that holds `dataset_info.json`.
      split: The split to read; None for all of them, in the order of their names.
      cache_bytes: How much memory to take for the episodes that were used last. The very last one is
        kept in any case.

    Raises:
      DatasetError: The directory is not a dataset that can be read.
      OptionError: There is no such split; or `cache_bytes` is not a number of bytes.
      UnsupportedValueError: A feature is of a class that cannot be decoded.
      CorruptDatasetError: One of its JSON files is missing or damaged.
    """

    def __init__(
        self,
        data_directory: str | os.PathLike[str],
        split: str | None = None,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self._directory = check_path("data_directory", data_directory)
        self._split = split
        self._cache_bytes = check_count("cache_bytes", cache_bytes, at_least=0)
        self._contents = dataset.load(self._directory)
        # An array of the standard library: numpy's take five times as long to look up one number.
        self._known_starts: array.array[int] | None = None
        self._open()

    def metadata(self) -> dict[str, Any]:
        """Returns the metadata that was passed to EnvLogger, with `environment_specs`."""
        return {k: v for k, v in self._contents.metadata.items() if k != dataset.OURS}

    def episode_lengths(self) -> npt.NDArray[np.int64]:
        """Returns the number of steps of each episode, int64 (N,)."""
        starts: npt.NDArray[np.int64] = np.frombuffer(self._step_starts(), np.int64)
        return starts[1:] - starts[:-1]

    def refresh(self) -> None:
        """Takes in what has been published since the reader was opened."""
        before = self._contents
        self._contents = dataset.load(self._directory)
        if (self._contents.info, self._contents.schema) != (before.info, before.schema):
            self.close()
            self._known_starts = None
            self._open()

    def close(self) -> None:
        """Closes the shards. They are opened again where they are needed."""
        self._pool.close()
        self._cache.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Returns what the reader knows, but no open file and no episode."""
        names = ("_directory", "_split", "_cache_bytes", "_contents", "_known_starts")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens the reader elsewhere, with the same episodes."""
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        info = self._contents.info
        if info.file_format not in shard_pool.FORMATS:
            raise errors.DatasetError(
                f"{self._directory}: got a dataset in {info.file_format} files, expected "
                f"{' or '.join(shard_pool.FORMATS)}. Read it with tfds.load."
            )
        if self._split is not None and self._split not in info.shard_lengths:
            known = ", ".join(map(repr, sorted(info.shard_lengths))) or "none"
            raise errors.OptionError(f"split: got {self._split!r}; the dataset has {known}.")
        self._splits = sorted(info.shard_lengths) if self._split is None else [self._split]
        self._pool = shard_pool.ShardPool(shard_pool.shards_of(self._directory, info, self._splits))
        self._decoder = stored_episode.Decoder(self._contents.schema)
        self._outlines: lru.LruCache[int, stored_episode.Outline] = lru.LruCache(_OUTLINES_BYTES)
        self._cache: lru.LruCache[int, stored_episode.StoredEpisode] = lru.LruCache(
            self._cache_bytes
        )

    def _copy(self) -> Self:
        twin = type(self).__new__(type(self))
        twin.__setstate__(self.__getstate__())
        return twin

    def _get_num_steps(self) -> int:
        return self._step_starts()[-1]

    def _get_num_episodes(self) -> int:
        return len(self._pool)

    def _get_nth_step(self, i: int) -> step_data.StepData:
        starts = self._step_starts()
        index = bisect.bisect_right(starts, i) - 1
        return self._part_of(index).step(i - starts[index])

    def _scan_steps(self, indices: range) -> Iterator[step_data.StepData]:
        if indices.step != 1:
            return super()._scan_steps(indices)
        return self._scan(indices.start, indices.stop)

    def _scan(self, start: int, stop: int) -> Iterator[step_data.StepData]:
        starts = self._step_starts()
        index = bisect.bisect_right(starts, start) - 1
        while start < stop:
            first, end = starts[index], starts[index + 1]
            upto = min(stop, end)
            yield from self._for_rows(index, upto - start).rows(start - first, upto - first)
            start = end
            index += 1

    def _get_nth_episode(self, i: int) -> sequences.EpisodeSteps:
        # Where the index has not been needed yet, one episode is no reason to make it.
        return sequences.EpisodeSteps(
            lambda: self._num_steps_of(i),
            lambda step: self._part_of(i).step(step),
            lambda steps: self._scan_episode(i, steps),
            lambda fields, rows: self._get_columns(i, fields, rows),
            lambda: self._scan_whole(i),
        )

    def _scan_episode(self, i: int, steps: range) -> Iterator[step_data.StepData]:
        episode = self._for_rows(i, len(steps))
        if steps.step != 1:
            return map(episode.step, steps)
        return episode.rows(steps.start, steps.stop)

    def _scan_whole(self, i: int) -> Iterator[step_data.StepData]:
        episode = self._episode(i)
        return episode.rows(0, len(episode))

    def _get_columns(self, i: int, fields: Sequence[str] | None, rows: Any) -> dict[str, Any]:
        is_whole = fields is None and isinstance(rows, slice) and rows == slice(None)
        # In parts, columns are read into their arrays without a record that they are copied from.
        if is_whole and not (self._pool.is_compared(i) and self._pool.is_plain(i)):
            return self._episode(i, are_copied=True).columns(fields, rows)
        return self._part_of(i).columns(fields, rows)

    def _get_nth_episode_info(
        self, i: int, include_metadata: bool = False
    ) -> backend_reader.EpisodeInfo:
        starts = self._step_starts()
        start, stop = starts[i], starts[i + 1]
        metadata = self._get_nth_episode_metadata(i) if include_metadata else None
        return backend_reader.EpisodeInfo(start, stop - start, metadata)

    def _get_nth_episode_metadata(self, i: int) -> Any:
        return self._part_of(i).metadata_value()

    def _num_steps_of(self, i: int) -> int:
        starts = self._known_starts
        return len(self._part_of(i)) if starts is None else starts[i + 1] - starts[i]

    def _for_rows(self, index: int, count: int) -> stored_episode.StoredEpisode:
        """Returns an episode of which so many rows are wanted."""
        is_most = 2 * count > self._num_steps_of(index)
        return self._episode(index) if is_most else self._part_of(index)

    def _episode(self, index: int, *, are_copied: bool = False) -> stored_episode.StoredEpisode:
        """Returns an episode, the whole of which has been read and compared with its hash.

        Args:
          index: Its number.
          are_copied: Whether all its values are about to be copied, as columns are. Then a large one is not
            kept beside them, and its memory is free for the next one.
        """
        episode = self._cache.get(index)
        if episode is None or episode.is_partial:
            path, record = self._pool.read(index)
            episode = self._decoder.decode(record, path)
            if are_copied and len(record) >= memory.LARGE:
                self._check_num_steps(index, len(episode))
            else:
                self._keep(index, episode)
        return episode

    def _part_of(self, index: int) -> stored_episode.StoredEpisode:
        """Returns an episode of which a part is wanted, and only that is read where it is large."""
        episode = self._cache.get(index)
        if episode is None:
            opened = self._pool.open(index, compressed=self._decoder.has_large_rows)
            if opened is None:
                return self._episode(index)
            path, record = opened
            known = self._outlines.get(index)
            episode = self._keep(index, self._decoder.open(record, path, known))
            if known is None and episode.outline is not None:
                self._outlines.put(index, episode.outline, episode.outline_bytes)
        return episode

    def _keep(
        self, index: int, episode: stored_episode.StoredEpisode
    ) -> stored_episode.StoredEpisode:
        self._check_num_steps(index, len(episode))
        self._cache.put(index, episode, episode.num_bytes)
        return episode

    def _check_num_steps(self, index: int, found: int) -> None:
        starts = self._known_starts
        if starts is not None and found != starts[index + 1] - starts[index]:
            expected = starts[index + 1] - starts[index]
            path = os.path.join(self._directory, dataset.STATE, "index")
            raise errors.CorruptDatasetError(
                f"{path}: the index says that episode {index} has {expected} steps; it has {found}. "
                "Remove that directory: without it the steps are counted anew."
            )

    def _step_starts(self) -> array.array[int]:
        """Returns the index of the first step of each episode, and the number of all steps."""
        starts = self._known_starts
        if starts is None:
            counts = [self._step_counts(split) for split in self._splits]
            stops = np.cumsum(np.concatenate([np.empty(0, np.int64), *counts]))
            starts = self._known_starts = array.array("q", [0])
            starts.frombytes(stops.tobytes())
            self._cache.clear()  # what was read before has not been compared with the index
        return starts

    def _step_counts(self, split: str) -> npt.NDArray[np.int64]:
        info = self._contents.info
        pool = shard_pool.ShardPool(shard_pool.shards_of(self._directory, info, [split]))

        def count_steps(shard: int) -> list[int]:
            found = []
            for i in pool.records_of(shard):
                opened = pool.open(i)
                if opened is not None:
                    path, part = opened
                    found.append(len(self._decoder.open(part, path)))
                else:
                    path, record = pool.read(i)
                    found.append(len(self._decoder.decode(record, path)))
            return found

        try:
            return step_index.load(self._directory, info, split, count_steps)
        finally:
            pool.close()
