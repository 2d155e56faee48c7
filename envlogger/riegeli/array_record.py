# SPDX-License-Identifier: Apache-2.0
"""Finishes ArrayRecord files whose writer died.

An ArrayRecord file is a Riegeli file that ends with an index of its chunks. Without it, readers see an
empty file, and no error.

    signature | chunks of records … | footer: about the file, then about each chunk | padding
    | postscript, where a block begins: three times the position of the footer | padding
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from envlogger import errors
from envlogger.riegeli import chunk_writer, chunks, compression, varints
from envlogger.riegeli.records_file import RecordsFile

SUFFIX = ".repaired"

_MAGIC = 0x71930E704FDAE05E
_VERSION = 1
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
    should, and those called `*.repaired` were made here.
    """
    return sorted(
        path
        for folder, _, names in os.walk(directory)
        for path in (Path(folder, name) for name in names)
        if path.suffix not in (".riegeli", SUFFIX) and path.is_file() and _is_unfinished(path)
    )


def repair(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Repair:
    """Writes the whole records of an unfinished ArrayRecord file to another one, and finishes that.

    The chunks are copied as they are, after their hashes were checked.

    Args:
      source: The unfinished file. It is not changed.
      target: The file to write. It gets its name once it is complete.

    Raises:
      DatasetError: The source is complete, or the target exists.
      CorruptDatasetError: The source is no such file.
      OSError: One of them cannot be read or written.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise errors.DatasetError(
            f"{target}: exists already. Move it away, or name another target."
        )
    with RecordsFile(source, verify=True) as file:
        if _is_finished(file):
            raise errors.DatasetError(f"{source}: is complete, there is nothing to repair.")
        temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
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
        records = list(file.read(file.read_header(file.size - chunks.BLOCK_SIZE)))
    except (errors.CorruptDatasetError, chunks.TruncatedError):
        return False
    return len(records) == 3 and records[0].endswith(_number(2, _MAGIC))


def _copy(file: RecordsFile, out: BinaryIO) -> tuple[int, int]:
    """Copies whole chunks and finishes; returns the number of records and of bytes that are lost."""
    writer = chunk_writer.ChunkWriter(out)
    entries: list[bytes] = []
    num_records = kept = 0
    options = "group_size:1"
    for chunk, data in _whole_chunks(file):
        kept += min(chunk.end, file.size) - chunk.begin
        if not chunk.num_records or _is_footer(file, chunk, len(entries), num_records):
            continue
        if not entries:
            options = _options(chunk, data)
        begin = writer.write(
            chunk.type, data, chunk.num_records, chunk.decoded_size, chunk.data_hash
        )
        entries.append(
            _number(1, begin) + _number(2, chunk.decoded_size) + _number(3, chunk.num_records)
        )
        num_records += chunk.num_records
    _finish(writer, entries, num_records, options)
    return num_records, file.size - kept


def _whole_chunks(file: RecordsFile) -> Iterator[tuple[chunks.Chunk, memoryview]]:
    """Yields the chunks that are neither torn nor damaged, with their data."""
    begin = 0
    while begin < file.size:
        try:
            for chunk in file.scan(begin):
                begin = chunk.end
                with contextlib.suppress(errors.CorruptDatasetError):
                    yield chunk, file.read_data(chunk, verify=True)
        except chunks.TruncatedError:
            # Torn; or a damaged header says that it is longer than the file.
            begin = file.resume(begin)
        except errors.CorruptDatasetError:
            begin = file.resume(begin)


def _is_footer(file: RecordsFile, chunk: chunks.Chunk, num_chunks: int, num_records: int) -> bool:
    """Returns whether a chunk is the footer, or the postscript behind it, of what came before."""
    if chunk.type != chunks.SIMPLE or chunk.num_records not in (num_chunks + 1, 3):
        return False
    first = file.read(chunk)[0]
    return first.endswith(_number(2, _MAGIC)) or _about(num_chunks, num_records) in first[:40]


def _options(chunk: chunks.Chunk, data: memoryview) -> str:
    """Returns the writer's options, as far as its first chunk shows them."""
    is_transposed = "true" if chunk.type == chunks.TRANSPOSED else "false"
    codec = _CODECS.get(data[0], "uncompressed") if len(data) else "uncompressed"
    return f"group_size:{chunk.num_records},transpose:{is_transposed},{codec}"


def _finish(
    writer: chunk_writer.ChunkWriter, entries: Sequence[bytes], num_records: int, options: str
) -> None:
    about = _about(len(entries), num_records) + _string(4, options.encode())
    footer = writer.write_records([_string(1, about), *entries])
    writer.pad()
    writer.write_records([_number(1, footer) + _number(2, _MAGIC)] * 3)
    writer.pad()


def _about(num_chunks: int, num_records: int) -> bytes:
    return _number(1, _VERSION) + _number(2, num_chunks) + _number(3, num_records)


def _number(field: int, value: int) -> bytes:
    return varints.encode(field << 3) + varints.encode(value)


def _string(field: int, value: bytes) -> bytes:
    return varints.encode(field << 3 | 2) + varints.encode(len(value)) + value
