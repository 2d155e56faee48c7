# SPDX-License-Identifier: Apache-2.0
"""How a storage protobuf is laid out: which bytes are values, and how these are nested.

Steps of one length mostly differ in these bytes only. Then nothing but the values is to be decoded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from envlogger import varints
from envlogger.riegeli import storage
from envlogger.varints import Bytes, Ints

_MAX_DEPTH = 50
# Of larger ones, what is not values takes too long to compare.
_MAX_LEAVES = 1000
_MAX_STRUCTURE = 1 << 12

_CONTAINERS: dict[int, type[Any]] = {
    storage.ARRAY: list,
    storage.TUPLE: tuple,
    storage.DICT: dict,
}


class Leaf(NamedTuple):
    """Where a value lies in the message: the bytes of one field of `Values`."""

    begin: int
    end: int
    field: int
    shape: tuple[int, ...]


class _Nest(NamedTuple):
    """A container of other ones, of leaves (their numbers) and of None."""

    container: type[Any]
    keys: list[str]
    items: list[Any]


class _IrregularError(Exception):
    """The message is not written as EnvLogger writes it, or is damaged."""


class Layout:
    """The layout of one message.

    Args:
      message: The message.

    Attributes:
      leaves: Its values, in order.
    """

    def __init__(self, message: memoryview) -> None:
        self._raw = message
        self.leaves: list[Leaf] = []
        self._nest = self._read(0, len(message), 0)
        position = 0
        spans = []
        for leaf in [*self.leaves, Leaf(len(message), len(message), 0, ())]:
            spans.append(np.arange(position, leaf.begin))
            position = leaf.end
        self._index = np.concatenate(spans)
        if len(self._index) > _MAX_STRUCTURE:
            raise _IrregularError
        self._structure = np.frombuffer(message, np.uint8)[self._index]

    def find(self, data: Bytes, begins: Ints) -> Any:
        """Returns which of the messages at some positions, of the same length, have this layout."""
        return (data[begins[:, None] + self._index] == self._structure).all(axis=1)

    def nest(self, columns: list[list[Any]], count: int) -> list[Any]:
        """Returns `count` values, made of a column for each leaf."""
        return _nest(self._nest, columns, count)

    def _read(self, begin: int, end: int, depth: int) -> Any:
        """Returns the nest of a `Data`."""
        if begin == end:
            return None
        field, begin = self._only(begin, end)
        if field == storage.DATUM:
            return self._read_datum(begin, end)
        if field not in _CONTAINERS or depth > _MAX_DEPTH:
            raise _IrregularError
        nest = _Nest(_CONTAINERS[field], [], [])
        while begin < end:
            child, begin = self._open(begin, end, 1)
            if field == storage.DICT:
                key, value = self._open(child, begin, 1)
                nest.keys.append(str(self._raw[key:value], "utf-8"))
                child, value_end = self._open(value, begin, 2)
                if value_end != begin:
                    raise _IrregularError
            nest.items.append(self._read(child, begin, depth + 1))
        return nest

    def _read_datum(self, begin: int, end: int) -> int:
        shape, shape_end = self._open(begin, end, 1)
        field, values = self._only(shape_end, end)
        if field != 2:
            raise _IrregularError
        field, payload = self._only(values, end)
        if payload == end or len(self.leaves) == _MAX_LEAVES:
            raise _IrregularError
        dims = storage.cached_shape(bytes(self._raw[shape:shape_end]))
        self.leaves.append(Leaf(payload, end, field, dims))
        return len(self.leaves) - 1

    def _only(self, begin: int, end: int) -> tuple[int, int]:
        found = storage.read_only_field(self._raw, begin, end)
        if found is None:
            raise _IrregularError
        return found

    def _open(self, begin: int, end: int, field: int) -> tuple[int, int]:
        """Returns where the bytes of a string or submessage begin and end, within `end`."""
        raw = self._raw
        if end - begin < 2 or raw[begin] != field << 3 | 2:
            raise _IrregularError
        size, begin = raw[begin + 1], begin + 2
        if size >= 0x80:
            size, begin = varints.read(raw, begin - 1)
        if begin + size > end:
            raise _IrregularError
        return begin, begin + size


def find(message: memoryview) -> Layout | None:
    """Returns the layout of a message; None if it is not regular."""
    try:
        return Layout(message)
    except (_IrregularError, ValueError):
        return None


def _nest(nest: Any, columns: list[list[Any]], count: int) -> list[Any]:
    if nest is None:
        return [None] * count
    if isinstance(nest, int):
        return columns[nest]
    if not nest.items:
        return [nest.container() for _ in range(count)]
    rows = zip(*(_nest(item, columns, count) for item in nest.items), strict=True)
    if nest.container is tuple:
        return list(rows)
    if nest.container is list:
        return list(map(list, rows))
    return [dict(zip(nest.keys, row, strict=True)) for row in rows]
