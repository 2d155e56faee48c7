# SPDX-License-Identifier: Apache-2.0
"""Seals a session: turns the episodes of its step log into published shards.

The helper process, the recovery after a crash and the writer itself, where it has no helper, all do
it with this one class.
"""

from __future__ import annotations

import glob
import os

from envlogger.tfds import dataset, example, log_reader, record, schema, session, shards, step_log
from envlogger.tfds.episode import End, Episode
from envlogger.tfds.structure import Path

# A shard of such a size is published even if it has few episodes, so that the step log's space is
# given back. TFDS recommends shards of 100 MiB and more.
SHARD_BYTES = 128 << 20


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
        for leftover in glob.glob(os.path.join(self._directory, "shard-*")):
            os.unlink(leftover)  # nothing refers to it any more
        options = self._journal.options
        num_streams = options.num_streams if options is not None else 1
        self._published_rows = session.read_progress(self._directory, num_streams)
        self._logs = [
            log_reader.LogReader(self._directory, self._journal, first_row, stream)
            for stream, first_row in enumerate(self._published_rows)
        ]
        contents = target.contents()
        self._dataset_schema = None if contents is None else contents.schema
        self._masks: tuple[set[Path], set[Path]] = (set(), set())  # in steps, in episodes
        self._version = (0, 0)  # of the journal, for which the encoder was made
        self._encoder: record.Encoder | None = None
        self._wanted = schema.Schema()  # of the encoder
        self._writer: shards.ShardWriter | None = None
        self._shard_schema = self._wanted
        self._step_counts: list[int] = []
        self._num_shards = 0
        self.num_episodes = 0

    def seal(self, *, under_pressure: bool = False) -> None:
        """Seals the episodes that are finished; publishes the shards that are full.

        Args:
          under_pressure: Whether the writer waits for space: then all that can be is published.
        """
        for log in self._logs:
            log.refresh()
            for finished in log.finished(step_log.EPISODE_BYTES):
                self._add(finished)
            if _unsealed_bytes(log) > step_log.EPISODE_BYTES:
                self._split(log)
        if under_pressure:
            if not self._step_counts:
                most = max(map(_unsealed_bytes, self._logs))
                for log in self._logs:
                    if _unsealed_bytes(log) * 2 >= most:  # not for the sake of a few rows
                        self._split(log)
            self.publish()

    def flush(self) -> None:
        """Seals and publishes the episodes that are finished, the last one among them."""
        self.seal()
        for log in self._logs:
            if log.ends_with_episode:
                self._add_rows(log, log.num_rows, End.LAST)
        self.publish()

    def finish(self) -> None:
        """Seals and publishes all rows; the writer is gone or waits. Removes the session.

        Raises:
          FileNotFoundError: Somebody else has removed it, and rows perhaps that were not seen here.
        """
        os.stat(self._directory)
        self.seal()
        end = End.RESET if self._journal.is_closed else End.KILLED
        for log in self._logs:
            if log.num_rows > log.first_row:
                self._add_rows(log, log.num_rows, end)
        self.publish()
        for log in self._logs:
            log.check_complete()
            log.close()
        self._target.remove_session(self._session_id)

    def publish(self) -> None:
        """Publishes the episodes of the open shard, if there are any, and gives back their space."""
        if self._writer is None:
            return
        options = self._journal.options
        assert options is not None, "rows come after the journal's first line"
        writer, counts = self._writer, self._step_counts
        writer.close()
        # From here on the file may be spoken for; if publishing fails, the rows are encoded anew.
        self._writer, self._step_counts = None, []
        self._dataset_schema = self._target.publish(
            dataset.Shard(
                path=os.path.basename(writer.path),
                session=options,
                step_counts=counts,
                rows=self._rows,
            ),
            self._shard_schema,
        )
        self._encoder = None  # another writer may have added features
        self._published_rows = self._rows
        for log in self._logs:
            log.give_back(log.first_row)

    def make_spares(self) -> None:
        """Makes space for the rows to come, which the writer then need not do."""
        for log in self._logs:
            log.make_spares()

    def sync(self) -> None:
        """Makes all rows survive a loss of power."""
        for log in self._logs:
            log.refresh()
            log.sync()
        session.sync_directory(self._directory)

    def close(self) -> None:
        """Lets go of the session; what is not published stays in its step log."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        for log in self._logs:
            log.close()

    @property
    def _rows(self) -> list[int]:
        """How many rows of each stream have been sealed."""
        return [log.first_row for log in self._logs]

    def _split(self, log: log_reader.LogReader) -> None:
        """Seals what there is of the episode under way, if that is more than a row."""
        if log.num_rows > log.first_row + 1:
            # The last row stays: its metadata may be still to come, and if the writer dies now, the
            # record that it goes to says so. It lies in the last segment, for which nobody waits.
            self._add_rows(log, log.num_rows - 1, End.SPLIT)

    def _add_rows(self, log: log_reader.LogReader, stop: int, end: End) -> None:
        for part in log.take(stop, end, step_log.EPISODE_BYTES):
            self._add(part)

    def _add(self, finished: Episode) -> None:
        encoder = self._encoder_for(finished)
        if self._writer is not None and self._shard_schema is not self._wanted:
            self._widen_open_shard()
        encoded = encoder.encode(finished)
        if self._writer is None:
            self._shard_schema = self._wanted
            compression = shards.Compression.FULL
            if len(encoded) >= example.LARGE_ROW * len(finished):  # of small rows all is soon done
                compression = shards.choose_compression(encoded)
            self._writer = shards.ShardWriter(self._next_path(), compression)
        self._writer.add(encoded)
        self._step_counts.append(len(finished))
        self.num_episodes += 1
        options = self._journal.options
        assert options is not None, "rows come after the journal's first line"
        if len(self._step_counts) >= options.max_episodes_per_file or (
            self._unpublished_bytes() > SHARD_BYTES
        ):
            self.publish()

    def _unpublished_bytes(self) -> float:
        """Returns how much of the step log the episodes of the open shard take, about."""
        return sum(
            log.bytes_between(published, log.first_row)
            for log, published in zip(self._logs, self._published_rows, strict=True)
            if log.first_row > published
        )

    def _encoder_for(self, finished: Episode) -> record.Encoder:
        """Returns the encoder for the schema that the dataset has once it has this episode."""
        version = (len(self._journal.layouts), len(self._journal.episode_features))
        if self._encoder is None or version != self._version:
            self._version = version
            self._make_encoder()
        assert self._encoder is not None
        for to_episode, needed in enumerate(self._encoder.masks(finished)):
            if not self._masks[to_episode].issuperset(needed):
                self._masks[to_episode].update(needed)
                self._make_encoder()
        return self._encoder

    def _make_encoder(self) -> None:
        wanted = self._journal.schema()
        # What the episodes before these do not have gets a mask.
        if self._dataset_schema is not None:
            wanted = schema.with_varying(wanted, self._dataset_schema)
            wanted = schema.merge(wanted, self._dataset_schema)
        if self._writer is not None:
            wanted = schema.merge(wanted, self._shard_schema)
        for to_episode, paths in enumerate(self._masks):
            known = wanted.episode if to_episode else wanted.steps
            for path in sorted(paths):
                if (schema.PRESENT, *path) not in known:
                    wanted.add_mask(path, to_episode=bool(to_episode))
        self._wanted = wanted
        self._encoder = record.Encoder(wanted)

    def _widen_open_shard(self) -> None:
        """Gives the episodes of the open shard the features that turned up after them."""
        assert self._writer is not None
        if not schema.covers(self._shard_schema, self._wanted):
            narrow = self._writer
            narrow.close()
            self._writer = shards.ShardWriter(self._next_path(), narrow.compression)
            for episode in shards.read_all(narrow.path, narrow.num_records):
                self._writer.add(record.adapt(episode, self._shard_schema, self._wanted))
            os.unlink(narrow.path)
        self._shard_schema = self._wanted

    def _next_path(self) -> str:
        self._num_shards += 1
        return os.path.join(self._directory, f"shard-{os.getpid()}-{self._num_shards}")


def _unsealed_bytes(log: log_reader.LogReader) -> float:
    """Returns how much of the step log the rows of an episode under way take, about."""
    return log.bytes_between(log.first_row, log.num_rows) if log.num_rows > log.first_row else 0.0
