# SPDX-License-Identifier: Apache-2.0
"""ArrayRecord files as its own library writes them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

from array_record.python import array_record_module

_Path = TypeVar("_Path", str, os.PathLike)


def write(path: _Path, records: Iterable[bytes], options: str = "group_size:1") -> _Path:
    """Writes a file; returns its path."""
    writer = array_record_module.ArrayRecordWriter(os.fspath(path), options)
    for record in records:
        writer.write(record)
    writer.close()
    return path
