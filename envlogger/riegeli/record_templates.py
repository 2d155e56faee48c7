# SPDX-License-Identifier: Apache-2.0
"""Records of a transposed chunk that are alike, made from templates.

The steps of an episode have the same fields, and mostly of the same sizes: then the automaton visits the
same nodes for each. What these make is found out once: a record's bytes, with gaps for the values; then
each gap is filled for all such records at once, from where their values lie in a buffer.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from envlogger.riegeli import varints
from envlogger.riegeli.automaton import Kind, Nodes, Visits
from envlogger.riegeli.records import Records
from envlogger.riegeli.varints import Bytes, Ints

# With more kinds of records than that it takes longer than without templates.
_MAX_GROUPS = 64
# Of all templates together: they are made node by node.
_MAX_NODES = 1 << 17
# Records times buffers.
_MAX_TABLE = 1 << 23
# Values of more bytes are copied one by one.
_LARGE = 2048


class _Gap(NamedTuple):
    """A value in a template.

    Attributes:
      position: Where it is in the record.
      size: How many bytes it has.
      buffer: Where it comes from.
      before: What the record has taken from that buffer before: bytes, or a number of strings.
      is_varint: Whether all bytes but the last lack their high bit there.
    """

    position: int
    size: int
    buffer: int
    before: int
    is_varint: bool


class _Group(NamedTuple):
    """Records that are alike.

    Attributes:
      rows: Their numbers, in the order in which the automaton makes them.
      path: The nodes it visits for each.
      sizes: Those of the strings that differ between records, in the order of the path.
    """

    rows: Ints
    path: list[int]
    sizes: list[int]


class _IrregularError(Exception):
    """There are no templates for this chunk; whether it is damaged is not known."""


def assemble(
    nodes: Nodes, visits: Visits, buffers: Bytes, buffer_sizes: Ints, num_records: int, size: int
) -> Records | None:
    """Returns the records of a chunk; None where they are not alike, or something is wrong.

    Args:
      nodes: The automaton.
      visits: The nodes that were visited, of shape (number of visits,).
      buffers: All of them, joined; uint8 of shape (n,).
      buffer_sizes: int64 of shape (number of buffers,).
      num_records: How many records there are.
      size: How many bytes these have.
    """
    stops = np.flatnonzero((nodes.kind == Kind.RECORD)[visits]) + 1
    if not num_records or len(stops) != num_records or stops[-1] != len(visits):
        return None
    if num_records * len(buffer_sizes) > _MAX_TABLE:
        return None
    try:
        chunk = _Chunk(nodes, buffers, buffer_sizes)
        return chunk.assemble(_group_by_path(visits, stops), num_records, size)
    except _IrregularError:
        return None


class _Chunk:
    def __init__(self, nodes: Nodes, buffers: Bytes, buffer_sizes: Ints) -> None:
        self._kinds = nodes.kind.tolist()
        self._buffer_of = nodes.buffer.tolist()
        self._widths = nodes.width.tolist()
        sizes = np.maximum(nodes.prefix_size, nodes.message_tag_size).tolist()
        self._prefixes = [
            prefix[:length].tobytes() for prefix, length in zip(nodes.prefix, sizes, strict=True)
        ]
        self._buffers = buffers
        self._buffer_sizes = buffer_sizes
        self._begins = np.cumsum(buffer_sizes) - buffer_sizes
        # Of buffers of strings: their size if they have the same, else where each one begins.
        self._string_size: dict[int, int] = {}
        self._string_begins: dict[int, Ints] = {}

    def assemble(self, groups: list[_Group], num_records: int, size: int) -> Records:
        """Returns the records."""
        self._find_strings(groups)
        taken = self._count_taken(groups, num_records)
        if self._string_begins:
            groups = [part for group in groups for part in self._split(group, taken)]
        templates = [self._make_template(group) for group in groups]
        made = zip(groups, templates, strict=True)
        if sum(len(group.rows) * len(template) for group, (template, _) in made) != size:
            raise _IrregularError
        out = np.empty(size, np.uint8)
        begins, ends = np.empty((2, num_records), np.int64)
        position = 0
        for group, (template, gaps) in zip(groups, templates, strict=True):
            shape = len(group.rows), len(template)
            region = out[position : position + shape[0] * shape[1]].reshape(shape)
            done = 0
            for gap in gaps:
                if gap.size > _LARGE:
                    _put(region, done, template[done : gap.position])
                    done = gap.position + gap.size
            _put(region, done, template[done:])
            for gap in gaps:
                self._fill(region, gap, taken[group.rows, gap.buffer] + gap.before)
            begins[group.rows] = position + np.arange(shape[0]) * shape[1]
            ends[group.rows] = begins[group.rows] + shape[1]
            position += shape[0] * shape[1]
        return Records(out, begins[::-1], ends[::-1])

    def _find_strings(self, groups: list[_Group]) -> None:
        """Finds the sizes of all strings."""
        counts: collections.Counter[int] = collections.Counter()
        others = set()
        for group in groups:
            for node in group.path:
                buffer = self._buffer_of[node]
                if self._kinds[node] == Kind.STRING:
                    counts[buffer] += len(group.rows)
                elif buffer >= 0:
                    others.add(buffer)
        if others & counts.keys():
            raise _IrregularError
        for buffer, count in counts.items():
            begin = int(self._begins[buffer])
            content = self._buffers[begin : begin + int(self._buffer_sizes[buffer])]
            try:
                sizes = varints.string_sizes(content, count)
            except ValueError:
                raise _IrregularError from None
            if (sizes == sizes[0]).all():
                self._string_size[buffer] = int(sizes[0])
            else:
                self._string_begins[buffer] = np.append(0, np.cumsum(sizes))

    def _count_taken(self, groups: list[_Group], num_records: int) -> Ints:
        """Returns what is taken from each buffer before each record, in bytes or strings.

        Its shape is (number of records, number of buffers).
        """
        taken = np.zeros((num_records + 1, len(self._buffer_sizes)), np.int64)
        for group in groups:
            by_one = np.zeros(len(self._buffer_sizes), np.int64)
            for node in group.path:
                if (buffer := self._buffer_of[node]) >= 0:
                    by_one[buffer] += self._unit(node, buffer)
            taken[group.rows + 1] = by_one
        np.cumsum(taken, axis=0, out=taken)
        for buffer, count in enumerate(taken[-1].tolist()):
            if buffer not in self._string_begins and count > self._buffer_sizes[buffer]:
                raise _IrregularError
        return taken[:-1]

    def _unit(self, node: int, buffer: int) -> int:
        """Returns what a visit adds to what is taken from its buffer."""
        if self._kinds[node] == Kind.STRING:
            return self._string_size.get(buffer, 1)
        return int(self._widths[node])

    def _split(self, group: _Group, taken: Ints) -> Iterator[_Group]:
        """Yields the parts of a group that have strings of the same sizes."""
        columns = []
        before: collections.Counter[int] = collections.Counter()
        for node in group.path:
            begins = self._string_begins.get(self._buffer_of[node])
            if begins is not None:
                buffer = self._buffer_of[node]
                first = taken[group.rows, buffer] + before[buffer]
                columns.append(begins[first + 1] - begins[first])
                before[buffer] += 1
        if not columns:
            yield group
            return
        for rows, sizes in _alike(group.rows, np.stack(columns, axis=1)):
            yield _Group(rows, group.path, sizes)

    def _make_template(self, group: _Group) -> tuple[bytes, list[_Gap]]:
        """Runs through the path as for one record; returns its bytes, with gaps."""
        pieces = []
        gaps = []
        total = 0
        open_messages: list[tuple[int, bytes]] = []
        before: collections.Counter[int] = collections.Counter()
        sizes = iter(group.sizes)
        for node in group.path:
            kind, prefix, buffer = self._kinds[node], self._prefixes[node], self._buffer_of[node]
            if kind == Kind.SUBMESSAGE_END:
                open_messages.append((total, prefix))
                continue
            if kind == Kind.SUBMESSAGE_START:
                if not open_messages:
                    raise _IrregularError
                end, prefix = open_messages.pop()
                prefix += varints.encode(total - end)
            elif buffer >= 0:
                size = self._unit(node, buffer)
                if buffer in self._string_begins:
                    size = next(sizes)
                gaps.append(_Gap(total + size, size, buffer, before[buffer], kind == Kind.VARINT))
                before[buffer] += self._unit(node, buffer)
                pieces.append(bytes(size))
                total += size
            pieces.append(prefix)
            total += len(prefix)
        if open_messages:
            raise _IrregularError
        # So far, positions were counted from the end.
        gaps = [gap._replace(position=total - gap.position) for gap in reversed(gaps)]
        return b"".join(reversed(pieces)), gaps

    def _fill(self, region: Bytes, gap: _Gap, taken: Ints) -> None:
        if gap.buffer in self._string_begins:
            taken = self._string_begins[gap.buffer][taken]
        sources = taken + self._begins[gap.buffer]
        target = region[:, gap.position : gap.position + gap.size]
        if gap.size > _LARGE:
            for row, source in zip(target, sources.tolist(), strict=True):
                row[:] = self._buffers[source : source + gap.size]
        else:
            target[:] = _windows(self._buffers, gap.size)[sources]
        if gap.is_varint:
            target[:, :-1] |= 0x80


def _group_by_path(visits: Visits, stops: Ints) -> list[_Group]:
    starts = np.append(0, stops[:-1])
    lengths = stops - starts
    groups = []
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        for alike, path in _alike(rows, _windows(visits, length)[starts[rows]]):
            groups.append(_Group(alike, path, []))
            if len(groups) > _MAX_GROUPS:
                raise _IrregularError
    if sum(len(group.path) for group in groups) > _MAX_NODES:
        raise _IrregularError
    return groups


def _alike(rows: Ints, keys: npt.NDArray[Any]) -> Iterator[tuple[Ints, list[int]]]:
    """Yields the rows that have the same keys, with these; keys have the shape (rows, n)."""
    for _ in range(_MAX_GROUPS):
        if not len(rows):
            return
        is_alike = (keys == keys[0]).all(axis=1)
        yield rows[is_alike], keys[0].tolist()
        rows, keys = rows[~is_alike], keys[~is_alike]
    if len(rows):
        raise _IrregularError


def _put(region: Bytes, position: int, content: bytes) -> None:
    """Puts bytes into each row."""
    region[:, position : position + len(content)] = np.frombuffer(content, np.uint8)


def _windows(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Returns the view of all that is `length` long, by where it begins."""
    shape = len(array) - length + 1, length
    return np.ndarray(shape, array.dtype, array, strides=array.strides * 2)
