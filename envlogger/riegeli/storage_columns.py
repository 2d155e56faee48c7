# SPDX-License-Identifier: Apache-2.0
"""Many storage protobufs at once: what is alike in them is decoded in whole arrays.

The messages are taken apart together, level by level: all children of all tuples, all entries of all
dicts; numbers of one dtype and shape become one array. A message that is not written as EnvLogger
writes it (fields in another order, or not known) goes through `storage`; values are the same either
way.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from envlogger import varints
from envlogger.riegeli import storage, storage_layouts
from envlogger.varints import Bytes, Ints

# Fewer messages are decoded faster one by one.
_FEW = 6
# Arrays of more bytes than that are decoded one by one.
_LARGE = 256
# So many kinds of numbers, and so many children, are decoded at once.
_MAX_GROUPS = 100
_MAX_CHILDREN = 1000
_MAX_DEPTH = 50


def decode(data: Bytes, begins: Ints, ends: Ints) -> list[Any]:
    """Returns the values of serialized `Data`, as `storage.decode` returns each.

    Args:
      data: Has all of them; uint8 of shape (n,).
      begins: Where each begins; int64 of shape (number of messages,).
      ends: Where each ends.

    Raises:
      ValueError: One of them is damaged.
    """
    if not len(data):
        return [None] * len(begins)
    columns = _Columns(data)
    values, rest = columns.decode_alike(begins, ends)
    _put(values, rest, columns.decode(begins[rest], ends[rest], 0))
    return values


class _Irregular:
    """Stands for a value that `storage` has to decode."""


_IRREGULAR = _Irregular()


class _Columns:
    """Decodes parts of `data`; in all methods, `begins` and `ends` are where messages lie in it."""

    def __init__(self, data: Bytes) -> None:
        self._data = data
        self._raw = data.data

    def decode_alike(self, begins: Ints, ends: Ints) -> tuple[list[Any], Ints]:
        """Decodes `Data` that have the layout of the first one of their size.

        Returns:
          The values, and the rows that are left.
        """
        values: list[Any] = [_IRREGULAR] * len(begins)
        sizes = ends - begins
        left = np.ones(len(begins), np.bool_)
        kinds = set(sizes.tolist())
        if len(kinds) * _FEW > len(begins):
            return values, np.flatnonzero(left)
        for size in kinds:
            rows = np.flatnonzero(sizes == size)
            layout = storage_layouts.find(self._raw[begins[rows[0]] : ends[rows[0]]])
            if layout is None:
                continue
            rows = rows[layout.find(self._data, begins[rows])]
            columns = [
                self._decode_group(
                    leaf.field, leaf.shape, begins[rows] + leaf.begin, begins[rows] + leaf.end
                )
                for leaf in layout.leaves
            ]
            if not any(value is _IRREGULAR for column in columns for value in column):
                _put(values, rows, layout.nest(columns, len(rows)))
                left[rows] = False
        return values, np.flatnonzero(left)

    def decode(self, begins: Ints, ends: Ints, depth: int) -> list[Any]:
        """Returns the values of `Data`."""
        values: list[Any] = [_IRREGULAR] * len(begins)
        if len(begins) >= _FEW and depth <= _MAX_DEPTH:
            tags, bodies, body_ends = self._open(begins)
            is_empty = begins == ends
            _put(values, np.flatnonzero(is_empty), itertools.repeat(None))
            # One member of the oneof is all there is.
            tags = np.where((body_ends == ends) & ~is_empty, tags, 0)
            for field, decoder in (
                (storage.DATUM, self._decode_datums),
                (storage.ARRAY, self._decode_lists),
                (storage.TUPLE, self._decode_tuples),
                (storage.DICT, self._decode_dicts),
            ):
                rows = np.flatnonzero(tags == _tag(field))
                if len(rows):
                    _put(values, rows, decoder(bodies[rows], ends[rows], depth))
        for i, value in enumerate(values):
            if value is _IRREGULAR:
                values[i] = storage.decode(self._raw[begins[i] : ends[i]])
        return values

    def _decode_lists(self, begins: Ints, ends: Ints, depth: int) -> list[Any]:
        return [
            value if value is _IRREGULAR else list(value)
            for value in self._decode_tuples(begins, ends, depth)
        ]

    def _decode_tuples(self, begins: Ints, ends: Ints, depth: int) -> list[Any]:
        rows, child_begins, child_ends, counts = self._find_children(begins, ends)
        children = self.decode(child_begins, child_ends, depth + 1)
        values: list[Any] = [_IRREGULAR] * len(begins)
        _put(values, rows, _split(children, counts))
        return values

    def _decode_dicts(self, begins: Ints, ends: Ints, depth: int) -> list[Any]:
        rows, entry_begins, entry_ends, counts = self._find_children(begins, ends)
        key_tags, key_begins, key_ends = self._open(entry_begins)
        tags, value_begins, value_ends = self._open(key_ends)
        is_regular = (
            (key_tags == _tag(1)) & (key_ends < entry_ends)
            & (tags == _tag(2)) & (value_ends == entry_ends)
        )  # fmt: skip
        if not is_regular.all():
            row_of_entry = np.repeat(np.arange(len(rows)), counts)
            keep = np.bincount(row_of_entry[~is_regular], minlength=len(rows)) == 0
            kept = np.repeat(keep, counts)
            rows, counts = rows[keep], counts[keep]
            key_begins, key_ends = key_begins[kept], key_ends[kept]
            value_begins, value_ends = value_begins[kept], value_ends[kept]
        raw = self._raw
        keys = [
            str(raw[begin:end], "utf-8")
            for begin, end in zip(key_begins.tolist(), key_ends.tolist(), strict=True)
        ]
        items = self.decode(value_begins, value_ends, depth + 1)
        values: list[Any] = [_IRREGULAR] * len(begins)
        pairs = zip(_split(keys, counts), _split(items, counts), strict=True)
        _put(values, rows, (dict(zip(*pair, strict=True)) for pair in pairs))
        return values

    def _find_children(self, begins: Ints, ends: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Finds the messages of field 1, where there is nothing else.

        Returns:
          The rows of which that is true; where the children of these begin and end, those of the
          first row first; and how many each has.
        """
        counts = np.zeros(len(begins), np.int64)
        is_regular = np.ones(len(begins), np.bool_)
        rows = np.flatnonzero(begins < ends)
        positions = begins[rows]
        found: list[tuple[Ints, Ints, Ints]] = []
        while len(rows):
            tags, child_begins, child_ends = self._open(positions)
            good = (tags == _tag(1)) & (child_ends <= ends[rows])
            if len(found) == _MAX_CHILDREN:
                good[:] = False
            is_regular[rows[~good]] = False
            rows, child_begins, child_ends = rows[good], child_begins[good], child_ends[good]
            found.append((rows, child_begins, child_ends))
            counts[rows] += 1
            more = child_ends < ends[rows]
            rows, positions = rows[more], child_ends[more]
        regular = np.flatnonzero(is_regular)
        if not found:
            none = np.empty(0, np.int64)
            return regular, none, none, counts
        rows, child_begins, child_ends = map(np.concatenate, zip(*found, strict=True))
        order = np.argsort(rows, kind="stable")
        order = order[is_regular[rows[order]]]
        return regular, child_begins[order], child_ends[order], counts[regular]

    # --- numbers and strings ------------------------------------------------------------------------

    def _decode_datums(self, begins: Ints, ends: Ints, _: int) -> list[Any]:
        values: list[Any] = [_IRREGULAR] * len(begins)
        tags, shape_begins, shape_ends = self._open(begins)
        # Without a shape, the values come at once.
        has_shape = tags == _tag(1)
        shape_begins = np.where(has_shape, shape_begins, begins)
        shape_ends = np.where(has_shape, shape_ends, begins)
        values_tags, value_begins, value_ends = self._open(shape_ends)
        tags, begins, payload_ends = self._open(value_begins)
        is_regular = (
            (values_tags == _tag(2)) & (value_ends == ends)
            & (begins < payload_ends) & (payload_ends == ends)
        )  # fmt: skip
        left = np.flatnonzero(is_regular)
        for _ in range(_MAX_GROUPS):
            if not len(left):
                break
            first = left[0]
            shape = self._data[shape_begins[first] : shape_ends[first]]
            alike = (tags[left] == tags[first]) & (
                shape_ends[left] - shape_begins[left] == len(shape)
            )
            group = left[alike]
            same = (self._gather(shape_begins[group], len(shape)) == shape).all(axis=1)
            alike[alike] = same
            group, left = left[alike], left[~alike]
            dims = storage.decode_shape(shape.data, (0, len(shape)))
            field = int(tags[first]) >> 3
            if tags[first] == _tag(field):
                _put(values, group, self._decode_group(field, dims, begins[group], ends[group]))
        return values

    def _decode_group(
        self, field: int, shape: tuple[int, ...], begins: Ints, ends: Ints
    ) -> list[Any]:
        """Returns the values of one field and shape; `begins` and `ends` are those of the bytes."""
        is_scalar = shape == storage.SCALAR
        if field in (storage.STRINGS, storage.BYTES, storage.BIGINTS):
            if is_scalar:
                return self._decode_objects(field, begins, ends)
        elif is_scalar or min(shape, default=1) > 0:
            count = 1 if is_scalar else math.prod(shape)
            dtype = storage.BUFFERS.get(field) or storage.NUMBERS.get(field)
            if dtype and (field in storage.BUFFERS or field in storage.FLOATS):
                return self._decode_fixed(dtype, None if is_scalar else shape, count, begins, ends)
            if dtype:
                return self._decode_varints(
                    field, None if is_scalar else shape, count, begins, ends
                )
        return [_IRREGULAR] * len(begins)

    def _decode_fixed(
        self,
        dtype: np.dtype[Any],
        shape: tuple[int, ...] | None,
        count: int,
        begins: Ints,
        ends: Ints,
    ) -> list[Any]:
        size = count * dtype.itemsize
        values: list[Any] = [_IRREGULAR] * len(begins)
        rows = np.flatnonzero(ends - begins == size)
        native = dtype.newbyteorder("=")
        if size > _LARGE:
            _put(
                values,
                rows,
                (
                    np.frombuffer(self._raw[begin : begin + size], dtype)
                    .astype(native)
                    .reshape(shape)
                    for begin in begins[rows].tolist()
                ),
            )
        else:
            column = self._gather(begins[rows], size).view(dtype).astype(native, copy=False)
            _put(values, rows, _unstack(column, shape))
        return values

    def _decode_varints(
        self, field: int, shape: tuple[int, ...] | None, count: int, begins: Ints, ends: Ints
    ) -> list[Any]:
        values: list[Any] = [_IRREGULAR] * len(begins)
        sizes = ends - begins
        offsets = np.cumsum(sizes) - sizes
        index = np.arange(int(sizes.sum())) + np.repeat(begins - offsets, sizes)
        is_end = self._data[index] < 0x80
        rows = np.flatnonzero(
            (np.add.reduceat(is_end, offsets, dtype=np.int64) == count)
            & is_end[offsets + sizes - 1]
        )
        if len(rows) < len(begins):
            is_whole = np.zeros(len(begins), np.bool_)
            is_whole[rows] = True
            index = index[np.repeat(is_whole, sizes)]
        numbers = storage.from_varints(field, varints.decode_array(self._data[index]))
        _put(values, rows, _unstack(numbers.reshape(len(rows), count), shape))
        return values

    def _decode_objects(self, field: int, begins: Ints, ends: Ints) -> list[Any]:
        if field == storage.BIGINTS and (ends - begins == 1).all():
            return list(self._data[begins].view(np.int8).tolist())
        return [
            storage.to_object(field, self._raw[begin:end])
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        ]

    # --- bytes -------------------------------------------------------------------------------------

    def _open(self, positions: Ints) -> tuple[Bytes, Ints, Ints]:
        """Reads tags of one byte, and the sizes behind them.

        Positions may be anywhere; what is read behind the end of the data is of no use, and its end
        lies behind the data.

        Returns:
          The tags, and where the bytes that follow the sizes begin and end.
        """
        tags = self._data.take(positions, mode="clip")
        begins = positions + 1
        byte = self._data.take(begins, mode="clip")
        sizes = (byte & 0x7F).astype(np.int64)
        begins += 1
        longer = np.flatnonzero(byte >= 0x80)
        for i in range(1, 6):
            if not len(longer):
                break
            byte = self._data.take(begins[longer], mode="clip")
            sizes[longer] |= (byte & 0x7F).astype(np.int64) << 7 * i
            begins[longer] += 1
            longer = longer[byte >= 0x80]
        sizes[longer] = len(self._data) + 1
        return tags, begins, begins + sizes

    def _gather(self, begins: Ints, size: int) -> Bytes:
        """Returns the `size` bytes at each position; uint8 of shape (number of positions, size)."""
        gathered: Bytes = self._data[begins[:, None] + np.arange(size)]
        return gathered


def _tag(field: int) -> int:
    """Returns the tag of a string or a submessage."""
    return field << 3 | 2


def _put(values: list[Any], rows: Ints, found: Any) -> None:
    for row, value in zip(rows.tolist(), found):  # noqa: B905 - `found` may be endless
        values[row] = value


def _split(items: list[Any], counts: Ints) -> Any:
    """Yields tuples of so many items each."""
    if len(counts) and counts[0] and (counts == counts[0]).all():
        return zip(*[iter(items)] * int(counts[0]), strict=True)
    iterator = iter(items)
    return (tuple(itertools.islice(iterator, count)) for count in counts.tolist())


def _unstack(column: npt.NDArray[Any], shape: tuple[int, ...] | None) -> Any:
    """Yields the rows of a column of shape (rows, count) as arrays of their own, or as scalars."""
    if shape is None:
        numbers = column[:, 0]
        return numbers.tolist() if numbers.dtype == np.bool_ else list(numbers)
    if shape == ():
        return map(np.array, column[:, 0])
    return (row.copy() for row in column.reshape(-1, *shape))
