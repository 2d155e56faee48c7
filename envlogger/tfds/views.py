# SPDX-License-Identifier: Apache-2.0
"""Columns that lie in a record as they are, found at once in the next record of the same layout.

Where the rows of a column are in a record, and that what stands between them is what the decoder
expects, takes longer to find out than to read a short episode. In records whose layout is the same (see
`example.Parser`) the rows are at the same places; then only what stands between them is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from envlogger.tfds.features import Encoding, Feature

_BYTE = np.dtype(np.uint8)


class View(NamedTuple):
    """Takes a column out of records of one layout.

    Attributes:
      column: Returns the column of a record; None if it has to be decoded. The array has memory of its
        own, or is a view into the record.
      fixed: Parts of the record that are not rows, and what has to be there.
      varints: Where the varints are, each of which has to be of one byte; None if there are none.
      offset: Where the first row begins.
      strides: Of the rows as they lie there.
      dtype: The same.
    """

    column: Callable[[bytes], npt.NDArray[Any] | None]
    fixed: Sequence[tuple[slice, bytes]]
    varints: slice | None
    offset: int
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


def find(feature: Feature, column: Any, record: bytes, start: int, stop: int) -> View | None:
    """Returns what takes a column out of records; None if it does not lie there as it is.

    Args:
      feature: What the column holds.
      column: The column, as `features.decode_column` returned it.
      record: The record that it was found in.
      start: Where the list begins that the column was decoded from.
      stop: Where it ends.
    """
    if not isinstance(column, np.ndarray) or not column.size:
        return None
    if feature.encoding is Encoding.PLAIN and feature.dtype.kind in "biu":
        offset = stop - column.size  # if each varint takes a byte
        if offset <= start or not record[offset:stop].isascii():
            return None
        values = np.frombuffer(record, np.uint8, column.size, offset)
        if values.tolist() != column.reshape(-1).tolist():
            return None
        return _view_of_varints(column, record, start, stop)
    offset = column.ctypes.data - np.frombuffer(record, np.uint8).ctypes.data
    row_bytes = column[:1].nbytes
    stride = column.strides[0] if len(column) > 1 else stop - start
    if not start < offset < offset + row_bytes <= stop:
        return None  # it has memory of its own
    if stride == row_bytes:
        between = [slice(start, offset)]
    else:
        between = [slice(start + i, stop, stride) for i in range(stride - row_bytes)]
    return _view_of_rows(column, record, offset, between)


def _view_of_varints(column: npt.NDArray[Any], record: bytes, start: int, stop: int) -> View:
    offset = stop - column.size
    header, varints = slice(start, offset), slice(offset, stop)
    expected, shape, dtype = record[header], column.shape, column.dtype

    def take(record: bytes) -> npt.NDArray[Any] | None:
        if record[header] != expected or not record[varints].isascii():
            return None
        return np.ndarray(shape, _BYTE, record, offset).astype(dtype)

    return View(take, [(header, expected)], varints, offset, np.empty(shape, _BYTE).strides, _BYTE)


def _view_of_rows(
    column: npt.NDArray[Any], record: bytes, offset: int, between: Sequence[slice]
) -> View:
    fixed = [(where, record[where]) for where in between]
    shape, dtype, strides = column.shape, column.dtype, column.strides

    def take(record: bytes) -> npt.NDArray[Any] | None:
        for where, expected in fixed:
            if record[where] != expected:
                return None
        return np.ndarray(shape, dtype, record, offset, strides)

    return View(take, fixed, None, offset, strides, dtype)
