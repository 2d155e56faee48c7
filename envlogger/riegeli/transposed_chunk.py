# SPDX-License-Identifier: Apache-2.0
"""Transposed chunks: records of protobuf bytes, split into a buffer for each field.

An automaton makes the records again from the end to the beginning: each node that is visited puts
something before what there is, such as a tag and the next four bytes of a buffer. Node by node that
would take Python a microsecond or more; so it is done for all records at once, in whole arrays:

1. which nodes are visited, in order (`automaton`);
2. how many bytes each visit takes from which buffer, and from where;
3. the lengths of the submessages, from the innermost to the outermost;
4. the sum of all these bytes says where each visit's go, and they are copied there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from envlogger import varints
from envlogger.riegeli import automaton, chunk_structure, compression
from envlogger.riegeli.automaton import Kind
from envlogger.riegeli.buffers import Buffers
from envlogger.riegeli.records import Records
from envlogger.varints import Bytes, Ints

# Where bytes are copied all at once, each takes two indices in memory: so many visits at a time.
_AT_ONCE = 1 << 16
# From this size on, strings are copied one by one.
_LONG = 24
# Besides its records, a chunk decompresses to their structure. Real ones stay far below this.
_BUDGET = 1 << 20
_VISITS_BUDGET = 1 << 16
# Protobuf itself stops at 100.
_MAX_DEPTH = 1000


def decode(data: memoryview, num_records: int, decoded_size: int, max_visits: int) -> Records:
    """Returns the records of a transposed chunk.

    Args:
      data: The data of the chunk, as stored.
      num_records: As the header says.
      decoded_size: Likewise.
      max_visits: How many nodes may be visited. It takes about 100 bytes of memory for each.

    Raises:
      ValueError: It is damaged, or does not hold what the header says.
    """
    return decompress(data, num_records, decoded_size, max_visits)()


def decompress(
    data: memoryview, num_records: int, decoded_size: int, max_visits: int
) -> Callable[[], Records]:
    """Does of `decode` what needs no interpreter, as a rule; returns what does the rest.

    Both raise what `decode` does.
    """
    if not len(data):
        raise ValueError("the chunk is empty")
    decompressor = compression.Decompressor(data[0], _BUDGET + 4 * decoded_size + 16 * num_records)
    size, begin = varints.read(data, 1)
    if size > len(data) - begin:
        raise ValueError(f"the header takes {size} bytes; the chunk ends before")
    header = decompressor(data[begin : begin + size])
    bucket_sizes, buffer_sizes, structure = _read_sizes(header)
    buckets, stop = _take(data, begin + size, bucket_sizes)
    buffers = Buffers(decompressor.each(buckets), buffer_sizes)
    transitions = decompressor(data[stop:]).tobytes()
    # Visits of real chunks make a byte at least, or they end a record, or follow a transition.
    likely = _VISITS_BUDGET + 2 * (decoded_size + num_records + len(transitions))
    return functools.partial(
        _assemble,
        structure,
        buffers,
        transitions,
        num_records,
        decoded_size,
        min(max_visits, likely),
    )


def _assemble(
    header: Bytes,
    buffers: Buffers,
    transitions: bytes,
    num_records: int,
    decoded_size: int,
    max_visits: int,
) -> Records:
    structure = chunk_structure.read_structure(header, len(buffers.sizes))
    plan = structure.plan(transitions, max_visits)
    records = structure.assemble(plan, buffers, num_records, decoded_size)
    if records is None:
        assembly = _Assembly(structure.nodes, plan.visits, buffers.join(), buffers.sizes)
        records = assembly.join(num_records, decoded_size)
    return records


def _read_sizes(header: Bytes) -> tuple[Ints, Ints, Bytes]:
    """Returns the sizes of buckets and buffers, and what follows them."""
    num_buckets, position = varints.read(header.data, 0)
    num_buffers, position = varints.read(header.data, position)
    bucket_sizes, position = varints.read_array(header, position, num_buckets)
    buffer_sizes, position = varints.read_array(header, position, num_buffers)
    return bucket_sizes, buffer_sizes, header[position:]


def _take(data: memoryview, position: int, sizes: Ints) -> tuple[list[memoryview], int]:
    """Returns the buckets that begin at a position, and the position behind them."""
    buckets = []
    for size in sizes.tolist():
        if size > len(data) - position:
            raise ValueError(f"a bucket takes {size} bytes; the chunk ends before")
        buckets.append(data[position : position + size])
        position += size
    return buckets, position


class _Assembly:
    """Puts together what the visits make.

    Args:
      nodes: The automaton.
      visits: The nodes that were visited; int32 of shape (number of visits,).
      buffers: All of them, joined; uint8 of shape (n,).
      buffer_sizes: int64 of shape (number of buffers,).
    """

    def __init__(
        self, nodes: automaton.Nodes, visits: automaton.Visits, buffers: Bytes, buffer_sizes: Ints
    ) -> None:
        self._nodes = nodes
        self._visits = visits
        self._kinds = nodes.kind[visits]
        # How many bytes each visit makes.
        self._sizes = nodes.prefix_size[visits]
        self._buffers = buffers
        self._find_values(buffer_sizes)
        self._find_lengths()

    def join(self, num_records: int, decoded_size: int) -> Records:
        """Returns the records."""
        made = np.cumsum(self._sizes)
        total = int(made[-1])
        records = np.flatnonzero((self._kinds == Kind.RECORD) | (self._kinds == Kind.NON_PROTO))
        if len(records) != num_records or total != decoded_size:
            raise ValueError(
                f"got {len(records)} records of {total} bytes, expected {num_records} of "
                f"{decoded_size}"
            )
        bounds = np.append(total - made[records[::-1]], total)
        if bounds[0] != 0:
            raise ValueError("got bytes before the first record")
        begins = total - made
        out = np.empty(total, np.uint8)
        self._put_prefixes(out, begins, self._visits, self._nodes.prefix_size[self._visits])
        self._put_values(out, begins)
        self._put_lengths(out, begins)
        return Records(out, bounds[:-1], bounds[1:])

    # --- values: what visits take from buffers -----------------------------------------------------

    def _find_values(self, buffer_sizes: Ints) -> None:
        """Finds what visits take from buffers: who (ordered by buffer), how much and from where."""
        widths = self._nodes.width[self._visits]
        self._read_non_proto_sizes(widths, buffer_sizes)
        buffer_of = self._nodes.buffer[self._visits]
        takers = np.flatnonzero(buffer_of >= 0)
        order = np.argsort(buffer_of[takers], kind="stable")
        self._takers = takers = takers[order]
        buffer_of = buffer_of[takers]
        widths = widths[takers]
        first = np.searchsorted(buffer_of, np.arange(len(buffer_sizes) + 1))
        ends = np.cumsum(buffer_sizes)
        begins = ends - buffer_sizes
        for buffer in np.unique(buffer_of[widths < 0]).tolist():
            span = slice(first[buffer], first[buffer + 1])
            widths[span] = self._read_string_sizes(widths[span], begins[buffer], ends[buffer])
        before = np.cumsum(widths) - widths
        takes = np.diff(first)
        self._sources = before + np.repeat(begins - np.append(before, 0)[first[:-1]], takes)
        if (self._sources + widths > np.repeat(ends, takes)).any():
            raise ValueError("a buffer ends before its last value")
        self._widths = widths
        self._sizes[takers] += widths

    def _read_non_proto_sizes(self, widths: Ints, buffer_sizes: Ints) -> None:
        """Sets the sizes of records that are no protobuf; they are in the last buffer."""
        non_proto = np.flatnonzero(self._kinds == Kind.NON_PROTO)
        if len(non_proto):
            begin = len(self._buffers) - int(buffer_sizes[-1])
            sizes, _ = varints.read_array(self._buffers, begin, len(non_proto))
            if sizes.max() > len(self._buffers):
                raise ValueError(f"a record of {sizes.max()} bytes is larger than all buffers")
            widths[non_proto] = sizes

    def _read_string_sizes(self, widths: Ints, begin: int, end: int) -> Ints:
        """Returns how many bytes each visit takes from a buffer that has strings.

        Args:
          widths: The same, but negative for strings, which begin with their size.
          begin: Where the buffer begins.
          end: Where it ends.
        """
        buffer = self._buffers[begin:end]
        if (widths < 0).all():
            return varints.string_sizes(buffer, len(widths))
        raw = buffer.data
        found = []
        begin = 0
        for width in widths.tolist():
            if width < 0:
                size, position = varints.read(raw, begin)
                width = position - begin + size
            begin += width
            if begin > len(raw):
                raise ValueError("a buffer ends before its last value")
            found.append(width)
        return np.array(found, np.int64)

    def _put_values(self, out: Bytes, begins: Ints) -> None:
        targets = begins[self._takers] + self._nodes.prefix_size[self._visits[self._takers]]
        long = self._widths > _LONG
        source, target = self._buffers.data, out.data
        for begin, end, to in zip(
            self._sources[long].tolist(),
            (self._sources + self._widths)[long].tolist(),
            targets[long].tolist(),
            strict=True,
        ):
            target[to : to + end - begin] = source[begin:end]
        _copy(out, targets[~long], self._buffers, self._sources[~long], self._widths[~long])
        # Varints lie there without their bits that say that another byte follows.
        is_varint = self._kinds[self._takers] == Kind.VARINT
        targets, widths = targets[is_varint], self._widths[is_varint]
        for i in range(int(widths.max(initial=0)) - 1):
            out[targets[widths > i + 1] + i] |= 0x80

    # --- lengths of submessages ---------------------------------------------------------------------

    def _find_lengths(self) -> None:
        """Finds the length of each submessage; adds what it takes, with its tag, to the sizes."""
        is_end = self._kinds == Kind.SUBMESSAGE_END
        is_start = self._kinds == Kind.SUBMESSAGE_START
        events = np.flatnonzero(is_end | is_start)
        step = np.where(is_end[events], 1, -1)
        depth = np.cumsum(step)
        self._check_nesting(events, depth)
        # An end and the start that belongs to it follow each other among those of their level.
        level = np.maximum(depth, depth - step)
        order = np.argsort(level.astype(np.int16), kind="stable")
        ends, starts = order[::2], order[1::2]
        level = level[ends]
        tag_sizes = self._nodes.message_tag_size[self._visits[events[ends]]]
        first = np.searchsorted(level, np.arange(int(level.max(initial=0)) + 2))

        made = np.cumsum(self._sizes)[events]
        lengths = made[starts] - made[ends]
        added = np.zeros(len(events), np.int64)
        for i in range(len(first) - 2, 0, -1):
            span = slice(first[i], first[i + 1])
            within = np.cumsum(added)
            lengths[span] += within[starts[span]] - within[ends[span]]
            added[starts[span]] = tag_sizes[span] + varints.lengths_of(lengths[span])
        self._sizes[events[starts]] = added[starts]
        self._messages = events[ends], events[starts], lengths

    def _check_nesting(self, events: Ints, depth: Ints) -> None:
        deepest = int(depth.max(initial=0))
        if depth.min(initial=0) < 0 or deepest > _MAX_DEPTH or (len(depth) and depth[-1] != 0):
            raise ValueError(f"submessages do not match, or are nested more than {_MAX_DEPTH} deep")
        records = np.flatnonzero((self._kinds == Kind.RECORD) | (self._kinds == Kind.NON_PROTO))
        before = np.searchsorted(events, records)
        if np.append(0, depth)[before].any():
            raise ValueError("a record begins within a submessage")

    def _put_lengths(self, out: Bytes, begins: Ints) -> None:
        ends, starts, lengths = self._messages
        nodes = self._visits[ends]
        targets = begins[starts]
        tag_sizes = self._nodes.message_tag_size[nodes]
        self._put_prefixes(out, targets, nodes, tag_sizes)
        targets += tag_sizes
        sizes = varints.lengths_of(lengths)
        for i in range(int(sizes.max(initial=0))):
            here = np.flatnonzero(sizes > i)
            follows = (sizes[here] > i + 1) * np.uint8(0x80)
            out[targets[here] + i] = (lengths[here] >> 7 * i & 0x7F).astype(np.uint8) | follows

    def _put_prefixes(
        self, out: Bytes, targets: Ints, visits: npt.NDArray[Any], sizes: Ints
    ) -> None:
        for i in range(int(sizes.max(initial=0))):
            here = np.flatnonzero(sizes > i)
            out[targets[here] + i] = self._nodes.prefix[visits[here], i]


def _copy(out: Bytes, targets: Ints, data: Bytes, sources: Ints, sizes: Ints) -> None:
    """Copies short strings."""
    for i in range(0, len(sizes), _AT_ONCE):
        part = slice(i, i + _AT_ONCE)
        size = sizes[part]
        before = np.cumsum(size) - size
        index = np.arange(int(size.sum()))
        from_source = index + np.repeat(sources[part] - before, size)
        out[index + np.repeat(targets[part] - before, size)] = data[from_source]
