# SPDX-License-Identifier: Apache-2.0
"""Records of transposed chunks that are alike, made from templates.

The steps of an episode have the same fields, and mostly of the same sizes: then the automaton visits the
same nodes for each. What these make is found out once: a record's bytes, with gaps for the values; then
each gap is filled for all such records at once, from where their values lie in a buffer. The chunks of a
log are alike, too: so templates are kept for those that come next.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from envlogger.riegeli import automaton, varints
from envlogger.riegeli.automaton import Kind, Nodes, Visits
from envlogger.riegeli.buffers import Buffers
from envlogger.riegeli.records import Records
from envlogger.riegeli.varints import Bytes, Ints

# With more kinds of records than that it takes longer than without templates,
_MAX_GROUPS = 64
# and if fewer records than that have one that was not known before.
_LEAST_RECORDS = 8
# Of all templates together: they are made node by node.
_MAX_NODES = 1 << 17
_MAX_BUFFERS = 1 << 12
# Records times buffers.
_MAX_TABLE = 1 << 23
# Values of more bytes are copied one by one.
_LARGE = 2048

# So many structures are kept, if they are small, and about so much of what belongs to each.
_KEPT_STRUCTURES = 8
_LARGEST_STRUCTURE = 1 << 15
_KEPT_BYTES = 1 << 20
_LARGEST_KEPT = 1 << 17

# As integers, which take less time to compare.
_SUBMESSAGE_START, _SUBMESSAGE_END, _VARINT, _STRING = map(
    int, (Kind.SUBMESSAGE_START, Kind.SUBMESSAGE_END, Kind.VARINT, Kind.STRING)
)


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


class _Template(NamedTuple):
    """A record with gaps.

    Attributes:
      size: How many bytes it has.
      literals: Positions, and what is there in each record. Only small gaps are within.
      gaps: What is filled in then.
    """

    size: int
    literals: list[tuple[int, Bytes]]
    gaps: list[_Gap]


class _Path:
    """The nodes visited for a record.

    Args:
      nodes: All nodes that there are.
      path: Those that are visited, in order.
      num_buffers: How many buffers there are.

    Attributes:
      path: As passed.
      string_buffers: The buffers of its strings, in order.
      takes: What it takes from each buffer: bytes, or a number of strings; int64 (buffers,).
      has_strings: The buffers that strings are taken from; bool (buffers,).
      has_others: Those that something else is taken from; likewise.
      templates: By the sizes of the strings.
    """

    def __init__(self, nodes: Nodes, path: npt.NDArray[np.int32], num_buffers: int) -> None:
        self.path = path.tolist()
        kinds, buffers = nodes.kind[path], nodes.buffer[path]
        if (kinds == Kind.NON_PROTO).any():
            raise _IrregularError
        is_string = kinds == Kind.STRING
        is_other = (buffers >= 0) & ~is_string
        self.string_buffers: list[int] = buffers[is_string].tolist()
        strings = np.bincount(buffers[is_string], minlength=num_buffers)
        others = np.zeros(num_buffers, np.int64)
        np.add.at(others, buffers[is_other], nodes.width[path[is_other]])
        self.takes = strings + others
        self.has_strings = strings > 0
        self.has_others = others > 0
        self.templates: dict[tuple[int, ...], _Template] = {}


class _Group(NamedTuple):
    """Records that are alike: the way to them, and their numbers in the order they are made in."""

    path: _Path
    rows: Ints


class Plan:
    """What the transitions of a chunk say about its records.

    Args:
      visits: The nodes that are visited, in order.
      groups: The records by their paths; none where there are no templates for them.
      num_buffers: How many buffers there are.

    Attributes:
      visits: As passed.
      groups: As passed.
      taken: What is taken from each buffer before each record, in bytes or strings, and before the end;
        int64 of shape (records + 1, buffers).
      has_strings: The buffers that strings are taken from; bool (buffers,).
      nbytes: About how many bytes of memory it takes.
    """

    def __init__(self, visits: Visits, groups: list[_Group], num_buffers: int) -> None:
        self.visits = visits
        num_records = sum(len(group.rows) for group in groups)
        if num_records * num_buffers > _MAX_TABLE:
            groups, num_records = [], 0
        self.taken = np.zeros((num_records + 1, num_buffers), np.int64)
        self.has_strings = np.zeros(num_buffers, np.bool_)
        has_others = np.zeros(num_buffers, np.bool_)
        for group in groups:
            self.taken[group.rows + 1] = group.path.takes
            self.has_strings |= group.path.has_strings
            has_others |= group.path.has_others
        np.cumsum(self.taken, axis=0, out=self.taken)
        self.groups = [] if (self.has_strings & has_others).any() else groups
        self.nbytes = 2 * visits.nbytes + self.taken.nbytes


class _IrregularError(Exception):
    """There are no templates for this chunk; whether it is damaged is not known."""


class _Part(NamedTuple):
    """Records of one template."""

    path: _Path
    template: _Template
    rows: Ints


class Structure:
    """What chunks with the same nodes have in common.

    Safe to share between threads.

    Args:
      nodes: The nodes.
      visitor: What visits them.
      num_buffers: How many buffers there are.

    Attributes:
      nodes: The nodes.
    """

    def __init__(self, nodes: Nodes, visitor: automaton.Automaton, num_buffers: int) -> None:
        self.nodes = nodes
        self._visitor = visitor
        self._num_buffers = num_buffers
        self._plans: dict[bytes, Plan] = {}
        self._paths: dict[bytes, _Path] = {}
        self._left = _KEPT_BYTES

    def plan(self, transitions: bytes, max_visits: int) -> Plan:
        """Returns what transitions lead to.

        Raises:
          ValueError: There are more than `max_visits` of nodes, or a transition leads nowhere.
        """
        found = self._plans.get(transitions)
        if found is None:
            visits = self._visitor.run(transitions, max_visits)
            try:
                groups = self._group(visits)
            except _IrregularError:
                groups = []
            found = Plan(visits, groups, self._num_buffers)
            size = len(transitions) + found.nbytes
            if found.groups and size <= _LARGEST_KEPT:
                self._make_room(size)
                self._plans[transitions] = found
        elif len(found.visits) > max_visits:
            raise ValueError(f"got {len(found.visits)} visits of nodes, more than {max_visits}")
        return found

    def assemble(self, plan: Plan, buffers: Buffers, num_records: int, size: int) -> Records | None:
        """Returns the records of a chunk; None where they are not alike, or something is wrong.

        Args:
          plan: Of its transitions.
          buffers: Its buffers.
          num_records: How many records there are.
          size: How many bytes these have.
        """
        if not plan.groups or len(plan.taken) != num_records + 1:
            return None
        try:
            chunk = _Chunk(plan, buffers)
            parts = [
                (group.path, sizes, rows)
                for group in plan.groups
                for rows, sizes in chunk.split(group)
            ]
            new = [part[:2] for part in parts if part[1] not in part[0].templates]
            if _are_too_many(new, num_records):
                self._template(*new[0])
                return None
            return chunk.fill(
                [_Part(path, self._template(path, sizes), rows) for path, sizes, rows in parts],
                size,
            )
        except _IrregularError:
            return None

    def _group(self, visits: Visits) -> list[_Group]:
        stops = np.flatnonzero((self.nodes.kind == Kind.RECORD)[visits]) + 1
        if not len(stops) or stops[-1] != len(visits) or self._num_buffers > _MAX_BUFFERS:
            raise _IrregularError
        raw = visits.tobytes()
        rows_of: dict[bytes, list[int]] = {}
        start = 0
        for row, stop in enumerate((stops * visits.itemsize).tolist()):
            rows_of.setdefault(raw[start:stop], []).append(row)
            if len(rows_of) > _MAX_GROUPS:
                raise _IrregularError
            start = stop
        new = [key for key in rows_of if key not in self._paths]
        if _are_too_many(new, len(stops)):
            self._path(new[0])
            raise _IrregularError
        if sum(map(len, rows_of)) > _MAX_NODES * visits.itemsize:
            raise _IrregularError
        return [_Group(self._path(key), np.array(rows)) for key, rows in rows_of.items()]

    def _path(self, key: bytes) -> _Path:
        found = self._paths.get(key)
        if found is None:
            found = _Path(self.nodes, np.frombuffer(key, np.int32), self._num_buffers)
            size = 4 * len(key) + 10 * self._num_buffers
            if size <= _LARGEST_KEPT:
                self._make_room(size)
                self._paths[key] = found
        return found

    def _template(self, path: _Path, sizes: tuple[int, ...]) -> _Template:
        found = path.templates.get(sizes)
        if found is None:
            found = self._make_template(path, sizes)
            size = sum(len(content) for _, content in found.literals) + 200 * len(found.gaps)
            if size <= _LARGEST_KEPT:
                self._make_room(size)
                path.templates[sizes] = found
        return found

    def _make_room(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            self._plans.clear()
            self._paths.clear()
            self._left = _KEPT_BYTES - size

    @functools.cached_property
    def _nodes(self) -> tuple[list[int], list[int], list[int], list[bytes]]:
        """Kinds, buffers, widths and prefixes of the nodes: lists take less time, one by one."""
        nodes = self.nodes
        sizes = np.maximum(nodes.prefix_size, nodes.message_tag_size).tolist()
        raw = nodes.prefix.tobytes()
        width = nodes.prefix.shape[1]
        prefixes = [raw[i * width : i * width + size] for i, size in enumerate(sizes)]
        return nodes.kind.tolist(), nodes.buffer.tolist(), nodes.width.tolist(), prefixes

    def _make_template(self, path: _Path, sizes: tuple[int, ...]) -> _Template:
        """Runs through the path as for one record, from its end to its begin."""
        kinds, buffers, widths, prefixes = self._nodes
        string_sizes = iter(sizes)
        before: collections.Counter[int] = collections.Counter()
        pieces: list[bytes] = []
        # So far, positions are counted from the end.
        literals: list[tuple[int, bytes]] = []
        gaps: list[_Gap] = []
        open_messages: list[tuple[int, bytes]] = []
        total = 0
        for node in path.path:
            kind, prefix, buffer = kinds[node], prefixes[node], buffers[node]
            if kind == _SUBMESSAGE_END:
                open_messages.append((total, prefix))
                continue
            if kind == _SUBMESSAGE_START:
                if not open_messages:
                    raise _IrregularError
                end, prefix = open_messages.pop()
                prefix += varints.encode(total - end)
            elif buffer >= 0:
                size = next(string_sizes) if kind == _STRING else widths[node]
                if size > _LARGE:
                    literals.append((total, b"".join(reversed(pieces))))
                    pieces = []
                else:
                    pieces.append(bytes(size))
                total += size
                gaps.append(_Gap(total, size, buffer, before[buffer], kind == _VARINT))
                before[buffer] += 1 if kind == _STRING else size
            pieces.append(prefix)
            total += len(prefix)
        if open_messages:
            raise _IrregularError
        literals.append((total, b"".join(reversed(pieces))))
        return _Template(
            total,
            [(total - at, np.frombuffer(content, np.uint8)) for at, content in literals],
            [gap._replace(position=total - gap.position) for gap in gaps],
        )


class _Chunk:
    """Makes the records of one chunk."""

    def __init__(self, plan: Plan, buffers: Buffers) -> None:
        self._contents = buffers.contents
        self._taken = plan.taken
        if (plan.taken[-1] > buffers.sizes)[~plan.has_strings].any():
            raise _IrregularError
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
            raise _IrregularError from None

    def split(self, group: _Group) -> Iterator[tuple[Ints, tuple[int, ...]]]:
        """Yields the parts of a group that have strings of the same sizes, and these sizes."""
        buffers = group.path.string_buffers
        sizes = [self._string_size.get(buffer, -1) for buffer in buffers]
        if -1 not in sizes:
            yield group.rows, tuple(sizes)
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
            yield rows, tuple(alike)

    def fill(self, parts: list[_Part], size: int) -> Records:
        """Returns the records; those of one part are side by side."""
        if sum(len(part.rows) * part.template.size for part in parts) != size:
            raise _IrregularError
        out = np.empty(size, np.uint8)
        begins, ends = np.empty((2, len(self._taken) - 1), np.int64)
        position = 0
        for part in parts:
            length = part.template.size
            stop = position + len(part.rows) * length
            region = out[position:stop].reshape(len(part.rows), length)
            for at, content in part.template.literals:
                region[:, at : at + len(content)] = content
            self._fill_gaps(region, part)
            begins[part.rows] = position + np.arange(len(part.rows)) * length
            ends[part.rows] = begins[part.rows] + length
            position = stop
        return Records(out, begins[::-1], ends[::-1])

    def _fill_gaps(self, region: Bytes, part: _Part) -> None:
        count = len(part.rows)
        taken = self._taken[part.rows]
        follow_each_other = part.rows.item(-1) - part.rows.item(0) == count - 1
        for gap in part.template.gaps:
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


def read_structure(data: Bytes, num_buffers: int) -> Structure:
    """Reads what follows the sizes in the header of a chunk; what was read before is found again.

    Args:
      data: uint8 of shape (n,).
      num_buffers: How many buffers there are.

    Raises:
      ValueError: It is damaged.
    """
    raw = data.tobytes()
    read = _read_structure if len(raw) <= _LARGEST_STRUCTURE else _read_structure.__wrapped__
    return read(raw, num_buffers)


@functools.lru_cache(_KEPT_STRUCTURES)
def _read_structure(raw: bytes, num_buffers: int) -> Structure:
    nodes, visitor, stop = automaton.read(np.frombuffer(raw, np.uint8), 0, num_buffers)
    if stop != len(raw):
        raise ValueError("the header goes on behind its end")
    return Structure(nodes, visitor, num_buffers)


def _are_too_many(new: Sequence[Any], num_records: int) -> bool:
    """Returns whether making so many new paths or templates takes longer than it saves.

    One of them is made nevertheless: so all are known in time, where chunks are few records.
    """
    return len(new) > max(1, num_records // _LEAST_RECORDS)


def _gather(target: Bytes, content: Bytes, sources: Ints) -> None:
    """Copies to each row of `target` the bytes at a position of `content`."""
    size = target.shape[1]
    if size > _LARGE:
        for row, source in zip(target, sources.tolist(), strict=True):
            row[:] = content[source : source + size]
    else:
        windows = np.ndarray((len(content) - size + 1, size), np.uint8, content, strides=(1, 1))
        target[:] = windows[sources]


def _alike(rows: Ints, keys: Ints) -> Iterator[tuple[Ints, list[int]]]:
    """Yields the rows that have the same keys, with these; keys have the shape (rows, n)."""
    for _ in range(_MAX_GROUPS):
        if not len(rows):
            return
        is_alike = (keys == keys[0]).all(axis=1)
        yield rows[is_alike], keys[0].tolist()
        rows, keys = rows[~is_alike], keys[~is_alike]
    if len(rows):
        raise _IrregularError
