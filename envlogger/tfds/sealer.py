# SPDX-License-Identifier: Apache-2.0
"""Seals a session: turns the episodes of its step log into published shards.

The helper process, the recovery after a crash and the writer itself, where it has no helper, all do
it with this one class.
"""

from __future__ import annotations

import os

from envlogger.tfds import dataset, episode, log_reader, schema, session, shards
from envlogger.tfds.episode import End

# A shard of such a size is published even if it has few episodes, so that the step log's space is
# given back. TFDS recommends shards of 100 MiB and more.
SHARD_BYTES = 128 << 20
# An episode that is larger goes into several records: protobuf ends at 2 GiB, memory before that.
EPISODE_BYTES = 256 << 20


class Sealer:
    """Seals one session. Only who holds the session's sealer lock may have one.

    Args:
      target: The dataset.
      session_id: The session.
    """

    def __init__(self, target: dataset.DatasetDirectory, session_id: str) -> None:
        self._target = target
        self._session_id = session_id
        self._directory = target.session_path(session_id)
        self._journal = session.Journal(self._directory)
        self._journal.refresh()
        target.finish_publishing()  # what a sealer before this one began
        first_row = session.read_progress(self._directory)
        self._log = log_reader.LogReader(self._directory, self._journal, first_row)
        self._published_rows = first_row
        contents = target.contents()
        self._dataset_schema = None if contents is None else contents.schema
        self._masks: tuple[set[tuple[str, ...]], set[tuple[str, ...]]] = (set(), set())
        self._writer: shards.ShardWriter | None = None
        self._shard_schema = schema.Schema()
        self._step_counts: list[int] = []
        self._num_shards = 0
        self.num_episodes = 0

    @property
    def is_closed(self) -> bool:
        """Whether the writer said that it is done."""
        return self._journal.is_closed

    def seal(self, *, under_pressure: bool = False) -> bool:
        """Seals the episodes that are finished; publishes the shards that are full.

        Args:
          under_pressure: Whether the writer waits for space: then all that can be is published.

        Returns:
          Whether there was anything to do.
        """
        self._log.refresh()
        begun = self._log.first_row
        for finished in self._log.finished():
            self._add(finished)
        row, rows = self._log.first_row, self._log.num_rows
        if rows > row:
            size = self._log.bytes_between(row, rows)
            if size > EPISODE_BYTES or (under_pressure and not self._step_counts):
                self._add(self._log.take(rows, End.SPLIT))
        if under_pressure:
            self.publish()
        return self._log.first_row > begun

    def finish(self) -> None:
        """Seals and publishes all rows; the writer is gone or waits. Removes the session."""
        self.seal()
        if self._log.num_rows > self._log.first_row:
            end = End.RESET if self._journal.is_closed else End.KILLED
            self._add(self._log.take(self._log.num_rows, end))
        self.publish()
        self._log.close()
        self._target.remove_session(self._session_id)

    def publish(self) -> None:
        """Publishes the episodes of the open shard, if there are any, and gives back their space."""
        if self._writer is None:
            return
        options = self._journal.options
        assert options is not None, "rows come after the journal's first line"
        writer, counts = self._writer, self._step_counts
        writer.close()
        self._dataset_schema = self._target.publish(
            dataset.Shard(
                path=os.path.basename(writer.path),
                session=options,
                step_counts=counts,
                rows=self._log.first_row,
            ),
            self._shard_schema,
        )
        self._writer, self._step_counts = None, []
        self._published_rows = self._log.first_row
        self._log.give_back(self._published_rows)

    def sync(self) -> None:
        """Makes all rows survive a loss of power."""
        self._log.refresh()
        self._log.sync()
        session.sync_directory(self._directory)

    def close(self) -> None:
        """Lets go of the session; what is not published stays in its step log."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        self._log.close()

    def _add(self, finished: episode.Episode) -> None:
        wanted = self._schema_for(finished)
        if self._writer is not None and not dataset.covers(self._shard_schema, wanted):
            self._widen_open_shard(wanted)
        if self._writer is None:
            self._shard_schema = wanted
            self._writer = shards.ShardWriter(self._next_path())
        self._writer.add(episode.encode(finished, self._shard_schema))
        self._step_counts.append(len(finished))
        self.num_episodes += 1
        options = self._journal.options
        assert options is not None, "rows come after the journal's first line"
        size = self._log.bytes_between(self._published_rows, self._log.first_row)
        if len(self._step_counts) >= options.max_episodes_per_file or size > SHARD_BYTES:
            self.publish()

    def _schema_for(self, finished: episode.Episode) -> schema.Schema:
        """Returns the schema of the dataset once it has this episode."""
        wanted = self._journal.schema()
        for in_episode, paths in enumerate(self._masks):
            for path in paths:
                wanted.add_mask(path, to_episode=bool(in_episode))
        if self._dataset_schema is not None:
            wanted = schema.merge(wanted, self._dataset_schema)
        for in_episode, needed in enumerate(episode.masks(finished, wanted)):
            self._masks[in_episode].update(needed)
            known = wanted.episode if in_episode else wanted.steps
            for path in needed:
                if (schema.PRESENT, *path) not in known:
                    wanted.add_mask(path, to_episode=bool(in_episode))
        return wanted

    def _widen_open_shard(self, wanted: schema.Schema) -> None:
        """Gives the episodes of the open shard the features that turned up after them."""
        assert self._writer is not None
        narrow = self._writer
        narrow.close()
        self._writer = shards.ShardWriter(self._next_path())
        for record in shards.read_all(narrow.path, narrow.num_records):
            self._writer.add(episode.adapt(record, self._shard_schema, wanted))
        os.unlink(narrow.path)
        self._shard_schema = wanted

    def _next_path(self) -> str:
        self._num_shards += 1
        return os.path.join(self._directory, f"shard-{os.getpid()}-{self._num_shards}")
