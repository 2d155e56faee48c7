# SPDX-License-Identifier: Apache-2.0
"""Reads ArrayRecord files in Python, for processes that were forked.

ArrayRecord's own library starts threads with the first file that a process opens, and waits for them on
structures of their stacks. In a fork there are no such threads, and their stacks are soon used for
something else: the library then hangs, or dies of SIGSEGV. Workers of PyTorch are forks, as a rule.

A file is one of Riegeli/records (https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md):

    chunks, cut up by a header of 24 bytes wherever a block of 64 KiB begins

    chunk    header  uint64 hash, uint64 size, uint64 hash of the data, uint8 type, uint56 number of
                     records, uint64 size of the records
             data    uint8 compression, varint size of (a), (a) sizes of the records as varints,
                     (b) the records; (a) and (b) each compressed, behind a varint of its size

What this reader leaves out is to compare the hash of the data, which would take it minutes per GB: in a
forked process, damage shows only where it makes a record unreadable.
"""

from __future__ import annotations

import os
import struct
from typing import Any

from envlogger import errors
from envlogger.tfds.example import decode_varint

_BLOCK = 1 << 16
_BLOCK_HEADER = 24
_HEADER = struct.Struct("<QQQQQ")
_SIMPLE_CHUNK = ord("r")


class ArrayRecordFile:
    """Reads an ArrayRecord file.

    Args:
      path: The file.
      num_records: How many records the dataset says it has.

    Raises:
      CorruptDatasetError: The file is missing, or cut off, or no such file.
    """

    def __init__(self, path: str, num_records: int) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise errors.CorruptDatasetError(
                f"{path}: the shard is missing; dataset_info.json says it has {num_records} "
                "episodes. Restore it from a copy."
            ) from None
        try:
            self._places = self._find_records(num_records)
        except BaseException:
            self.close()
            raise

    def read(self, index: int) -> bytes:
        """Returns a record.

        Raises:
          CorruptDatasetError: Its bytes are damaged.
        """
        position, size, number = self._places[index]
        try:
            return _records(self._read(position, size))[number]
        except (IndexError, ValueError, RuntimeError) as error:
            raise errors.CorruptDatasetError(
                f"{self.path}: episode {index} of the shard is damaged: {error}. "
                "The other episodes can be read."
            ) from error

    def close(self) -> None:
        """Closes the file. May be called more than once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _find_records(self, expected: int) -> list[tuple[int, int, int]]:
        """Returns for each record where the data of its chunk begins, its size, and the place in it."""
        places: list[tuple[int, int, int]] = []
        position, end = 0, os.fstat(self._descriptor).st_size
        while len(places) < expected and position < end:
            header = self._read(position, _HEADER.size)
            if len(header) < _HEADER.size:
                break
            _, size, _, kind, _ = _HEADER.unpack(header)
            count = kind >> 8
            start = _after(position, _HEADER.size)
            if kind & 0xFF == _SIMPLE_CHUNK:
                places += ((start, size, number) for number in range(count))
            # A chunk takes a byte for each of its records at least.
            following = max(_after(start, size), position + count)
            if following <= position or following > end:
                break
            position = following
        if len(places) != expected:
            raise errors.CorruptDatasetError(
                f"{self.path}: the shard is damaged or was not finished; {len(places)} records can be "
                f"read, dataset_info.json says {expected}. Restore it from a copy."
            )
        return places

    def _read(self, position: int, size: int) -> bytes:
        """Returns bytes of a chunk, without the headers of blocks."""
        raw = os.pread(self._descriptor, _after(position, size) - position, position)
        offset = position % _BLOCK
        if offset and offset + len(raw) <= _BLOCK:
            return raw
        parts = []
        start = -offset  # where the block begins
        while start < len(raw):
            parts.append(raw[max(start + _BLOCK_HEADER, 0) : start + _BLOCK])
            start += _BLOCK
        return b"".join(parts)


def _after(position: int, size: int) -> int:
    """Returns the position behind `size` bytes of a chunk."""
    room = _BLOCK - _BLOCK_HEADER
    blocks, offset = divmod(position, _BLOCK)
    blocks, rest = divmod(blocks * room + max(offset - _BLOCK_HEADER, 0) + size, room)
    return blocks * _BLOCK + (rest + _BLOCK_HEADER if rest else 0)


def _records(data: bytes) -> list[bytes]:
    """Returns the records of a chunk.

    Raises:
      ValueError: The data is not that of a simple chunk.
      RuntimeError: It cannot be decompressed.
    """
    view = memoryview(data)
    size, start = decode_varint(view, 1)
    sizes = _decompress(data[0], view[start : start + size])
    values = _decompress(data[0], view[start + size :])
    records = []
    position = start = 0
    while position < len(sizes):
        length, position = decode_varint(memoryview(sizes), position)
        records.append(values[start : start + length] if length != len(values) else values)
        start += length
    if start != len(values):
        raise ValueError(f"its records come to {start} bytes, but it holds {len(values)}")
    return records


def _decompress(compression: int, data: memoryview) -> bytes:
    if not compression:
        return bytes(data)
    import cramjam

    codecs: dict[int, Any] = {
        ord("z"): cramjam.zstd.decompress,
        ord("b"): cramjam.brotli.decompress,
        ord("s"): cramjam.snappy.decompress_raw,
    }
    if compression not in codecs:
        raise ValueError(f"its compression {compression} is not known")
    size, start = decode_varint(data, 0)
    found = bytes(codecs[compression](data[start:]))
    if len(found) != size:
        raise ValueError(f"it holds {len(found)} bytes, and says {size}")
    return found
