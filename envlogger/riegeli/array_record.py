# SPDX-License-Identifier: Apache-2.0
"""Finishes ArrayRecord files whose writer died.

An ArrayRecord file is a Riegeli file that ends with an index of its chunks. Without it, readers see an
empty file, and no error.

    signature | chunks of data … | footer | padding | postscript, where a block begins | padding

Each chunk of data has as many records, but for the last, which may have fewer. The
others are described in `array_record_footer`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from envlogger import errors
from envlogger.riegeli import (
    array_record_chunks,
    array_record_footer,
    chunk_writer,
    chunks,
    compression,
)
from envlogger.riegeli.array_record_footer import Entry
from envlogger.riegeli.records_file import RecordsFile

SUFFIX = ".repaired"

# What a repair that was killed leaves.
_TEMPORARY_SUFFIX = ".repairing"

_CODECS = {
    compression.NONE: "uncompressed",
    compression.BROTLI: "brotli",
    compression.ZSTD: "zstd",
    compression.SNAPPY: "snappy",
}


@dataclasses.dataclass(frozen=True)
class Repair:
    """What was saved of a file.

    Attributes:
      source: The unfinished file.
      target: The finished one.
      num_records: How many records it has.
      lost_bytes: How many bytes of the source are in no whole chunk.
    """

    source: Path
    target: Path
    num_records: int
    lost_bytes: int

    def __str__(self) -> str:
        lost = f"; {self.lost_bytes} bytes are torn or damaged, and lost" if self.lost_bytes else ""
        return f"{self.source}: {self.num_records} records saved in {self.target}{lost}"


def find_unfinished(directory: str | os.PathLike[str]) -> list[Path]:
    """Returns the unfinished ArrayRecord files in a directory and below, in order.

    Files without bytes hold nothing to save. Those called `*.riegeli` end without an index as they
    should, and those called `*.repaired` or `*.repairing` were made here.
    """
    others = (".riegeli", SUFFIX, _TEMPORARY_SUFFIX)
    return sorted(
        path
        for folder, _, names in os.walk(directory)
        for path in (Path(folder, name) for name in names)
        if path.suffix not in others and path.is_file() and _is_unfinished(path)
    )


def is_repaired(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> bool:
    """Returns whether a file is what `repair` would write: all that is whole in the source, finished.

    Of most chunks only the headers are looked at, and little data is read.

    Args:
      source: The unfinished file.
      target: The file that may be there.

    Raises:
      CorruptDatasetError: The source is no such file.
      MissingExtraError: Its last chunk is compressed, and the package for that is not installed.
      OSError: One of them cannot be read.
    """
    if not Path(target).exists():
        return False
    with RecordsFile(source) as file:
        try:
            made = RecordsFile(target)
        except errors.CorruptDatasetError:
            return False
        with made:
            # Where chunks are alike, only their data says which of them is damaged.
            return array_record_chunks.is_finished(made) and (
                _holds(made, file, verify=False) or _holds(made, file, verify=True)
            )


def repair(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    advance: Callable[[int], object] = lambda size: None,
) -> Repair:
    """Writes the whole records of an unfinished ArrayRecord file to another one, and finishes that.

    The chunks are copied as they are, after their hashes were checked.

    Args:
      source: The unfinished file. It is not changed.
      target: The file to write. It gets its name once it is complete.
      advance: Is called with how many more bytes of the source have been dealt with.

    Raises:
      DatasetError: The source is complete, or the target exists, by whomever it is.
      CorruptDatasetError: The source is no such file.
      MissingExtraError: Its last chunk is compressed, and the package for that is not installed.
      OSError: One of them cannot be read or written.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise errors.DatasetError(
            f"{target}: exists already, and is never overwritten. If it is of another file, or {source} "
            "has changed since, move it away; or name another target."
        )
    with RecordsFile(source, verify=True) as file:
        if array_record_chunks.is_finished(file):
            raise errors.DatasetError(f"{source}: is complete, there is nothing to repair.")
        temporary = target.with_name(f"{target.name}.{os.getpid()}{_TEMPORARY_SUFFIX}")
        try:
            with temporary.open("xb") as out:
                num_records, lost_bytes = _copy(file, out, advance)
                out.flush()
                os.fsync(out.fileno())
            os.link(temporary, target)  # other than a rename, this never replaces a file
        finally:
            temporary.unlink(missing_ok=True)
    return Repair(source, target, num_records, lost_bytes)


def _is_unfinished(path: Path) -> bool:
    try:
        with RecordsFile(path) as file:
            return file.size >= chunks.SIGNATURE_SIZE and not array_record_chunks.is_finished(file)
    except errors.CorruptDatasetError:
        return False  # not a Riegeli file


def _copy(file: RecordsFile, out: BinaryIO, advance: Callable[[int], object]) -> tuple[int, int]:
    """Copies whole chunks and finishes; returns the number of records and of bytes that are lost."""
    writer = chunk_writer.ChunkWriter(out)
    entries: list[Entry] = []
    kept = done = 0
    options = "group_size:1"
    end = array_record_chunks.end_of_data(file)
    for chunk in array_record_chunks.headers(file, 0, file.size):
        advance(chunk.begin - done)
        done = chunk.begin
        # Padding holds nothing: its hash is not worth the time.
        data = array_record_chunks.read_whole(file, chunk) if chunk.num_records else memoryview(b"")
        if data is None:
            continue
        kept += min(chunk.end, file.size) - chunk.begin
        if not chunk.num_records or chunk.begin >= end:
            continue
        if not entries:
            options = _options(chunk, data)
        _check_group(file, chunk, entries)
        begin = writer.write(
            chunk.type, data, chunk.num_records, chunk.decoded_size, chunk.data_hash
        )
        entries.append(Entry(begin, chunk.decoded_size, chunk.num_records))
    _finish(writer, entries, options)
    advance(file.size - done)
    return sum(entry.num_records for entry in entries), file.size - kept


def _holds(made: RecordsFile, file: RecordsFile, *, verify: bool) -> bool:
    """Returns whether a repaired file has the whole chunks of another one, and nothing else.

    Args:
      made: The repaired file.
      file: The other one.
      verify: Whether to check the data of all chunks of `file`; else of those that `made` lacks.
    """
    saved = map(_content, array_record_chunks.data_headers(made))
    wanted = next(saved, None)
    for chunk in array_record_chunks.data_headers(file):
        is_wanted = _content(chunk) == wanted
        if (is_wanted and not verify) or array_record_chunks.read_whole(file, chunk) is not None:
            if not is_wanted:
                return False
            wanted = next(saved, None)
    return wanted is None


def _content(chunk: chunks.Chunk) -> tuple[int, ...]:
    return chunk.type, chunk.num_records, chunk.decoded_size, chunk.data_size, chunk.data_hash


def _check_group(file: RecordsFile, chunk: chunks.Chunk, before: Sequence[Entry]) -> None:
    """Refuses a chunk with which readers of ArrayRecord would crash.

    They divide by the number of records in the first chunk to find one, and look at nothing else.
    """
    if not before:
        return
    group_size, last = before[0].num_records, before[-1].num_records
    if last != group_size or chunk.num_records > group_size:
        raise file.corrupt(
            chunk.begin,
            f"got a chunk of {chunk.num_records} records behind one of {last}, expected an ArrayRecord "
            f"file: there, only the last chunk has fewer than the first, here {group_size}",
        )


def _options(chunk: chunks.Chunk, data: memoryview) -> str:
    """Returns the writer's options, as far as its first chunk shows them."""
    is_transposed = "true" if chunk.type == chunks.TRANSPOSED else "false"
    codec = _CODECS.get(data[0], "uncompressed") if len(data) else "uncompressed"
    return f"group_size:{chunk.num_records},transpose:{is_transposed},{codec}"


def _finish(writer: chunk_writer.ChunkWriter, entries: Sequence[Entry], options: str) -> None:
    footer = writer.write_records(array_record_footer.encode_footer(entries, options))
    writer.pad()
    writer.write_records(array_record_footer.encode_postscript(footer))
    writer.pad()
