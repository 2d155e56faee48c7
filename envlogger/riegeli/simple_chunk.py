# SPDX-License-Identifier: Apache-2.0
"""Simple chunks: the sizes of the records, then the records, each compressed."""

from __future__ import annotations

import numpy as np

from envlogger import varints
from envlogger.riegeli import compression
from envlogger.riegeli.records import Records


def decode(data: memoryview, num_records: int, decoded_size: int) -> Records:
    """Returns the records of a simple chunk.

    Args:
      data: The data of the chunk, as stored.
      num_records: As the header says.
      decoded_size: Likewise.

    Raises:
      ValueError: It is damaged, or does not hold what the header says.
    """
    if not len(data):
        raise ValueError("the chunk is empty")
    decompress = compression.Decompressor(data[0], decoded_size + 10 * num_records)
    size, begin = varints.read(data, 1)
    if size > len(data) - begin:
        raise ValueError(f"the sizes take {size} bytes; the chunk ends before")
    sizes_block = decompress(data[begin : begin + size])
    sizes, stop = varints.read_array(sizes_block, 0, num_records)
    values = decompress(data[begin + size :])
    # Each by itself first, so that the sum does not overflow.
    if sizes.max(initial=0) > len(values) or not (
        stop == len(sizes_block) and sizes.sum() == len(values) == decoded_size
    ):
        raise ValueError(
            f"the records have other sizes than their chunk: got {len(values)} bytes, expected "
            f"{decoded_size}"
        )
    ends = np.cumsum(sizes)
    return Records(values, ends - sizes, ends)
