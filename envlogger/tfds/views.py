# SPDX-License-Identifier: Apache-2.0
"""Columns that lie in a record as they are, found at once in the next record of the same layout.

Where the rows of a column are in a record, and that what stands between them is what the decoder
expects, takes longer to find out than to read a short episode. In records whose layout is the same (see
`example.Parser`) the rows are at the same places; then only what stands between them is compared.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from envlogger.tfds.features import Encoding, Feature


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """Where the rows of a column are in a record.

    Attributes:
      offset: Where the first row begins.
      strides: Of the rows.
      shape: (T, ...).
      dtype: As they lie there; uint8 for varints of one byte.
      between: Parts of the record that are not rows, and what stands there.
      varints: Where the varints are, and the dtype that they are cast to; None if there are none.
    """

    offset: int
    strides: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    between: tuple[tuple[slice, bytes], ...]
    varints: tuple[slice, np.dtype[Any]] | None = None

    def take(self, record: bytes) -> npt.NDArray[Any] | None:
        """Returns the column of a record of the same layout; None if it has to be decoded."""
        for where, expected in self.between:
            if record[where] != expected:
                return None
        if self.varints is not None and not record[self.varints[0]].isascii():
            return None  # some take more than a byte
        rows = np.ndarray(self.shape, self.dtype, record, self.offset, self.strides)
        return rows if self.varints is None else rows.astype(self.varints[1])


def find(feature: Feature, column: Any, record: bytes, start: int, stop: int) -> View | None:
    """Returns where a column was found in a record; None if it does not lie there as it is.

    Args:
      feature: What the column holds.
      column: The column, as `features.decode_column` returned it.
      record: The record.
      start: Where the list begins that the column was decoded from.
      stop: Where it ends.
    """
    if not isinstance(column, np.ndarray) or not column.size:
        return None
    if feature.encoding is Encoding.PLAIN and feature.dtype.kind in "biu":
        offset = stop - column.size  # if each varint takes a byte
        if offset <= start or not record[offset:stop].isascii():
            return None
        if (
            np.frombuffer(record, np.uint8, column.size, offset).tolist()
            != column.reshape(-1).tolist()
        ):
            return None
        as_bytes = np.empty(column.shape, np.uint8)
        header = ((slice(start, offset), record[start:offset]),)
        varints = (slice(offset, stop), feature.dtype)
        return View(offset, as_bytes.strides, column.shape, as_bytes.dtype, header, varints)
    offset = column.ctypes.data - np.frombuffer(record, np.uint8).ctypes.data
    row_bytes = column[:1].nbytes
    stride = column.strides[0] if len(column) > 1 else stop - start
    if not start < offset < offset + row_bytes <= stop:
        return None  # it has memory of its own
    between: tuple[tuple[slice, bytes], ...]
    if stride == row_bytes:
        between = ((slice(start, offset), record[start:offset]),)
    else:
        between = tuple(
            (slice(start + i, stop, stride), record[start + i : stop : stride])
            for i in range(stride - row_bytes)
        )
    return View(offset, column.strides, column.shape, column.dtype, between)
