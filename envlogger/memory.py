# SPDX-License-Identifier: Apache-2.0
"""Memory for large records: kept for those that come next, and filled without a copy.

The C library gives back blocks of megabytes as soon as they are free. The next record then gets new
pages from the system, one fault each, and that takes up to ten times as long as reading the record.
"""

from __future__ import annotations

import ctypes
import functools
import os

# Records from here on are large, and chunks of records.
LARGE = 1 << 19

# Of mallopt(3). Blocks up to 32 MiB, the most that glibc allows, then come from the heap; of what is free
# at its end, so much stays.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_HEAP_BLOCK = 32 << 20
_KEPT = 128 << 20

# Who has chosen such things for the process keeps what was chosen.
_VARIABLES = (
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_TRIM_THRESHOLD_",
)

_make_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_make_bytes.restype = ctypes.py_object
_make_bytes.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)


@functools.cache
def keep_freed() -> None:
    """Has this process keep up to 128 MiB of memory that is free, for large blocks to come.

    Does nothing where the C library is not glibc, or where the environment says how it is to allocate.
    """
    if any(name in os.environ for name in _VARIABLES):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _HEAP_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def new_bytes(size: int) -> tuple[bytes, memoryview]:
    """Returns new bytes, and a view by which they have to be filled before anybody else sees them.

    The view lasts as long as the bytes do. Otherwise what was read into a buffer has to be copied, half of
    the time of reading it. In C this is how bytes are made:
    https://docs.python.org/3/c-api/bytes.html#c.PyBytes_FromStringAndSize.

    Raises:
      MemoryError: There is not so much.
    """
    made: bytes = _make_bytes(None, size)
    address = ctypes.cast(ctypes.c_char_p(made), ctypes.c_void_p).value
    return made, memoryview((ctypes.c_char * size).from_address(address or 0)).cast("B")
