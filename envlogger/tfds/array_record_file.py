# SPDX-License-Identifier: Apache-2.0
"""Reads ArrayRecord files in Python: parts of large records, and in processes that were forked.

ArrayRecord's own library reads whole records only. It starts threads with the first file that a process
opens, and waits for them on structures of their stacks. In a fork there are no such threads, and their
stacks are soon used for something else: the library then hangs, or dies of SIGSEGV. Workers of PyTorch
are forks, as a rule.

A file is one of Riegeli/records (https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md):

    chunks, cut up by a header of 24 bytes wherever a block of 64 KiB begins

    chunk    header  uint64 hash, uint64 size, uint64 hash of the data, uint8 type, uint56 number of
                     records, uint64 size of the records
             data    uint8 compression, varint size of (a), (a) sizes of the records as varints,
                     (b) the records; (a) and (b) each compressed, behind a varint of its size

What this reader leaves out is to compare the hash of the data, which would take it minutes per GB:
damage shows only where it makes a record unreadable.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from envlogger import memory, varints, zstd
from envlogger.tfds import shard_errors
from envlogger.tfds.partial_record import Place, RecordOnDisk, fill, record_in_memory, spread

_BLOCK = 1 << 16
_BLOCK_HEADER = 24
_ROOM = _BLOCK - _BLOCK_HEADER
_SMALL = 1 << 10  # is soon copied
_LONGEST_HEAD = 1 + 2 * 10  # of a chunk of one record: compression and two varints
_HEADER = struct.Struct("<QQQQQ")
_SIMPLE_CHUNK = ord("r")
_ZSTD = ord("z")

# How many times larger than its compressed form data can be: a file that says more has lied.
_MOST_REPETITIVE = 1 << 20


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
        self._found: dict[int, Place | None] = {}
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise shard_errors.missing(path, num_records) from None
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
        place = self.find(index)
        if place is not None and place.size >= memory.LARGE:
            plain, room = memory.new_bytes(place.size)
            if self.read_part_into(index, 0, [room]) != place.size:
                raise shard_errors.damaged(self.path, index, "the file ends within it")
            return plain
        record = self._view(index)
        whole = record.obj
        if isinstance(whole, bytes) and len(whole) == len(record):
            return whole  # what was decompressed holds nothing else
        return bytes(record)

    def open(self, index: int) -> RecordOnDisk:
        """Returns a record that needs the file no more; in zstd, it is decompressed as far as it is read.

        Raises:
          CorruptDatasetError: Its bytes are damaged; also later, when they are read.
        """
        position, size, _ = self._places[index]
        data = self._read(position, size)
        try:
            sizes, values = _split(data)
            if data[0] != _ZSTD or len(sizes) != 1:
                return record_in_memory(self._view(index))
            record_size, start = varints.read(values, 0)
            _check_size(record_size, values)
            lazy = zstd.LazyBytes(values[start:], record_size)
        except (IndexError, ValueError) as error:
            raise shard_errors.damaged(self.path, index, error) from error
        path = self.path

        def read(start: int, stop: int) -> memoryview:
            try:
                return lazy.read(start, stop)
            except ValueError as error:
                raise shard_errors.damaged(path, index, error) from error

        return RecordOnDisk(record_size, read, record_size)

    def find(self, index: int) -> Place | None:
        """Returns where a record is; None if it is compressed, or not the only one of its chunk."""
        if index not in self._found:
            self._found[index] = self._find_place(index)
        return self._found[index]

    def read_part(self, index: int, start: int, stop: int) -> memoryview:
        """Returns bytes of a record; fewer where the file has come to an end."""
        place = self.find(index)
        if place is None:
            return self._view(index)[start:stop]
        return self._read(_after(place.position, place.offset + start), stop - start)

    def read_part_into(self, index: int, start: int, buffers: Sequence[memoryview]) -> int:
        """Fills buffers with the bytes of a record, from one on; returns how many there were."""
        place = self.find(index)
        if place is None:
            return spread(self._view(index)[start:], buffers)
        return self._read_into(_after(place.position, place.offset + start), buffers)

    def close(self) -> None:
        """Closes the file. May be called more than once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _view(self, index: int) -> memoryview:
        position, size, number = self._places[index]
        try:
            return _records(self._read(position, size))[number]
        except (IndexError, ValueError) as error:
            raise shard_errors.damaged(self.path, index, error) from error

    def _find_place(self, index: int) -> Place | None:
        position, size, _ = self._places[index]
        head = self._read(position, min(size, _LONGEST_HEAD))
        try:
            length, start = varints.read(head, 1)
            record_size, begin = varints.read(head, start)
        except ValueError:
            return None
        if head[0] or begin != start + length or begin + record_size != size:
            return None
        return Place(position, begin, record_size)

    def _find_records(self, expected: int) -> list[tuple[int, int, int]]:
        """Returns for each record where the data of its chunk begins, its size, and the place in it."""
        from envlogger.riegeli import chunks  # here: who records has no use for it

        places: list[tuple[int, int, int]] = []
        position, end = 0, os.fstat(self._descriptor).st_size
        while len(places) < expected and position < end:
            header = self._read(position, _HEADER.size)
            if len(header) < _HEADER.size:
                break
            _, size, _, kind, _ = _HEADER.unpack(header)
            count = kind >> 8
            following = chunks.chunk_end(position, size, count)
            if following > end:  # in a file that is whole, a footer follows the last record
                break
            if kind & 0xFF == _SIMPLE_CHUNK:
                start = _after(position, _HEADER.size)
                places += ((start, size, number) for number in range(count))
            position = following
        if len(places) != expected:
            raise shard_errors.cut_off(self.path, len(places), expected)
        return places

    def _read(self, position: int, size: int) -> memoryview:
        """Returns bytes of a chunk, without the headers of blocks."""
        offset = position % _BLOCK
        if size <= _SMALL and offset and offset + size <= _BLOCK:
            return memoryview(os.pread(self._descriptor, size, position))
        data = np.empty(size, np.uint8).data
        return data[: self._read_into(position, [data])]

    def _read_into(self, position: int, buffers: Iterable[memoryview]) -> int:
        """Fills buffers with bytes of a chunk; returns how many there were."""
        offset = position % _BLOCK
        header = memoryview(bytearray(_BLOCK_HEADER))
        pieces = [] if offset else [header]
        room = _BLOCK - max(offset, _BLOCK_HEADER)
        for buffer in buffers:
            while len(buffer) > room:
                pieces += (buffer[:room], header)
                buffer, room = buffer[room:], _ROOM
            pieces.append(buffer)
            room -= len(buffer)
        return _count(position + fill(self._descriptor, pieces, position)) - _count(position)


def _count(position: int) -> int:
    """Returns how many bytes before a position belong to chunks, and not to headers of blocks."""
    blocks, offset = divmod(position, _BLOCK)
    return blocks * _ROOM + max(offset - _BLOCK_HEADER, 0)


def _after(position: int, size: int) -> int:
    """Returns the position behind `size` bytes of a chunk."""
    blocks, rest = divmod(_count(position) + size, _ROOM)
    return blocks * _BLOCK + (rest + _BLOCK_HEADER if rest else 0)


def _records(data: memoryview) -> list[memoryview]:
    """Returns the records of a chunk.

    Raises:
      ValueError: The data is not that of a simple chunk, or cannot be decompressed.
    """
    sizes, values = _split(data)
    values = _decompress(data[0], values)
    records = []
    start = 0
    for size in sizes:
        records.append(values[start : start + size])
        start += size
    if start != len(values):
        raise ValueError(f"its records come to {start} bytes, but it holds {len(values)}")
    return records


def _split(data: memoryview) -> tuple[list[int], memoryview]:
    """Returns the sizes of the records of a chunk, and the records as they are stored."""
    size, start = varints.read(data, 1)
    packed = _decompress(data[0], data[start : start + size])
    sizes = []
    position = 0
    while position < len(packed):
        length, position = varints.read(packed, position)
        sizes.append(length)
    return sizes, data[start + size :]


def _decompress(compression: int, data: memoryview) -> memoryview:
    if not compression:
        return data
    size, start = varints.read(data, 0)
    _check_size(size, data)
    data = data[start:]
    if compression == _ZSTD:
        return memoryview(zstd.decompress(data, size))
    import cramjam

    codecs: dict[int, Any] = {
        ord("b"): cramjam.brotli.decompress_into,
        ord("s"): cramjam.snappy.decompress_raw_into,
    }
    if compression not in codecs:
        raise ValueError(f"its compression {compression} is not known")
    values = np.empty(size, np.uint8)
    try:
        found = codecs[compression](data, values) if size else 0
    except cramjam.DecompressionError as error:
        raise ValueError(f"its compressed data is damaged: {error}") from error
    if found != size:
        raise ValueError(f"it holds {found} bytes, and says {size}")
    return values.data


def _check_size(size: int, data: memoryview) -> None:
    if size > _MOST_REPETITIVE * len(data):
        raise ValueError(f"it holds {len(data)} bytes, and says that they are {size}")
