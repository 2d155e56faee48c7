# SPDX-License-Identifier: Apache-2.0
"""Writes TFRecord files, and reads them at random, without TensorFlow.

A file is a run of records (`tensorflow/core/lib/io/record_writer.h`), without an index:

    uint64  length of the data
    uint32  masked CRC-32C of the eight bytes before
    bytes   data
    uint32  masked CRC-32C of the data

So where the records are is found by hopping from one to the next, once for each file that is opened.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence

import google_crc32c
import numpy as np

from envlogger.tfds import shard_errors, shards
from envlogger.tfds.partial_record import Place, RecordOnDisk, fill, record_in_memory

_LENGTH = struct.Struct("<Q")
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


class TFRecordWriter:
    """Writes a TFRecord file. What is there before `close()` has returned need not be whole.

    Args:
      path: The file; one that is there is replaced.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = open(path, "wb")  # noqa: SIM115 (it is closed by `close`)

    def add(self, record: bytes) -> None:
        """Appends a record.

        Raises:
          OSError: It could not be written, as when the disk is full.
        """
        length = _LENGTH.pack(len(record))
        self._file.write(length + _FOOTER.pack(_crc(length)))
        self._file.write(record)
        self._file.write(_FOOTER.pack(_crc(record)))

    def close(self) -> None:
        """Finishes the file and makes it durable (fsync).

        Raises:
          OSError: It could not be written.
        """
        self._file.close()
        shards.sync_file(self.path)

    def abandon(self) -> None:
        """Gives the file up and removes it."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class TFRecordReader:
    """Reads a TFRecord file.

    Args:
      path: The file.
      num_records: How many records the dataset says it has.

    Raises:
      CorruptDatasetError: The file is missing, is cut off, or has another number of records.
    """

    def __init__(self, path: str, num_records: int) -> None:
        self.path = path
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
        position, length = self._places[index]
        data = os.pread(self._descriptor, length + _FOOTER.size, position)
        record = data[:length]
        if len(data) != length + _FOOTER.size or _FOOTER.unpack(data[length:])[0] != _crc(record):
            raise shard_errors.damaged(self.path, index, "its checksum is another")
        return record

    def find(self, index: int) -> Place:
        """Returns where a record is."""
        position, length = self._places[index]
        return Place(position, 0, length)

    def open(self, index: int) -> RecordOnDisk:
        """Returns a record that needs the file no more. Its checksum is not looked at."""
        return record_in_memory(self.read_part(index, 0, self._places[index][1]))

    def read_part(self, index: int, start: int, stop: int) -> memoryview:
        """Returns bytes of a record, of which the checksum is not looked at; fewer at the file's end."""
        data = np.empty(stop - start, np.uint8).data
        return data[: self.read_part_into(index, start, [data])]

    def read_part_into(self, index: int, start: int, buffers: Sequence[memoryview]) -> int:
        """Does what `read_part` does, into buffers; returns how many bytes there were."""
        return fill(self._descriptor, buffers, self._places[index][0] + start)

    def close(self) -> None:
        """Closes the file. May be called more than once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _find_records(self, expected: int) -> list[tuple[int, int]]:
        """Returns position and length of the data of each record."""
        places = []
        position, end = 0, os.fstat(self._descriptor).st_size
        while position < end:
            header = os.pread(self._descriptor, _HEADER.size, position)
            if len(header) < _HEADER.size:
                break
            length, checksum = _HEADER.unpack(header)
            start = position + _HEADER.size
            if checksum != _crc(header[:8]) or start + length + _FOOTER.size > end:
                break
            places.append((start, length))
            position = start + length + _FOOTER.size
        if position != end or len(places) != expected:
            raise shard_errors.cut_off(self.path, len(places), expected)
        return places


def _crc(data: bytes) -> int:
    """Returns the CRC-32C of data, masked as in TFRecord: rotated, and a constant added."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
