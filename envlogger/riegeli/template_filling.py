# SPDX-License-Identifier: Apache-2.0
"""Fills templates with values, from where they lie in the buffers of a chunk.

Of many records, each gap is filled for all at once.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from envlogger import varints
from envlogger.riegeli.buffers import Buffers
from envlogger.riegeli.record_templates import LARGE, Group, IrregularError, Path, Plan, Template
from envlogger.riegeli.records import Records
from envlogger.varints import Bytes, Ints

# With more kinds of records than that it takes longer than without templates.
MAX_GROUPS = 64


class Part(NamedTuple):
    """Records of one template: their path, the sizes of its strings, and their numbers."""

    path: Path
    sizes: tuple[int, ...]
    rows: Ints


class Many:
    """Makes the records of one chunk, many at once.

    Args:
      plan: Of its transitions.
      buffers: Its buffers.

    Raises:
      IrregularError: There are no templates for them, or something is wrong.
    """

    def __init__(self, plan: Plan, buffers: Buffers) -> None:
        self._contents = buffers.contents
        self._groups = plan.groups
        self._taken = plan.taken
        if (plan.taken[-1] > buffers.sizes)[~plan.has_strings].any():
            raise IrregularError
        # Of buffers of strings: their size if they have the same, else where each one begins.
        self._string_size: dict[int, int] = {}
        self._string_begins: dict[int, Ints] = {}
        for buffer in np.flatnonzero(plan.has_strings).tolist():
            self._find_strings(buffer, plan.taken.item(-1, buffer))

    def _find_strings(self, buffer: int, count: int) -> None:
        content = self._contents[buffer]
        try:
            if size := varints.common_string_size(content, count):
                self._string_size[buffer] = size
            else:
                sizes = varints.string_sizes(content, count)
                self._string_begins[buffer] = np.append(0, np.cumsum(sizes))
        except ValueError:
            raise IrregularError from None

    def parts(self) -> list[Part]:
        """Returns which records have one template.

        Raises:
          IrregularError: There are too many.
        """
        return [part for group in self._groups for part in self._split(group)]

    def _split(self, group: Group) -> Iterator[Part]:
        buffers = group.path.string_buffers
        sizes = [self._string_size.get(buffer, -1) for buffer in buffers]
        if -1 not in sizes:
            yield Part(group.path, tuple(sizes), group.rows)
            return
        columns = np.empty((len(buffers), len(group.rows)), np.int64)
        before: collections.Counter[int] = collections.Counter()
        for column, buffer, size in zip(columns, buffers, sizes, strict=True):
            if size < 0:
                begins = self._string_begins[buffer]
                first = self._taken[group.rows, buffer] + before[buffer]
                column[:] = begins[first + 1] - begins[first]
                before[buffer] += 1
            else:
                column[:] = size
        for rows, alike in _alike(group.rows, columns.T):
            yield Part(group.path, tuple(alike), rows)

    def fill(self, parts: list[Part], templates: list[Template], size: int) -> Records:
        """Returns the records; those of one part are side by side.

        Args:
          parts: From `parts`.
          templates: That of each part.
          size: How many bytes all records have.

        Raises:
          IrregularError: They have not.
        """
        _check_size(parts, templates, size)
        out = np.empty(size, np.uint8)
        begins, ends = np.empty((2, len(self._taken) - 1), np.int64)
        position = 0
        for part, template in zip(parts, templates, strict=True):
            length = template.size
            stop = position + len(part.rows) * length
            region = out[position:stop].reshape(len(part.rows), length)
            for at, content in template.literals:
                region[:, at : at + len(content)] = content
            self._fill_gaps(region, part, template)
            begins[part.rows] = position + np.arange(len(part.rows)) * length
            ends[part.rows] = begins[part.rows] + length
            position = stop
        return Records(out, begins[::-1], ends[::-1])

    def _fill_gaps(self, region: Bytes, part: Part, template: Template) -> None:
        count = len(part.rows)
        taken = self._taken[part.rows]
        follow_each_other = part.rows.item(-1) - part.rows.item(0) == count - 1
        for gap in template.gaps:
            content = self._contents[gap.buffer]
            begins = self._string_begins.get(gap.buffer)
            unit = self._string_size.get(gap.buffer, 1)
            target = region[:, gap.position : gap.position + gap.size]
            if begins is None and follow_each_other:
                # Then the values lie at equal distances.
                first = (taken.item(0, gap.buffer) + gap.before) * unit
                step = part.path.takes.item(gap.buffer) * unit
                target[:] = np.ndarray((count, gap.size), np.uint8, content, first, (step, 1))
            else:
                numbers = taken[:, gap.buffer] + gap.before
                sources = numbers * unit if begins is None else begins[numbers]
                _gather(target, content, sources)
            if gap.is_varint:
                target[:, :-1] |= 0x80


class Few:
    """Makes the records of one chunk, one after the other; has the methods of `Many`.

    Args:
      plan: Of its transitions.
      buffers: Its buffers.
    """

    def __init__(self, plan: Plan, buffers: Buffers) -> None:
        self._contents = [content.data for content in buffers.contents]
        self._groups = plan.groups
        # Where the strings of each record begin.
        self._starts: list[list[int]] = []

    def parts(self) -> list[Part]:
        """Returns each record, in the order in which the automaton makes them.

        Raises:
          IrregularError: A buffer ends before its last string.
        """
        path_of = {row: group.path for group in self._groups for row in group.rows.tolist()}
        taken = [0] * len(self._contents)
        parts = []
        for row in range(len(path_of)):
            starts = []
            sizes = []
            for buffer in path_of[row].string_buffers:
                start, content = taken[buffer], self._contents[buffer]
                try:
                    size, begin = varints.read(content, start)
                except ValueError:
                    raise IrregularError from None
                taken[buffer] = begin + size
                if begin + size > len(content):
                    raise IrregularError
                starts.append(start)
                sizes.append(begin + size - start)
            self._starts.append(starts)
            parts.append(Part(path_of[row], tuple(sizes), np.array([row])))
        return parts

    def fill(self, parts: list[Part], templates: list[Template], size: int) -> Records:
        """Returns the records, as `Many.fill`."""
        _check_size(parts, templates, size)
        out = np.empty(size, np.uint8)
        taken = [0] * len(self._contents)
        ends = np.cumsum([template.size for template in templates])
        for starts, template, end in zip(self._starts, templates, ends.tolist(), strict=True):
            record = out[end - template.size : end]
            for at, literal in template.literals:
                record[at : at + len(literal)] = literal
            sources = iter(starts)
            raw = record.data
            for gap in template.gaps:
                content = self._contents[gap.buffer]
                if gap.is_string:
                    source = next(sources)
                else:
                    source = taken[gap.buffer]
                    taken[gap.buffer] = source + gap.size
                    if source + gap.size > len(content):
                        raise IrregularError
                raw[gap.position : gap.position + gap.size] = content[source : source + gap.size]
                if gap.is_varint:
                    record[gap.position : gap.position + gap.size - 1] |= 0x80
        begins = ends - [template.size for template in templates]
        return Records(out, begins[::-1], ends[::-1])


def _check_size(parts: list[Part], templates: list[Template], size: int) -> None:
    made = zip(parts, templates, strict=True)
    if sum(len(part.rows) * template.size for part, template in made) != size:
        raise IrregularError


def _gather(target: Bytes, content: Bytes, sources: Ints) -> None:
    """Copies to each row of `target` the bytes at a position of `content`."""
    size = target.shape[1]
    if size > LARGE:
        for row, source in zip(target, sources.tolist(), strict=True):
            row[:] = content[source : source + size]
    else:
        windows = np.ndarray((len(content) - size + 1, size), np.uint8, content, strides=(1, 1))
        target[:] = windows[sources]


def _alike(rows: Ints, keys: Ints) -> Iterator[tuple[Ints, list[int]]]:
    """Yields the rows that have the same keys, with these; keys have the shape (rows, n)."""
    for _ in range(MAX_GROUPS):
        if not len(rows):
            return
        is_alike = (keys == keys[0]).all(axis=1)
        yield rows[is_alike], keys[0].tolist()
        rows, keys = rows[~is_alike], keys[~is_alike]
    if len(rows):
        raise IrregularError
