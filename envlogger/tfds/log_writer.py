# SPDX-License-Identifier: Apache-2.0
"""Appends rows to a session's step log."""

from __future__ import annotations

import collections
import contextlib
import os
import warnings
from collections.abc import Callable

from envlogger import errors, step_data
from envlogger.tfds import row_compiler, step_log
from envlogger.tfds.episode import Row
from envlogger.tfds.features import Feature
from envlogger.tfds.row_compiler import Bind, Write
from envlogger.tfds.session import Journal
from envlogger.tfds.step_log import Layout, Segment
from envlogger.tfds.structure import Path, Structure

# A program logs few kinds of structures; one that makes a new one at each step, by keys that count
# up, say, would have each step pay for all before it.
_MAX_STRUCTURES = 4096
# The first steps of a run show what its rows hold; the segments before that are made small.
_FIRST_ROWS = 16
_MAX_ROWS = 1 << 16
# Above this, segments that wait to be sealed leave the memory of the process; the kernel keeps them.
# To map them again costs a page fault for each large row, so the ring of an environment with images
# stays: as much as the sealer lets pile up before it publishes a shard.
_RESIDENT_BYTES = 16 << 20
_RESIDENT_BYTES_OF_LARGE_ROWS = 192 << 20
_LARGE_ROW = 4096
# A row is tried against each; beyond a few, the general path is as fast.
_MAX_COMPILED = 8


class LogWriter:
    """The writing end of a step log.

    Args:
      directory: The session's directory.
      journal: The session's journal, with its options.
      max_backlog_bytes: How much may wait to be sealed; above that `append` waits.
      wait_for_space: Called while there is too much: returns once something may have been sealed.
      on_roll: Called whenever rows begin to go to another segment.

    Attributes:
      writes: What stores rows that are like earlier ones; to be tried, in order, before `append`.
    """

    def __init__(
        self,
        directory: str,
        journal: Journal,
        max_backlog_bytes: int,
        wait_for_space: Callable[[], None],
        on_roll: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._journal = journal
        self._max_backlog_bytes = max_backlog_bytes
        self._wait_for_space = wait_for_space
        self._structure_ids: dict[str, int] = {}
        self._segments: collections.deque[Segment] = collections.deque()  # oldest first
        self._num_files = 0
        self._grown = -1  # the number of the layout that has room for as many rows as is sensible
        self._has_warned = False
        self._on_roll = on_roll
        self._binds: list[Bind] = []
        self._compiled: set[tuple[int, int]] = set()
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

    def structure_id(self, structures: tuple[Structure, ...]) -> int:
        """Returns the number by which rows name a structure.

        Raises:
          ValueMismatchError: There are too many different structures.
        """
        key = repr(structures)
        if key not in self._structure_ids:
            if len(self._structure_ids) == _MAX_STRUCTURES:
                raise errors.ValueMismatchError(
                    f"Got {_MAX_STRUCTURES + 1} different nestings of steps in one run, expected a "
                    "few. Are there keys that change at each step? Make them values."
                )
            self._journal.add_structure(structures)
            self._structure_ids[key] = len(self._structure_ids)
        return self._structure_ids[key]

    def append(self, row: Row, features: dict[Path, Feature], flags: int) -> None:
        """Appends a row. Once this returns, the row survives the death of the process.

        Args:
          row: The row.
          features: The features of all leaves that the session has seen so far, by path.
          flags: Bits of `step_log`: whether it begins an episode, say.

        Raises:
          OSError: There is no space on the disk; the row was not stored, those before it are safe.
        """
        structure_id = self.structure_id(row.structures)
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

    def advance(self) -> bool:
        """Moves on to the next segment if this one is full of rows; returns whether it did.

        Raises:
          OSError: There is no space on the disk.
        """
        segment = self.segment
        if segment is None or not segment.is_full:
            return False
        self._roll(segment.layout, 0)
        return True

    def compile(self, data: step_data.StepData, row: Row) -> None:
        """Makes a fast way for rows like this one, which has just been appended."""
        segment = self.segment
        assert segment is not None, "a row has been appended"
        structure_id = self.structure_id(row.structures)
        key = (segment.layout.number, structure_id)
        if key in self._compiled or len(self._binds) >= _MAX_COMPILED:
            return
        self._compiled.add(key)
        bind = row_compiler.compile_row(data, structure_id, segment.layout)
        if bind is not None:
            # Of all rows, the first ones of episodes are the fewest.
            self._binds.insert(len(self._binds) if data.timestep.first() else 0, bind)
            self._bind()

    def _bind(self) -> None:
        segment = self.segment
        assert segment is not None, "there is a segment to write to"
        # In place: the writer's loop holds this very list.
        self.writes[:] = [bind(segment) for bind in self._binds]

    def add_note(self, text: bytes) -> None:
        """Sets the metadata of the episode of the last row.

        Raises:
          OSError: There is no space on the disk.
        """
        segment = self.segment
        assert segment is not None, "an episode has a row before it has metadata"
        row = self.num_rows - 1
        if not (segment.is_open and segment.add_note(row, text)):
            self._roll(segment.layout, len(text))
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
        self._binds.clear()
        for segment in self._segments:
            segment.close()
        self._segments.clear()

    def _room(self, features: dict[Path, Feature], heap_bytes: int) -> Segment:
        """Returns a segment that has room for a row with such leaves."""
        segment = self.segment
        layout = None if segment is None else segment.layout
        if layout is None or not _covers(layout, features):
            rows = _FIRST_ROWS if layout is None or layout.number < 2 else _MAX_ROWS
            leaves = tuple(features.values())
            layout = step_log.make_layout(self._next_number, leaves, rows, heap_bytes)
            self._journal.add_layout(layout)
            self._binds.clear()
            self._roll(layout, heap_bytes)
        elif segment is not None and not (segment.is_open and segment.has_room(heap_bytes)):
            self._roll(layout, heap_bytes)
        assert self.segment is not None
        return self.segment

    @property
    def _next_number(self) -> int:
        """The number of the next layout; one that was never used keeps its number, too."""
        return len(self._journal.layouts)

    def _roll(self, layout: Layout, heap_bytes: int) -> None:
        rows = self.num_rows
        if self.segment is not None:
            self._leave(self.segment)
        is_small = layout.number != self._grown and rows >= _FIRST_ROWS
        if is_small or heap_bytes > layout.heap_bytes:
            heap = max(heap_bytes, layout.heap_bytes // 2)
            grown = step_log.make_layout(self._next_number, layout.features, _MAX_ROWS, heap)
            if (grown.capacity, grown.heap_bytes) != (layout.capacity, layout.heap_bytes):
                self._journal.add_layout(grown)
                self._binds.clear()
                layout = grown
            self._grown = layout.number
        segment = self._recycle(layout) or self._create(layout)
        segment.begin(rows)
        self._segments.append(segment)
        self._bind()
        self._on_roll()

    def _leave(self, segment: Segment) -> None:
        """Takes the last segment out of use."""
        # It may be given back from now on; if no other can be had, nothing may go into it.
        self.writes.clear()
        segment.mark_done()
        if not segment.count:
            # An exception, Ctrl-C say, came in between. The last row lies in the segment before, and the
            # sealer relies on it that there is none behind that one.
            self._segments.pop()
            os.unlink(segment.path)
            segment.close()
            return
        is_large = segment.layout.row_bytes >= _LARGE_ROW
        if self._backlog() > (_RESIDENT_BYTES_OF_LARGE_ROWS if is_large else _RESIDENT_BYTES):
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
        # The last row always stays in its segment, so there must be room for two.
        while (
            len(self._segments) > 1
            and (waiting := self._backlog()) + layout.size > self._max_backlog_bytes
        ):
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"{waiting >> 20} MiB of steps wait to be sealed, so step() waits too. The disk or "
                    "the processor is slower than the environment; see max_backlog_bytes.",
                    UserWarning,
                    stacklevel=2,
                )
            self._wait_for_space()
            if (segment := self._recycle(layout)) is not None:
                return segment
        path = os.path.join(self._directory, f"segment-{self._num_files}")
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


def _covers(layout: Layout, features: dict[Path, Feature]) -> bool:
    """Whether a layout has all the leaves, as they are now."""
    known = {feature.path: feature for feature in layout.features}
    return all(known.get(path) == feature for path, feature in features.items())
