# SPDX-License-Identifier: Apache-2.0
"""The episodes of runs as steps: what a builder's hooks see, and what they make of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from envlogger import step_data
from envlogger.backends import sequences
from envlogger.conversion import opening
from envlogger.conversion.sources import StepSource
from envlogger.tfds import dataset, example, schema, shard_pool, stored_episode
from envlogger.tfds.building.hooks import Hooks, LoggedEpisode
from envlogger.tfds.episode import End


def identity(record: bytes) -> str:
    """Returns what names an episode, wherever its record lies: its id, or else a digest."""
    found = example.parse(record).get(schema.EPISODE_ID)
    if found is not None and found.size and found.kind == example.BYTES_LIST:
        return bytes(example.decode_bytes(found)[0]).decode(errors="surrogateescape")
    if found is not None and found.size and found.kind == example.INT64_LIST:
        return str(example.decode_int64s(found)[0])
    return hashlib.blake2b(record, digest_size=16).hexdigest()


class RecordDecoder:
    """Decodes the records of a run.

    Args:
      path: The directory of the run.
      of: Its features.
      metadata: What was said of the run when it was recorded.
    """

    def __init__(self, path: str, of: schema.Schema, metadata: Mapping[str, Any]) -> None:
        self._path = path
        self._metadata = metadata
        self._decoder = stored_episode.Decoder(of)
        self._is_ours = (schema.RESTORE,) in of.episode

    def decode(self, record: bytes, split: str) -> tuple[LoggedEpisode, End]:
        """Returns the episode in a record, and how it ended.

        Args:
          record: The record.
          split: The split that it is in.

        Raises:
          CorruptDatasetError: The record does not hold what the features say.
        """
        stored = self._decoder.decode(record, self._path)
        metadata, end = stored.metadata_value(), stored.end
        if isinstance(metadata, dict):
            # RLDS has places for these; what else is said of an episode is metadata.
            metadata.pop(schema.EPISODE_ID, None)
            if not self._is_ours and metadata.pop(schema.INVALID, False):
                end = End.KILLED
        steps = sequences.EpisodeSteps(
            len(stored),
            stored.step,
            lambda rows: (
                stored.rows(rows.start, rows.stop) if rows.step == 1 else map(stored.step, rows)
            ),
            stored.columns,
        )
        invalid = end is End.KILLED
        episode = LoggedEpisode(
            identity(record), steps, metadata, invalid, split, self._path, self._metadata
        )
        return episode, end


class _DatasetEpisodes:
    """The episodes of a split of a dataset in RLDS form."""

    def __init__(self, path: str, split: str) -> None:
        contents = dataset.load(path)
        own = {key: item for key, item in contents.metadata.items() if key != dataset.OURS}
        self._split = split
        self._pool = shard_pool.ShardPool(shard_pool.shards_of(path, contents.info, [split]))
        self._decoder = RecordDecoder(path, contents.schema, own)

    def logged(self, index: int, session_id: str) -> tuple[LoggedEpisode, End]:
        _, record = self._pool.read(index)
        return self._decoder.decode(record, self._split)

    def close(self) -> None:
        self._pool.close()


class _StepEpisodes:
    """The episodes of a log whose steps are encoded in any case."""

    def __init__(self, source: StepSource) -> None:
        self._source = source

    def logged(self, index: int, session_id: str) -> tuple[LoggedEpisode, End]:
        source = self._source
        steps, metadata = source.episode(index)
        name = source.episode_id(index, session_id)
        episode = LoggedEpisode(
            name, list(steps), metadata, False, "train", source.path, dict(source.metadata)
        )
        return episode, source.end(index)

    def close(self) -> None:
        self._source.close()


class ChangedEpisodes:
    """The episodes of a source as the hooks of a builder change them, to be encoded. Close it.

    Args:
      path: The directory of the source.
      split: The split.
      session_id: What the ids begin with of episodes that have none.
      hooks: The hooks.

    Raises:
      DatasetError, CorruptDatasetError, UnsupportedValueError: The source cannot be read.
    """

    def __init__(self, path: str, split: str, session_id: str, hooks: Hooks) -> None:
        source = opening.open_source(path)
        self._session_id = session_id
        self._hooks = hooks
        self._source = (
            _StepEpisodes(source)
            if isinstance(source, StepSource)
            else _DatasetEpisodes(path, split)
        )
        self._last: tuple[int, LoggedEpisode | None, End] = (-1, None, End.RESET)

    def episode(self, index: int) -> tuple[Iterator[step_data.StepData], Any]:
        """Returns the steps of an episode, and its metadata; no steps where it is left out."""
        episode, _ = self._changed(index)
        return (iter(()), None) if episode is None else (iter(episode.steps), episode.metadata)

    def episode_id(self, index: int, session_id: str) -> str:
        """Returns the id of an episode, which is that of the source where it has one."""
        episode, _ = self._changed(index)
        return session_id if episode is None else episode.episode_id

    def end(self, index: int) -> End:
        """Returns how an episode ended, unless its last step is LAST."""
        _, end = self._changed(index)
        return End.RESET if end is End.LAST else end

    def close(self) -> None:
        """Closes the files."""
        self._source.close()

    def _changed(self, index: int) -> tuple[LoggedEpisode | None, End]:
        if self._last[0] != index:
            episode, end = self._source.logged(index, self._session_id)
            self._last = (index, self._hooks.change(episode), end)
        return self._last[1:]
