# SPDX-License-Identifier: Apache-2.0
"""Appends the rows of a stream to a session's step log."""

from __future__ import annotations

import collections
import contextlib
import os
import warnings
from collections.abc import Callable, Iterable

from envlogger import step_data
from envlogger.tfds import row_format, step_log
from envlogger.tfds.episode import Row
from envlogger.tfds.features import Feature
from envlogger.tfds.row_compiler import Write
from envlogger.tfds.row_format import RowFormat
from envlogger.tfds.step_log import Layout, Segment
from envlogger.tfds.structure import Path

# Above this, segments that wait to be sealed leave the memory of the process; the kernel keeps them.
# To map them again costs a page fault for each large row, so the ring of an environment with images
# stays: as much as the sealer lets pile up before it publishes a shard.
_RESIDENT_BYTES = 16 << 20
_RESIDENT_BYTES_OF_LARGE_ROWS = 192 << 20
# Streams share that, down to this, which is a few segments for each.
_RESIDENT_BYTES_OF_A_STREAM = 1 << 20
_LARGE_ROW = 4096
# Each takes a file descriptor, here and in the helper, and a process has 1024 as a rule.
_MAX_SEGMENTS = 512


class LogWriter:
    """The writing end of a stream's step log.

    Args:
      directory: The session's directory.
      rows: What the streams of the session have in common.
      stream: Which of them this is.
      num_streams: How many there are: they share the space.
      max_backlog_bytes: How much may wait to be sealed; above that `append` waits.
      wait_for_space: Called while there is too much: returns once something may have been sealed.
      on_roll: Called whenever rows begin to go to another segment.

    Attributes:
      writes: What stores rows that are like earlier ones; to be tried, in order, before `append`.
    """

    def __init__(
        self,
        directory: str,
        rows: RowFormat,
        stream: int,
        num_streams: int,
        max_backlog_bytes: int,
        wait_for_space: Callable[[], None],
        on_roll: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._format = rows
        self._stream = stream
        self._max_backlog_bytes = max_backlog_bytes // num_streams
        self._is_whole = False  # whether an episode is under way that counts only as a whole
        self._max_segments = max(_MAX_SEGMENTS // num_streams, 2)
        self._resident_bytes, self._resident_bytes_of_large_rows = (
            max(size // num_streams, _RESIDENT_BYTES_OF_A_STREAM)
            for size in (_RESIDENT_BYTES, _RESIDENT_BYTES_OF_LARGE_ROWS)
        )
        self._wait_for_space = wait_for_space
        self._segments: collections.deque[Segment] = collections.deque()  # oldest first
        self._num_files = 0
        self._on_roll = on_roll
        # What stores rows of the kinds seen so far, the latest kind first.
        self.writes: list[Write] = []

    @property
    def segment(self) -> Segment | None:
        """The segment that rows go to now; None before the first row."""
        return self._segments[-1] if self._segments else None

    @property
    def num_rows(self) -> int:
        """How many rows the session has."""
        segment = self.segment
        return 0 if segment is None else segment.first_row + segment.count

    def append(self, row: Row, features: dict[Path, Feature], flags: int) -> None:
        """Appends a row. Once this returns, the row survives the death of the process.

        Args:
          row: The row.
          features: The features of all leaves that the session has seen so far, by path.
          flags: Bits of `step_log`: whether it begins an episode, say.

        Raises:
          OSError: There is no space on the disk; the row was not stored, those before it are safe.
        """
        structure_id = self._format.structure_id(row.structures)
        packed = {
            path: step_log.pack_varying(features[path], array)
            for path, array in row.leaves.items()
            if step_log.is_varying(features[path])
        }
        heap_bytes = sum(map(len, packed.values()))
        segment = self._room(features, heap_bytes)
        place = segment.count
        for path, array in row.leaves.items():
            if path in packed:
                # `_room` has seen to it that this fits.
                segment.columns[path][place] = segment.allocate(packed[path])
            else:
                segment.columns[path][place] = array
        record = segment.records
        record["structure"][place] = structure_id
        record["step_type"][place] = row.step_type
        record["flags"][place] = flags
        segment.commit(place + 1)

    def append_whole(self, rows: Iterable[tuple[Row, int]], features: dict[Path, Feature]) -> None:
        """Appends the rows of an episode, with their flags, that counts only as a whole."""
        try:
            for row, flags in rows:
                self.append(row, features, flags)
                # To make space, the first ones would have to be published without the others.
                self._is_whole = True
        finally:
            self._is_whole = False

    def advance(self) -> bool:
        """Moves on to the next segment if this one is full of rows; returns whether it did.

        Raises:
          OSError: There is no space on the disk.
        """
        segment = self.segment
        if segment is None or not segment.is_full:
            return False
        self._roll(0)
        return True

    def compile(self, data: step_data.StepData, row: Row) -> None:
        """Makes a fast way for rows like this one, which has just been appended."""
        segment = self.segment
        assert segment is not None, "a row has been appended"
        self._format.compile(data, self._format.structure_id(row.structures), segment.layout)
        # Another stream may have had such rows first.
        if len(self.writes) < len(self._format.binds[segment.layout.number]):
            self._bind()

    def _bind(self) -> None:
        segment = self.segment
        assert segment is not None, "there is a segment to write to"
        # In place: the writer's loop holds this very list.
        binds = self._format.binds.get(segment.layout.number, ())
        self.writes[:] = [bind(segment) for bind in binds]

    def add_note(self, text: bytes) -> None:
        """Sets the metadata of the episode of the last row.

        Raises:
          OSError: There is no space on the disk.
        """
        segment = self.segment
        assert segment is not None, "an episode has a row before it has metadata"
        row = self.num_rows - 1
        if not (segment.is_open and segment.add_note(row, text)):
            self._roll(len(text))
            assert self.segment is not None
            self.segment.add_note(row, text)

    def end_episode(self) -> None:
        """Says that an episode is complete with the last row."""
        # The sealer leaves the last row where it is until another one follows.
        next(segment for segment in reversed(self._segments) if segment.count).end_episode()

    def sync(self) -> None:
        """Makes all rows survive a loss of power."""
        for segment in self._segments:
            segment.sync()

    def close(self) -> None:
        """Unmaps the segments."""
        self.writes.clear()
        for segment in self._segments:
            segment.close()
        self._segments.clear()

    def _room(self, features: dict[Path, Feature], heap_bytes: int) -> Segment:
        """Returns a segment that has room for a row with such leaves."""
        segment = self.segment
        if segment is None or not row_format.covers(segment.layout, features):
            self._format.cover(features, heap_bytes)
            self._roll(heap_bytes)
        elif not (segment.is_open and segment.has_room(heap_bytes)):
            self._roll(heap_bytes)
        assert self.segment is not None
        return self.segment

    def _roll(self, heap_bytes: int) -> None:
        """Takes another segment into use, with so much room in its heap."""
        rows = self.num_rows
        left, empty, note = self.segment, None, b""
        if left is not None:
            self._leave(left)
            if not left.count:
                # A note is all that went into it; or an exception, Ctrl-C say, came in between. The last
                # row lies in the segment before, and the sealer relies on it that there is none behind
                # that one. The note goes along.
                empty = self._segments.pop()
                note = empty.last_note(rows - 1, rows) or b""
        try:
            heap_per_row = left.heap_used / left.count if left is not None and left.count else 0.0
            layout = self._format.grow(rows, heap_bytes + len(note), heap_per_row)
            segment = self._recycle(layout) or self._create(layout)
            segment.begin(rows)
            if note:
                segment.add_note(rows - 1, note)
        except BaseException:
            if empty is not None:
                self._segments.append(empty)
            raise
        self._segments.append(segment)
        if empty is not None:
            os.unlink(empty.path)
            empty.close()
        self._bind()
        self._on_roll()

    def _leave(self, segment: Segment) -> None:
        """Takes the last segment out of use."""
        # It may be given back from now on; if no other can be had, nothing may go into it.
        self.writes.clear()
        segment.mark_done()
        is_large = segment.layout.row_bytes >= _LARGE_ROW
        if self._backlog() > (
            self._resident_bytes_of_large_rows if is_large else self._resident_bytes
        ):
            segment.release_pages()

    def _recycle(self, layout: Layout) -> Segment | None:
        """Returns a segment whose rows are sealed; drops those of an outdated layout."""
        while self._segments and self._segments[0].is_sealed:
            segment = self._segments.popleft()
            if segment.layout.number == layout.number:
                return segment
            os.unlink(segment.path)
            segment.close()
        return None

    def _create(self, layout: Layout) -> Segment:
        most = self._max_backlog_bytes
        if self._is_whole:
            most = max(most, 2 * step_log.EPISODE_BYTES)
        # The last row always stays in its segment, so there must be room for two.
        while len(self._segments) > 1 and (
            (waiting := self._backlog()) + layout.size > most
            or len(self._segments) >= self._max_segments
        ):
            if not self._format.has_warned:
                self._format.has_warned = True
                warnings.warn(
                    f"{waiting >> 20} MiB of steps wait to be sealed, so step() waits too. The disk or "
                    "the processor is slower than the environment; see max_backlog_bytes.",
                    UserWarning,
                    stacklevel=2,
                )
            self._wait_for_space()
            if (segment := self._recycle(layout)) is not None:
                return segment
        path = step_log.segment_path(self._directory, self._stream, self._num_files)
        self._num_files += 1  # whatever happens, the next one gets another name
        if not self._take_spare(layout, path):
            step_log.reserve(path, layout.size)
        return Segment(path, layout)

    def _take_spare(self, layout: Layout, path: str) -> bool:
        """Takes a file that the helper has made, if there is one."""
        for index in range(step_log.NUM_SPARES):
            with contextlib.suppress(FileNotFoundError):
                os.rename(step_log.spare_path(self._directory, layout, index), path)
                return True
        return False

    def _backlog(self) -> int:
        return sum(segment.layout.size for segment in self._segments)
