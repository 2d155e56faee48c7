# SPDX-License-Identifier: Apache-2.0
"""The writer's side of a session: from logged steps to the step log, and what seals it."""

from __future__ import annotations

import os
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dm_env

from envlogger import errors, step_data
from envlogger.tfds import (
    dataset,
    log_reader,
    log_writer,
    recorder,
    row_format,
    schema,
    session,
    step_log,
)
from envlogger.tfds.features import Feature
from envlogger.tfds.helper import Helper
from envlogger.tfds.sealer import Sealer
from envlogger.tfds.structure import Path

_MAX_HELPER_STARTS = 3
# How often the writer looks after the helper, which acts as often. It takes system calls: as long as 20
# steps, where the environment has had the processor's caches in between.
_CHECK_SECONDS = 0.5
_NEW_EPISODE = step_log.NEW_EPISODE  # without a look-up of the module at each step

_sessions: weakref.WeakSet[WritingSession] = weakref.WeakSet()


def _disown_sessions() -> None:
    for open_session in list(_sessions):
        open_session.disown()


os.register_at_fork(after_in_child=_disown_sessions)


class WritingSession:
    """Records the steps of one environment, of several that step together, or of one `EpisodeWriter`.

    Args:
      target: The dataset; the session owns it and closes it.
      options: What `metadata.json` and the sealer need to know.
      of: The schema of the dataset, extended in place.
      specs: The environment's specs by name.
      max_backlog_bytes: How much may wait to be sealed.
      sync_interval: Seconds after which rows are made to survive a loss of power; None for never.
      with_helper: Whether a helper process seals the rows.
    """

    def __init__(
        self,
        target: dataset.DatasetDirectory,
        options: session.Options,
        of: schema.Schema,
        specs: Mapping[str, Any],
        *,
        max_backlog_bytes: int,
        sync_interval: float | None,
        with_helper: bool,
    ) -> None:
        self._recorder = recorder.Recorder(of, specs, is_aligned=options.is_aligned)
        self._sealing = _Sealing(target, options, sync_interval, with_helper)
        self._journal = self._sealing.journal
        rows = row_format.RowFormat(self._journal, options.num_streams)
        self._logs = [
            log_writer.LogWriter(
                self._sealing.directory,
                rows,
                stream,
                options.num_streams,
                max_backlog_bytes,
                self._sealing.wait_for_space,
                self._sealing.wake,
            )
            for stream in range(options.num_streams)
        ]
        self._num_begun = 0  # episodes, since it was looked after what seals them
        self._journaled: dict[Path, Feature] = dict(schema.Schema().episode)
        try:
            self.journal_episode_features()  # those that the caller or the dataset gives
        except BaseException:
            self._sealing.close()
            raise
        self._pid = os.getpid()
        _sessions.add(self)
        # Closes at the end of the process, or when nobody has the session any more.
        self._finalizer = weakref.finalize(self, _close, self._logs, self._sealing, self._pid)

    def streams(self) -> list[Stream]:
        """Returns what records the steps of each environment."""
        return [Stream(self, self._recorder, number, log) for number, log in enumerate(self._logs)]

    def check(self) -> None:
        """Looks after what seals the rows, from time to time: it takes time for each stream."""
        self._num_begun += 1
        if self._num_begun >= len(self._logs):
            self._num_begun = 0
            self._sealing.check()

    def begin_episode(self, stream: int) -> None:
        """Prepares for an episode of a stream."""
        self.check_open()
        self.check()
        self._recorder.begin_episode(stream)

    def journal_episode_features(self) -> None:
        """Has the journal name the features that metadata of episodes has shown."""
        for path, feature in self._recorder.schema.episode.items():
            if path[0] != schema.PRESENT and self._journaled.get(path) != feature:
                self._journal.add_episode_feature(feature)
                self._journaled[path] = feature

    def flush(self) -> None:
        """Makes all rows survive a loss of power, and publishes the finished episodes."""
        self.check_open()
        for log in self._logs:
            log.sync()
        self._journal.sync()
        session.sync_directory(self._sealing.directory)
        self._sealing.publish()

    def disown(self) -> None:
        """Called in a fork of the process: what is recorded here would mix with the parent's."""
        for log in self._logs:
            log.writes.clear()

    def close(self) -> None:
        """Seals and publishes everything. May be called more than once."""
        if os.getpid() == self._pid:
            self._finalizer()

    def check_open(self) -> None:
        """Refuses to record after `close`, and in a fork of the process."""
        if os.getpid() != self._pid:
            raise errors.EnvLoggerError(
                "This process is a fork of the one that made the logger, and cannot record into its "
                "session. Make the EnvLogger or EpisodeWriter in the process that records."
            )
        if not self._finalizer.alive:
            raise errors.EnvLoggerError(
                "The logger is closed, so nothing more can be recorded. Make a new EnvLogger, or "
                "EpisodeWriter, with the same data_directory; it appends."
            )


class Stream:
    """Records the steps of one environment, or of an `EpisodeWriter`.

    Args:
      owner: The session, which lives as long as this does.
      checks: Makes rows of steps.
      number: Which of its streams this is.
      log: Where the rows go.
    """

    def __init__(
        self,
        owner: WritingSession,
        checks: recorder.Recorder,
        number: int,
        log: log_writer.LogWriter,
    ) -> None:
        self._session = owner
        self._recorder = checks
        self._number = number
        self._log = log
        self._writes = log.writes

    def record(self, timestep: dm_env.TimeStep, action: Any, custom_data: Any, flags: int) -> None:
        """Records a step. Once this returns, it survives the death of the process.

        Args:
          timestep: What the environment returned; or where rows are aligned, what a step of RLDS has.
          action: The action that led to it; or the one that was taken in it.
          custom_data: What `step_fn` returned; or what else is in the step.
          flags: Bits of `step_log`; True for a new episode of an environment.
        """
        if flags & _NEW_EPISODE:
            self._session.begin_episode(self._number)
        for write in self._writes:
            if write(timestep, action, custom_data, flags):
                return
        self._record_other(step_data.StepData(timestep, action, custom_data), flags)

    def record_episode(
        self, steps: Iterable[tuple[step_data.StepData, int]], metadata: Any
    ) -> None:
        """Records an episode of steps of RLDS. It is there as a whole, or not at all.

        Args:
          steps: The steps, at least one, each with its bits of `step_log`.
          metadata: The metadata of the episode; None for nothing.

        Raises:
          ValueMismatchError, UnsupportedValueError, NameConflictError: A value does not fit.
          OSError: There is no space on the disk.
        """
        self._session.check_open()
        self._session.check()
        flags: list[int] = []

        def taken() -> Iterator[step_data.StepData]:
            for data, bits in steps:
                flags.append(bits | step_log.WHOLE)
                yield data

        rows, note = self._recorder.whole(taken(), metadata, self._number)
        self._session.journal_episode_features()
        self._log.append_whole(zip(rows, flags, strict=True), self._features())
        if note is not None:
            self._log.add_note(log_reader.encode_note(*note))
        self._log.end_episode()

    def end_episode(self) -> None:
        """Says that the episode of steps of RLDS is complete."""
        self._session.check_open()
        self._log.end_episode()

    def _record_other(self, data: step_data.StepData, flags: int) -> None:
        """Records a step for which there is no compiled way, and makes one."""
        self._session.check_open()
        timestep, action, custom_data = data
        # Mostly it is only the segment that is full.
        if self._log.advance() and any(
            write(timestep, action, custom_data, flags) for write in self._writes
        ):
            return
        row = self._recorder.row(data, self._number)
        self._log.append(row, self._features(), flags)
        self._log.compile(data, row)

    def _features(self) -> dict[Path, Feature]:
        """Returns the features of all leaves that rows have had."""
        steps = self._recorder.schema.steps
        return {path: feature for path, feature in steps.items() if path[0] not in _FLAGS}

    def set_episode_metadata(self, value: Any) -> None:
        """Sets the metadata of the episode of the last step."""
        self._session.check_open()
        shape, leaves = self._recorder.metadata(value, self._number)
        self._session.journal_episode_features()
        self._log.add_note(log_reader.encode_note(shape, leaves))


_FLAGS = frozenset((schema.IS_FIRST, schema.IS_LAST, schema.IS_TERMINAL, schema.PRESENT))


def _close(logs: Sequence[log_writer.LogWriter], sealing: _Sealing, pid: int) -> None:
    if os.getpid() != pid:
        return  # a fork has copies of everything, but none of it is its own
    for log in logs:
        log.close()
    sealing.close()


class _Sealing:
    """Has a session sealed: by a helper process, or where that cannot be, in this process."""

    def __init__(
        self,
        target: dataset.DatasetDirectory,
        options: session.Options,
        sync_interval: float | None,
        with_helper: bool,
    ) -> None:
        self._target = target
        self._session_id = options.session_id
        self._sync_interval = sync_interval
        self._lock = target.make_session(options.session_id)
        self.directory = target.session_path(options.session_id)
        self.journal = session.Journal(self.directory)
        self._helper: Helper | None = None
        self._sealer: Sealer | None = None
        self._sealer_lock: session.Lock | None = None
        self._num_starts = 0
        self._next_check = 0.0
        try:
            self.journal.add_options(options)
        except BaseException:
            self.journal.close()
            target.remove_session(options.session_id)
            self._lock.release()
            raise
        if with_helper:
            self._start_helper()

    def wake(self) -> None:
        """Says that there are rows to seal."""
        if self._helper is not None:
            self._helper.wake()

    def check(self) -> None:
        """Looks after the helper; seals a bit where there is none.

        Raises:
          OSError: The helper, or this process, could not write; the rows are safe.
        """
        if self._helper is None:
            self._seal_here(Sealer.seal)
        elif (now := time.monotonic()) >= self._next_check:
            self._next_check = now + _CHECK_SECONDS
            if self._helper.is_alive:
                self._helper.check()
            else:
                self._restart_helper()

    def wait_for_space(self) -> None:
        """Waits until something has been sealed, or might have been."""
        if self._helper is not None and not self._helper.is_alive:
            self._restart_helper()
        if self._helper is None:
            self._seal_here(lambda sealer: sealer.seal(under_pressure=True))
        else:
            self._helper.wait_for_space()

    def publish(self) -> None:
        """Publishes the episodes that are finished."""
        while self._helper is not None:
            if not self._helper.is_alive:
                self._restart_helper()
            elif self._helper.publish():
                return
        self._seal_here(Sealer.flush)

    def close(self) -> None:
        """Seals and publishes everything, and gives up the session."""
        try:
            self.journal.add_close()
            helper, self._helper = self._helper, None
            if helper is None or not helper.finish():
                self._seal_here(Sealer.finish)
        finally:
            self.journal.close()
            if self._sealer is not None:
                self._sealer.close()
            if self._sealer_lock is not None:
                self._sealer_lock.release()
            self._lock.release()
            self._target.close()

    def _start_helper(self) -> None:
        self._num_starts += 1
        try:
            self._helper = Helper(self._target, self._session_id, self._sync_interval)
        except OSError as error:
            self._helper = None
            warnings.warn(
                f"The helper process could not be started ({error}); this process seals the episodes "
                "itself, between steps. Nothing is lost, but steps take longer now and then.",
                UserWarning,
                stacklevel=2,
            )

    def _restart_helper(self) -> None:
        assert self._helper is not None
        self._helper.close()
        self._helper = None
        if self._num_starts < _MAX_HELPER_STARTS:
            self._start_helper()
        else:
            warnings.warn(
                f"The helper process has died {self._num_starts} times; this process seals the "
                "episodes itself, between steps. Nothing is lost.",
                UserWarning,
                stacklevel=2,
            )

    def _seal_here(self, work: Callable[[Sealer], object]) -> None:
        """Does what the helper would do."""
        if not os.path.isdir(self.directory):
            raise errors.DatasetError(
                f"{self._target.directory}: the directory, or the session in it, was removed while it was "
                "logged into, and with it the steps that had not been published."
            )
        if self._sealer_lock is None:
            lock = session.Lock(self.directory, session.SEALER_LOCK)
            lock.acquire()
            self._sealer_lock = lock
        try:
            if self._sealer is None:
                self._sealer = Sealer(self._target, self._session_id)
            work(self._sealer)
        except BaseException:
            # The next one begins anew, from the step log.
            if self._sealer is not None:
                self._sealer.close()
                self._sealer = None
            raise
