# SPDX-License-Identifier: Apache-2.0
"""Templates of records of transposed chunks.

The steps of an episode have the same fields, and mostly of the same sizes: then the automaton visits the
same nodes for each. What these make is found out once: a record's bytes, with gaps for the values.
"""

from __future__ import annotations

import collections
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from envlogger import varints
from envlogger.riegeli.automaton import Kind, Nodes, Visits
from envlogger.varints import Bytes, Ints

# Values of more bytes are copied one by one.
LARGE = 2048
# Records times buffers.
_MAX_TABLE = 1 << 23

# As integers, which take less time to compare.
_SUBMESSAGE_START, _SUBMESSAGE_END, _VARINT, _STRING = map(
    int, (Kind.SUBMESSAGE_START, Kind.SUBMESSAGE_END, Kind.VARINT, Kind.STRING)
)


class IrregularError(Exception):
    """There are no templates for this chunk; whether it is damaged is not known."""


class Gap(NamedTuple):
    """A value in a template.

    Attributes:
      position: Where it is in the record.
      size: How many bytes it has.
      buffer: Where it comes from.
      before: What the record has taken from that buffer before: bytes, or a number of strings.
      is_string: Whether it is a string, with its size.
      is_varint: Whether all bytes but the last lack their high bit there.
    """

    position: int
    size: int
    buffer: int
    before: int
    is_string: bool
    is_varint: bool


class Template(NamedTuple):
    """A record with gaps.

    Attributes:
      size: How many bytes it has.
      literals: Positions, and what is there in each record. Only small gaps are within.
      gaps: What is filled in then.
    """

    size: int
    literals: list[tuple[int, Bytes]]
    gaps: list[Gap]


class Path:
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
            raise IrregularError
        is_string = kinds == Kind.STRING
        is_other = (buffers >= 0) & ~is_string
        self.string_buffers: list[int] = buffers[is_string].tolist()
        strings = np.bincount(buffers[is_string], minlength=num_buffers)
        others = np.zeros(num_buffers, np.int64)
        np.add.at(others, buffers[is_other], nodes.width[path[is_other]])
        self.takes = strings + others
        self.has_strings = strings > 0
        self.has_others = others > 0
        self.templates: dict[tuple[int, ...], Template] = {}


class Group(NamedTuple):
    """Records that are alike: the way to them, and their numbers in the order they are made in."""

    path: Path
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

    def __init__(self, visits: Visits, groups: list[Group], num_buffers: int) -> None:
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


class Maker:
    """Makes templates.

    Args:
      nodes: The nodes of the automaton.
    """

    def __init__(self, nodes: Nodes) -> None:
        # One by one, the items of lists take less time.
        self._kinds = nodes.kind.tolist()
        self._buffers = nodes.buffer.tolist()
        self._widths = nodes.width.tolist()
        sizes = np.maximum(nodes.prefix_size, nodes.message_tag_size).tolist()
        raw, width = nodes.prefix.tobytes(), nodes.prefix.shape[1]
        self._prefixes = [raw[i * width : i * width + size] for i, size in enumerate(sizes)]

    def make(self, path: list[int], sizes: tuple[int, ...]) -> Template:
        """Runs through a path as for one record, from its end to its begin.

        Args:
          path: The nodes that are visited.
          sizes: Those of the strings, in this order.

        Raises:
          IrregularError: The submessages do not match.
        """
        kinds, buffers = self._kinds, self._buffers
        widths, prefixes = self._widths, self._prefixes
        string_sizes = iter(sizes)
        before: collections.Counter[int] = collections.Counter()
        pieces: list[bytes] = []
        # So far, positions are counted from the end.
        literals: list[tuple[int, bytes]] = []
        gaps: list[Gap] = []
        open_messages: list[tuple[int, bytes]] = []
        total = 0
        for node in path:
            kind, prefix, buffer = kinds[node], prefixes[node], buffers[node]
            if kind == _SUBMESSAGE_END:
                open_messages.append((total, prefix))
                continue
            if kind == _SUBMESSAGE_START:
                if not open_messages:
                    raise IrregularError
                end, prefix = open_messages.pop()
                prefix += varints.encode(total - end)
            elif buffer >= 0:
                size = next(string_sizes) if kind == _STRING else widths[node]
                if size > LARGE:
                    literals.append((total, b"".join(reversed(pieces))))
                    pieces = []
                else:
                    pieces.append(bytes(size))
                total += size
                is_string = kind == _STRING
                gaps.append(Gap(total, size, buffer, before[buffer], is_string, kind == _VARINT))
                before[buffer] += 1 if is_string else size
            pieces.append(prefix)
            total += len(prefix)
        if open_messages:
            raise IrregularError
        literals.append((total, b"".join(reversed(pieces))))
        return Template(
            total,
            [(total - at, np.frombuffer(content, np.uint8)) for at, content in literals],
            [gap._replace(position=total - gap.position) for gap in gaps],
        )
