# SPDX-License-Identifier: Apache-2.0
"""Keeps memory that large records were read into, for those that come next.

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
