# SPDX-License-Identifier: Apache-2.0
"""What transposed chunks of the same nodes have in common.

The chunks of a log are alike: what the transitions of one lead to, and the templates of its records, are
kept for those that come next.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import numpy as np

from envlogger.riegeli import automaton, record_templates, template_filling
from envlogger.riegeli.automaton import Kind, Nodes, Visits
from envlogger.riegeli.buffers import Buffers
from envlogger.riegeli.record_templates import Group, IrregularError, Path, Plan, Template
from envlogger.riegeli.records import Records
from envlogger.varints import Bytes

# With fewer records than that for one that was not known before it takes longer than without templates.
_LEAST_RECORDS = 8
# So many are made one by one faster.
_FEW_RECORDS = 8
# Of all templates together: they are made node by node.
_MAX_NODES = 1 << 17
_MAX_BUFFERS = 1 << 12
# More are so small that it takes longer.
_MAX_RECORDS = 1 << 17

# So many structures are kept, if they are small, and about so much of what belongs to each.
_KEPT_STRUCTURES = 8
_LARGEST_STRUCTURE = 1 << 15
_KEPT_BYTES = 1 << 20
_LARGEST_KEPT = 1 << 17


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
        self._paths: dict[bytes, Path] = {}
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
            except IrregularError:
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
            way = template_filling.Few if num_records <= _FEW_RECORDS else template_filling.Many
            chunk = way(plan, buffers)
            parts = chunk.parts()
            new = {part[:2] for part in parts if part.sizes not in part.path.templates}
            if _are_too_many(new, num_records):
                self._template(*new.pop())
                return None
            templates = [self._template(part.path, part.sizes) for part in parts]
            return chunk.fill(parts, templates, size)
        except IrregularError:
            return None

    def _group(self, visits: Visits) -> list[Group]:
        stops = np.flatnonzero((self.nodes.kind == Kind.RECORD)[visits]) + 1
        if not len(stops) or stops[-1] != len(visits):
            raise IrregularError
        if len(stops) > _MAX_RECORDS or self._num_buffers > _MAX_BUFFERS:
            raise IrregularError
        raw = visits.tobytes()
        rows_of: dict[bytes, list[int]] = {}
        start = 0
        for row, stop in enumerate((stops * visits.itemsize).tolist()):
            rows_of.setdefault(raw[start:stop], []).append(row)
            if len(rows_of) > template_filling.MAX_GROUPS:
                raise IrregularError
            start = stop
        new = [key for key in rows_of if key not in self._paths]
        if _are_too_many(new, len(stops)):
            self._path(new[0])
            raise IrregularError
        if sum(map(len, rows_of)) > _MAX_NODES * visits.itemsize:
            raise IrregularError
        return [Group(self._path(key), np.array(rows)) for key, rows in rows_of.items()]

    def _path(self, key: bytes) -> Path:
        found = self._paths.get(key)
        if found is None:
            found = Path(self.nodes, np.frombuffer(key, np.int32), self._num_buffers)
            size = 4 * len(key) + 10 * self._num_buffers
            if size <= _LARGEST_KEPT:
                self._make_room(size)
                self._paths[key] = found
        return found

    def _template(self, path: Path, sizes: tuple[int, ...]) -> Template:
        found = path.templates.get(sizes)
        if found is None:
            found = self._maker.make(path.path, sizes)
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
    def _maker(self) -> record_templates.Maker:
        return record_templates.Maker(self.nodes)


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


def _are_too_many(new: Collection[Any], num_records: int) -> bool:
    """Returns whether making so many new paths or templates takes longer than it saves.

    One of them is made nevertheless: so all are known in time, where chunks are few records.
    """
    return len(new) > max(1, num_records // _LEAST_RECORDS)
