# SPDX-License-Identifier: Apache-2.0
"""How the rows of a session lie in its step log: what its streams have in common."""

from __future__ import annotations

from envlogger import errors, step_data
from envlogger.tfds import row_compiler, step_log
from envlogger.tfds.features import Feature
from envlogger.tfds.row_compiler import Bind
from envlogger.tfds.session import Journal
from envlogger.tfds.step_log import Layout
from envlogger.tfds.structure import Path, Structure

# A program logs few kinds of structures; one that makes a new one at each step, by keys that count
# up, say, would have each step pay for all before it.
_MAX_STRUCTURES = 4096
# The first steps of a run show what its rows hold; the segments before that are made small.
FIRST_ROWS = 16
_MAX_ROWS = 1 << 16
# A row is tried against each; beyond a few, the general path is as fast.
_MAX_COMPILED = 8


class RowFormat:
    """The structures and layouts of a session, and what stores rows of a structure in a layout.

    Args:
      journal: The session's journal, with its options.
      num_streams: How many streams share the session.

    Attributes:
      layout: The newest layout, which has all leaves seen so far; None before the first row.
      binds: From the number of a layout to what stores rows in its segments, in the order in which to
        try it.
      has_warned: Whether it was said that the streams wait to be sealed.
    """

    def __init__(self, journal: Journal, num_streams: int) -> None:
        self._journal = journal
        self._num_streams = num_streams
        self._structure_ids: dict[str, int] = {}
        self._grown = -1  # the number of the layout that has room for as many rows as is sensible
        self._compiled: set[tuple[int, int]] = set()
        self.layout: Layout | None = None
        self.binds: dict[int, list[Bind]] = {}
        self.has_warned = False

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

    def cover(self, features: dict[Path, Feature], heap_bytes: int) -> None:
        """Makes a layout that has such leaves, unless the newest one has them."""
        if self.layout is None or not covers(self.layout, features):
            max_rows = FIRST_ROWS if self._next_number < 3 else _MAX_ROWS
            self._add(tuple(features.values()), max_rows, heap_bytes)

    def grow(self, num_rows: int, heap_bytes: int, heap_per_row: float = 0.0) -> Layout:
        """Returns the layout for a stream's next segment.

        Args:
          num_rows: How many rows the stream has.
          heap_bytes: How much of the heap the next row or note needs.
          heap_per_row: How much the rows before took, with their notes: where that is much, a larger
            heap keeps segments from being left with most of their rows free.
        """
        layout = self.layout
        assert layout is not None, "there was a row, or there is one to come"
        is_small = layout.number != self._grown and num_rows >= FIRST_ROWS
        usual = min(int(heap_per_row * layout.capacity), step_log.segment_bytes(self._num_streams))
        if is_small or max(heap_bytes, usual // 2) > layout.heap_bytes:
            heap = max(heap_bytes, usual // 2, layout.heap_bytes // 2)
            layout = self._add(layout.features, _MAX_ROWS, heap)
            self._grown = layout.number
        return layout

    def compile(self, data: step_data.StepData, structure_id: int, layout: Layout) -> None:
        """Makes a fast way for rows of a structure in segments of a layout."""
        key = (layout.number, structure_id)
        binds = self.binds.setdefault(layout.number, [])
        if key in self._compiled or len(binds) >= _MAX_COMPILED:
            return
        self._compiled.add(key)
        bind = row_compiler.compile_row(data, structure_id, layout)
        if bind is not None:
            # Of all rows, the first ones of episodes are the fewest.
            binds.insert(len(binds) if data.timestep.first() else 0, bind)

    @property
    def _next_number(self) -> int:
        """The number of the next layout; one that was never used keeps its number, too."""
        return len(self._journal.layouts)

    def _add(self, features: tuple[Feature, ...], max_rows: int, heap_bytes: int) -> Layout:
        """Makes a layout the newest one, unless it would be just like that."""
        new = step_log.make_layout(
            self._next_number, features, max_rows, heap_bytes, self._num_streams
        )
        old = self.layout
        if old is not None and (old.features, old.capacity, old.heap_bytes) == (
            new.features,
            new.capacity,
            new.heap_bytes,
        ):
            return old
        self._journal.add_layout(new)
        self.layout = new
        return new


def covers(layout: Layout, features: dict[Path, Feature]) -> bool:
    """Whether a layout has all the leaves, as they are now."""
    known = {feature.path: feature for feature in layout.features}
    return all(known.get(path) == feature for path, feature in features.items())
