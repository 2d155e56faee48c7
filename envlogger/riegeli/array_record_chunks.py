# SPDX-License-Identifier: Apache-2.0
"""Tells the chunks of an ArrayRecord file apart, whatever of it is damaged or missing.

Data, footer and postscript are all chunks of records. Where the end of a complete file is damaged or cut
off, what is left of its index must not be taken for data: readers would crash. Nor must data be taken for an
index, whatever users store.
"""

from __future__ import annotations

from collections.abc import Iterator

from envlogger import errors
from envlogger.riegeli import array_record_footer, chunks
from envlogger.riegeli.array_record_footer import Entry
from envlogger.riegeli.records_file import RecordsFile


def is_finished(file: RecordsFile) -> bool:
    """Returns whether the last block begins with a postscript."""
    if file.size < 2 * chunks.BLOCK_SIZE or file.size % chunks.BLOCK_SIZE:
        return False
    try:
        return _is_postscript(file, file.read_header(file.size - chunks.BLOCK_SIZE))
    except (errors.CorruptDatasetError, chunks.TruncatedError):
        return False


def end_of_data(file: RecordsFile) -> int:
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
        for chunk in headers(file, begin, last.begin)
        if not chunk.num_records
    )
    return last.begin if begin + padding < last.begin else file.size


def data_headers(file: RecordsFile) -> Iterator[chunks.Chunk]:
    """Yields the chunks of data, the damaged ones as well."""
    for chunk in headers(file, 0, end_of_data(file)):
        if chunk.num_records:
            yield chunk


def read_whole(file: RecordsFile, chunk: chunks.Chunk) -> memoryview | None:
    """Returns the data of a chunk; None if it is damaged, or not there any more."""
    try:
        return file.read_data(chunk, verify=True)
    except (errors.CorruptDatasetError, chunks.TruncatedError):
        return None


def headers(file: RecordsFile, begin: int, stop: int) -> Iterator[chunks.Chunk]:
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


def _last_with_records(file: RecordsFile, stop: int) -> chunks.Chunk | None:
    """Returns the last whole chunk with records that begins before a position."""
    while stop > 0:
        begin = file.begin_before(stop - 1)
        for chunk in reversed(list(headers(file, begin, stop))):
            if chunk.num_records and read_whole(file, chunk) is not None:
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
    for there in headers(file, 0, chunk.begin):
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
