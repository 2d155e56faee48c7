# SPDX-License-Identifier: Apache-2.0
"""The backend that reads a TFDS dataset in RLDS form, without TensorFlow."""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from envlogger import errors, step_data
from envlogger.backends import backend_reader
from envlogger.tfds import dataset, dataset_files, episode, shards
from envlogger.tfds import record as records


class TFDSBackendReader(backend_reader.BackendReader):
    """Reads the episodes of a dataset in ArrayRecord shards.

    Args:
      data_directory: The version directory, the one that holds `dataset_info.json`.
      split: The split to read; None for all of them, in the order of their names.

    Raises:
      DatasetError: The directory is not a dataset that can be read.
      OptionError: There is no such split.
      CorruptDatasetError: One of its JSON files is missing or damaged.
    """

    def __init__(self, data_directory: str | os.PathLike[str], split: str | None = None) -> None:
        self._directory = os.path.abspath(os.path.expanduser(os.fspath(data_directory)))
        self._split = split
        self._contents = dataset.load(self._directory)
        info = self._contents.info
        if info.file_format != dataset_files.FILE_FORMAT:
            raise errors.DatasetError(
                f"{self._directory}: got a dataset in {info.file_format} files, expected "
                f"{dataset_files.FILE_FORMAT}. Read it with tfds.load."
            )
        if split is not None and split not in info.shard_lengths:
            known = ", ".join(map(repr, sorted(info.shard_lengths))) or "none"
            raise errors.OptionError(f"split: got {split!r}; the dataset has {known}.")
        splits = sorted(info.shard_lengths) if split is None else [split]
        self._shards = [
            (name, index, length)
            for name in splits
            for index, length in enumerate(info.shard_lengths[name])
        ]
        lengths = [length for _, _, length in self._shards]
        # The index of the first episode of each shard, and the number of all episodes.
        self._shard_starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._readers: dict[int, shards.ShardReader] = {}
        self._last: tuple[int, episode.Episode] | None = None
        counts = [self._read_step_counts(name) for name in splits]
        # The index of the first step of each episode, and the number of all steps.
        self._step_starts = np.concatenate([[0], np.cumsum(np.concatenate([[], *counts]))]).astype(
            np.int64
        )

    def metadata(self) -> dict[str, Any]:
        """Returns the metadata that was passed to EnvLogger, with `environment_specs`."""
        return {k: v for k, v in self._contents.metadata.items() if k != dataset.OURS}

    def close(self) -> None:
        """Closes the shards. They are opened again where they are needed."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._last = None

    def _copy(self) -> Self:
        return type(self)(self._directory, self._split)

    def _get_num_steps(self) -> int:
        return int(self._step_starts[-1])

    def _get_num_episodes(self) -> int:
        return int(self._shard_starts[-1])

    def _get_nth_step(self, i: int) -> step_data.StepData:
        index = int(np.searchsorted(self._step_starts, i, side="right")) - 1
        return self._episode(index).step(i - int(self._step_starts[index]))

    def _get_nth_episode_info(
        self, i: int, include_metadata: bool = False
    ) -> backend_reader.EpisodeInfo:
        start, stop = map(int, self._step_starts[i : i + 2])
        metadata = self._episode(i).metadata_value() if include_metadata else None
        return backend_reader.EpisodeInfo(start, stop - start, metadata)

    def _episode(self, index: int) -> episode.Episode:
        last = self._last  # another thread may replace it meanwhile
        if last is None or last[0] != index:
            shard = int(np.searchsorted(self._shard_starts, index, side="right")) - 1
            reader = self._shard(shard)
            record = reader.read(index - int(self._shard_starts[shard]))
            try:
                decoded = records.decode(record, self._contents.schema)
            except errors.CorruptDatasetError as error:
                raise errors.CorruptDatasetError(f"{reader.path}: {error}") from error
            self._check_step_count(index, len(decoded))
            last = self._last = index, decoded
        return last[1]

    def _check_step_count(self, index: int, found: int) -> None:
        expected = int(self._step_starts[index + 1] - self._step_starts[index])
        if found != expected:
            path = os.path.join(self._directory, dataset.STATE, "index")
            raise errors.CorruptDatasetError(
                f"{path}: the index says that episode {index} has {expected} steps; it has {found}. "
                "Remove that directory: without it the steps are counted anew."
            )

    def _shard(self, shard: int) -> shards.ShardReader:
        if shard not in self._readers:
            name, index, length = self._shards[shard]
            path = os.path.join(self._directory, self._contents.info.shard_name(name, index))
            self._readers[shard] = shards.ShardReader(path, length)
        return self._readers[shard]

    def _read_step_counts(self, split: str) -> npt.NDArray[np.int64]:
        counts = dataset.read_step_counts(self._directory, self._contents.info, split)
        if counts is not None:
            return counts
        found = []
        for index, length in enumerate(self._contents.info.shard_lengths[split]):
            path = os.path.join(self._directory, self._contents.info.shard_name(split, index))
            for record in shards.read_all(path, length):
                found.append(records.count_steps(record, self._contents.schema))
        return np.array(found, np.int64)
