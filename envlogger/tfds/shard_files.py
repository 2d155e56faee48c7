# SPDX-License-Identifier: Apache-2.0
"""Shards in any of the file formats that are read and written here, and copies of them in another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TypeAlias

from envlogger.tfds import array_record_file, shards, tfrecord
from envlogger.tfds.dataset_files import FILE_FORMAT, TFRECORD

ShardReader: TypeAlias = (
    shards.ShardReader | tfrecord.TFRecordReader | array_record_file.ArrayRecordFile
)
ShardWriter: TypeAlias = shards.ShardWriter | tfrecord.TFRecordWriter

READERS: dict[str, type[ShardReader]] = {
    FILE_FORMAT: shards.ShardReader,
    TFRECORD: tfrecord.TFRecordReader,
}

# Those that read parts of records.
PartReader: TypeAlias = array_record_file.ArrayRecordFile | tfrecord.TFRecordReader

PART_READERS: dict[str, type[PartReader]] = {
    FILE_FORMAT: array_record_file.ArrayRecordFile,
    TFRECORD: tfrecord.TFRecordReader,
}


def open_writer(path: str, file_format: str, first_record: bytes) -> ShardWriter:
    """Returns a writer of a shard.

    Args:
      path: The file; one that is there is replaced.
      file_format: One of `READERS`.
      first_record: What the records are like.
    """
    if file_format == TFRECORD:
        return tfrecord.TFRecordWriter(path)
    return shards.ShardWriter(path, shards.choose_compression(first_record))


def compression_of(path: str, num_records: int) -> shards.Compression:
    """Returns how a shard is compressed, as far as it matters to whoever rewrites it."""
    file = array_record_file.ArrayRecordFile(path, num_records)
    try:
        is_plain = num_records > 0 and file.find(0) is not None
    finally:
        file.close()
    return shards.Compression.NONE if is_plain else shards.Compression.FULL


def read_all(path: str, file_format: str, num_records: int) -> Iterator[bytes]:
    """Yields the records of a shard in their order."""
    reader = READERS[file_format](path, num_records)
    try:
        for index in range(num_records):
            yield reader.read(index)
    finally:
        reader.close()


def copy(
    source: str,
    source_format: str,
    target: str,
    target_format: str,
    num_records: int,
    on_record: Callable[[], None] = lambda: None,
) -> None:
    """Writes the records of a shard, byte for byte, to a shard of another format.

    Args:
      source: The shard.
      source_format: Its format.
      target: The new shard, which is there whole or not at all.
      target_format: The format that it shall have.
      num_records: How many records there are.
      on_record: Called after each record.

    Raises:
      CorruptDatasetError: The source is missing or damaged.
      OSError: The target could not be written.
    """
    writer: ShardWriter | None = None
    temporary = f"{target}.tmp"
    try:
        for record in read_all(source, source_format, num_records):
            if writer is None:
                writer = open_writer(temporary, target_format, record)
            writer.add(record)
            on_record()
        if writer is None:
            writer = open_writer(temporary, target_format, b"")
        writer.close()
    except BaseException:
        if writer is not None:
            writer.abandon()
        raise
    os.replace(temporary, target)
    shards.sync_file(os.path.dirname(target))


def _after_fork() -> None:
    READERS[FILE_FORMAT] = array_record_file.ArrayRecordFile


os.register_at_fork(after_in_child=_after_fork)
