# SPDX-License-Identifier: Apache-2.0
"""Finishes ArrayRecord files whose writer died.

An ArrayRecord file is a Riegeli file that ends with an index of its chunks. Without it, readers see an
empty file, and no error.

    signature | chunks of data … | footer | padding | postscript, where a block begins | padding

Each chunk of data has as many records, but for the last, which may have fewer. Footer and postscript
(`array_record_footer`) are chunks of records, too. Where the end of a complete file is damaged or cut off,
they may be there still, and must not be taken for data.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from envlogger import errors
from envlogger.riegeli import array_record_footer, chunk_writer, chunks, compression
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
            return _is_finished(made) and (
                _holds(made, file, verify=False) or _holds(made, file, verify=True)
            )


def repair(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Repair:
    """Writes the whole records of an unfinished ArrayRecord file to another one, and finishes that.

    The chunks are copied as they are, after their hashes were checked.

    Args:
      source: The unfinished file. It is not changed.
      target: The file to write. It gets its name once it is complete.

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
        if _is_finished(file):
            raise errors.DatasetError(f"{source}: is complete, there is nothing to repair.")
        temporary = target.with_name(f"{target.name}.{os.getpid()}{_TEMPORARY_SUFFIX}")
        try:
            with temporary.open("xb") as out:
                num_records, lost_bytes = _copy(file, out)
                out.flush()
                os.fsync(out.fileno())
            os.link(temporary, target)  # other than a rename, this never replaces a file
        finally:
            temporary.unlink(missing_ok=True)
    return Repair(source, target, num_records, lost_bytes)


def _is_unfinished(path: Path) -> bool:
    try:
        with RecordsFile(path) as file:
            return file.size >= chunks.SIGNATURE_SIZE and not _is_finished(file)
    except errors.CorruptDatasetError:
        return False  # not a Riegeli file


def _is_finished(file: RecordsFile) -> bool:
    """Returns whether the last block begins with a postscript."""
    if file.size < 2 * chunks.BLOCK_SIZE or file.size % chunks.BLOCK_SIZE:
        return False
    try:
        return _is_postscript(file, file.read_header(file.size - chunks.BLOCK_SIZE))
    except (errors.CorruptDatasetError, chunks.TruncatedError):
        return False


def _copy(file: RecordsFile, out: BinaryIO) -> tuple[int, int]:
    """Copies whole chunks and finishes; returns the number of records and of bytes that are lost."""
    writer = chunk_writer.ChunkWriter(out)
    entries: list[Entry] = []
    kept = 0
    options = "group_size:1"
    end = _end_of_data(file)
    for chunk in _headers(file, 0, file.size):
        # Padding holds nothing: its hash is not worth the time.
        data = _read_whole(file, chunk) if chunk.num_records else memoryview(b"")
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
    return sum(entry.num_records for entry in entries), file.size - kept


def _holds(made: RecordsFile, file: RecordsFile, *, verify: bool) -> bool:
    """Returns whether a repaired file has the whole chunks of another one, and nothing else.

    Args:
      made: The repaired file.
      file: The other one.
      verify: Whether to check the data of all chunks of `file`; else of those that `made` lacks.
    """
    saved = map(_content, _data_headers(made))
    wanted = next(saved, None)
    for chunk in _data_headers(file):
        is_wanted = _content(chunk) == wanted
        if (is_wanted and not verify) or _read_whole(file, chunk) is not None:
            if not is_wanted:
                return False
            wanted = next(saved, None)
    return wanted is None


def _content(chunk: chunks.Chunk) -> tuple[int, ...]:
    return chunk.type, chunk.num_records, chunk.decoded_size, chunk.data_size, chunk.data_hash


def _data_headers(file: RecordsFile) -> Iterator[chunks.Chunk]:
    """Yields the chunks of data, the damaged ones as well."""
    for chunk in _headers(file, 0, _end_of_data(file)):
        if chunk.num_records:
            yield chunk


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


def _end_of_data(file: RecordsFile) -> int:
    """Returns where the footer begins, or the postscript if the footer is damaged; else the file's end.

    Nothing but the last chunks is looked at: records in front of others are data, whatever they hold.
    """
    last = _last_with_records(file, file.size)
    if last and _is_footer(file, last):
        return last.begin
    if not last or not _is_postscript(file, last):
        return file.size
    before = _last_with_records(file, last.begin)
    if before and _is_footer(file, before):
        return before.begin
    # Between the last chunk of data and the postscript was the footer. Where there is but padding,
    # these are three records of a user that look like a postscript.
    begin = before.end if before else 0
    padding = sum(
        chunk.end - chunk.begin
        for chunk in _headers(file, begin, last.begin)
        if not chunk.num_records
    )
    return last.begin if begin + padding < last.begin else file.size


def _last_with_records(file: RecordsFile, stop: int) -> chunks.Chunk | None:
    """Returns the last whole chunk with records that begins before a position."""
    while stop > 0:
        begin = file.begin_before(stop - 1)
        for chunk in reversed(list(_headers(file, begin, stop))):
            if chunk.num_records and _read_whole(file, chunk) is not None:
                return chunk
        stop = begin
    return None


def _is_postscript(file: RecordsFile, chunk: chunks.Chunk) -> bool:
    return (
        chunk.type == chunks.SIMPLE
        and chunk.begin % chunks.BLOCK_SIZE == 0
        and array_record_footer.is_postscript(_records(file, chunk))
    )


def _is_footer(file: RecordsFile, chunk: chunks.Chunk) -> bool:
    """Returns whether a chunk is the footer of its file: lists all chunks of data that are before it.

    It lists the damaged ones, too, and those whose place is lost; these have left a gap. Where whole
    blocks are missing, the chunks behind them lie that far ahead of where the footer says.
    """
    if chunk.type != chunks.SIMPLE:
        return False
    entries = array_record_footer.decode_footer(_records(file, chunk))
    if entries is None:
        return False
    listed = iter(entries)
    num_found = filled = missing = 0
    for there in _headers(file, 0, chunk.begin):
        filled += there.end - there.begin
        if not there.num_records:
            continue
        entry = next((entry for entry in listed if _is_about(entry, there)), None)
        if entry is None:
            return False
        num_found += 1
        missing = entry.begin - there.begin
    return num_found == len(entries) or filled < chunk.begin + missing


def _is_about(entry: Entry, chunk: chunks.Chunk) -> bool:
    return (
        entry.begin >= chunk.begin
        and (entry.begin - chunk.begin) % chunks.BLOCK_SIZE == 0
        and entry.decoded_size == chunk.decoded_size
        and entry.num_records == chunk.num_records
    )


def _records(file: RecordsFile, chunk: chunks.Chunk) -> list[bytes]:
    """Returns the records of a chunk; none if it cannot be decoded."""
    try:
        return list(file.read(chunk))
    except errors.CorruptDatasetError:
        return []


def _read_whole(file: RecordsFile, chunk: chunks.Chunk) -> memoryview | None:
    """Returns the data of a chunk; None if it is damaged, or not there any more."""
    try:
        return file.read_data(chunk, verify=True)
    except (errors.CorruptDatasetError, chunks.TruncatedError):
        return None


def _headers(file: RecordsFile, begin: int, stop: int) -> Iterator[chunks.Chunk]:
    """Yields the chunks between two positions that are not torn and whose header is not damaged."""
    while begin < stop:
        try:
            for chunk in file.scan(begin):
                if chunk.begin >= stop:
                    return
                yield chunk
                begin = chunk.end
            return
        except (errors.CorruptDatasetError, chunks.TruncatedError):
            # Torn or damaged; or a damaged header says that it is longer than the file.
            begin = file.resume(begin)


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
