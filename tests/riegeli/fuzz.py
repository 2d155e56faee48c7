# SPDX-License-Identifier: Apache-2.0
"""Feeds damaged files to the reader of Riegeli files: `python -m tests.riegeli.fuzz --inputs 100000`.

Inputs are made of the sample files in one of these ways. Whatever comes of them must be values or a
CorruptDatasetError, soon, and in little memory:

    file     bytes of a file are changed, cut out or put in; or the file ends early
    header   the header of a chunk lies, and fits its hash
    data     the data of a chunk is changed, and fits its hash
    plain    the same without compression; a trivial twin must make the same of it
    storage  a value is changed; decoded alone and among others it must be the same
    log      a file of a log is changed; all of the log is read by `envlogger.Reader`
"""

from __future__ import annotations

import argparse
import collections
import functools
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import contextlib

import riegeli_samples as samples

import envlogger
from envlogger import errors, varints
from envlogger.riegeli import (
    chunk_writer,
    chunks,
    compression,
    storage,
    storage_columns,
    transposed_chunk,
)
from envlogger.riegeli.records_file import RecordsFile
from envlogger.testing.comparison import assert_same
from tests.riegeli import reference

# Of one input. Only something that hangs takes so long.
_PATIENCE_S = 30
_MEMORY = 4 << 30
_LARGEST_FILE = 150_000
_LARGEST_CHUNK = 20_000
_LOGS = ("catch_shards", "nested", "opt_transpose_uncompressed", "killed_flush10")
_VALUE_LOGS = ("nested", "dtypes", "catch_default", "bigints", "v13codec_floats_zstd")


class Fuzzer:
    """Makes inputs and tries them; all that it does follows from its seed.

    Args:
      directory: Where to write files.
      seed: A number.
    """

    def __init__(self, directory: pathlib.Path, seed: int) -> None:
        self._path = directory / "file.riegeli"
        self._directory = directory
        self._random = random.Random(seed)
        self.ways = [self.file, self.header, self.data, self.plain, self.storage, self.log]

    def file(self) -> None:
        """Reads a file that was changed."""
        self._path.write_bytes(self._change(self._random.choice(_files()).read_bytes()))
        self._read_file()

    def header(self) -> None:
        """Reads a chunk whose header lies."""
        chunk, data = self._random.choice(_chunks())
        fields = [chunk.type, chunk.num_records, chunk.decoded_size]
        i = self._random.randrange(3)
        near = fields[i] + self._random.choice((-2, -1, 1, 2, 1000))
        fields[i] = self._random.choice((near, 0, 1 << self._random.randrange(40)))
        fields[i] = max(fields[i], 0) & (0xFF if i == 0 else (1 << 56) - 1)
        self._write_chunk(fields[0], data, *fields[1:])
        self._read_file()

    def data(self) -> None:
        """Reads a chunk whose data was changed."""
        chunk, data = self._random.choice(_chunks())
        self._write_chunk(chunk.type, self._change(data), chunk.num_records, chunk.decoded_size)
        self._read_file()

    def plain(self) -> None:
        """Reads a transposed chunk that was changed, twice."""
        chunk, data = self._random.choice(_plain_chunks())
        data = self._change(data)
        try:
            expected: Any = reference.Chunk(data).records()
            if [len(expected), sum(map(len, expected))] != [chunk.num_records, chunk.decoded_size]:
                expected = ValueError
        except (ValueError, IndexError):
            expected = ValueError
        except reference.TooLongError:
            expected = None
        try:
            records = transposed_chunk.decode(
                memoryview(data), chunk.num_records, chunk.decoded_size, 1 << 20
            )
            got: Any = list(records)
        except ValueError:
            got = ValueError
        assert expected is None or got == expected, "the twin makes something else of it"

    def storage(self) -> None:
        """Decodes a value that was changed, alone and among others."""
        record = self._random.choice(_values())
        messages = [record] * 8
        messages[self._random.randrange(8)] = self._change(record)
        ends = np.cumsum([len(message) for message in messages])
        begins = np.append(0, ends[:-1])
        data = np.frombuffer(b"".join(messages), np.uint8)
        one_by_one = _attempt(lambda: [storage.decode(message) for message in messages])
        assert_same(_attempt(lambda: storage_columns.decode(data, begins, ends)), one_by_one)

    def log(self) -> None:
        """Reads a log of which a file was changed."""
        source = samples.log(self._random.choice(_LOGS))
        target = self._directory / "log"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        path = self._random.choice(sorted(target.rglob("*.riegeli")))
        path.write_bytes(self._change(path.read_bytes()))
        with envlogger.Reader(target) as reader:
            for sequence in (reader.steps, reader.episodes, reader.episode_metadata()):
                for i in range(len(sequence)):
                    _attempt_read(functools.partial(sequence.__getitem__, i))

    def _write_chunk(
        self, chunk_type: int, data: bytes, num_records: int, decoded_size: int
    ) -> None:
        with self._path.open("wb") as file:
            writer = chunk_writer.ChunkWriter(file)
            if num_records > 1 << 20:  # so many bytes follow: leave them out
                writer.write(chunk_type, data, 0, decoded_size)
                file.seek(0)
                raw = bytearray(self._path.read_bytes())
                fields = bytearray(raw[72:104])
                fields[17:24] = num_records.to_bytes(7, "little")
                raw[64:104] = chunk_writer.hashed(bytes(fields))
                self._path.write_bytes(raw)
            else:
                writer.write(chunk_type, data, num_records, decoded_size)

    def _read_file(self) -> None:
        with RecordsFile(self._path, verify=self._random.random() < 0.2) as file:
            positions: list[int] = []
            try:
                for position, _ in file.read_all():
                    positions.append(position)
            except chunks.TruncatedError:
                pass
            finally:
                wanted = [*positions[-1:], self._random.randrange(file.size + 2)]
                for position in wanted:
                    _attempt_read(functools.partial(file.locate, position))
                    file.resume(position)

    def _change(self, raw: bytes) -> bytes:
        """Changes one to four places."""
        changed = bytearray(raw)
        for _ in range(self._random.choice((1, 1, 2, 4))):
            at = self._random.randrange(len(changed) + 1)
            size = self._random.choice((1, 1, 2, 8, 100))
            way = self._random.randrange(7)
            if way == 0:
                del changed[at : at + size]
            elif way == 1:
                changed[at:at] = self._random.randbytes(size)
            elif way == 2:
                del changed[at:]
            elif way == 3:
                changed[at : at + size] = changed[: len(changed[at : at + size])]
            elif at < len(changed):
                values = (changed[at] ^ 1 << self._random.randrange(8), 0, 0xFF, 0x80, 0x7F)
                changed[at] = self._random.choice((*values, self._random.randrange(256)))
        return bytes(changed)


def _attempt(decode: Callable[[], Any]) -> Any:
    try:
        return decode()
    except (ValueError, OverflowError):
        return "an error"


def _attempt_read(read: Callable[[], Any]) -> None:
    with contextlib.suppress(errors.CorruptDatasetError, chunks.TruncatedError):
        read()


@functools.cache
def _files() -> list[pathlib.Path]:
    return [path for path in samples.files() if 0 < path.stat().st_size < _LARGEST_FILE]


@functools.cache
def _chunks() -> list[tuple[chunks.Chunk, bytes]]:
    """Returns chunks with records, and their data."""
    found = []
    for path in _files():
        with RecordsFile(path) as file:
            try:
                for chunk in file.scan():
                    if chunk.num_records and chunk.data_size < _LARGEST_CHUNK:
                        found.append((chunk, bytes(file.read_data(chunk))))
            except chunks.TruncatedError:
                continue
    return found


@functools.cache
def _plain_chunks() -> list[tuple[chunks.Chunk, bytes]]:
    """Returns transposed chunks without compression."""
    found = []
    for chunk, data in _chunks():
        if chunk.type == chunks.TRANSPOSED and chunk.decoded_size < _LARGEST_CHUNK:
            found.append((chunk, _uncompress(data)))
    return found


def _uncompress(data: bytes) -> bytes:
    raw = memoryview(data)
    decompress = compression.Decompressor(data[0], 1 << 30)
    size, begin = varints.read(raw, 1)
    position = begin + size
    header = bytes(decompress(raw[begin:position]))
    num_buckets, at = varints.read(header, 0)
    num_buffers, at = varints.read(header, at)
    buckets = []
    for _ in range(num_buckets):
        size, at = varints.read(header, at)
        buckets.append(bytes(decompress(raw[position : position + size])))
        position += size
    sizes = b"".join(varints.encode(len(bucket)) for bucket in buckets)
    header = varints.encode(num_buckets) + varints.encode(num_buffers) + sizes + header[at:]
    transitions = bytes(decompress(raw[position:]))
    return b"".join([b"\0", varints.encode(len(header)), header, *buckets, transitions])


@functools.cache
def _values() -> list[bytes]:
    """Returns records of steps."""
    found = []
    for case in _VALUE_LOGS:
        for path in samples.log(case).glob("*/steps.riegeli"):
            with RecordsFile(path) as file:
                found += [record for _, record in file.read_all()][:20]
    return found


def _fuzz(inputs: int, seconds: float, seed: int) -> int:
    """Tries inputs until there were enough or the time is over; returns how many failed."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGALRM, _give_up)
    warnings.simplefilter("ignore", envlogger.riegeli.LogWarning)
    counts: collections.Counter[str] = collections.Counter()
    failures = 0
    slowest = 0.0
    end = time.monotonic() + seconds
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        for i in range(inputs):
            fuzzer = Fuzzer(pathlib.Path(directory), seed + i)
            way = fuzzer.ways[i % len(fuzzer.ways)]
            begin = time.monotonic()
            signal.alarm(_PATIENCE_S)
            try:
                way()
                counts["read"] += 1
            except errors.CorruptDatasetError:
                counts["errors"] += 1
            except BaseException as error:
                failures += 1
                print(f"--seed {seed + i} ({way.__name__}): {type(error).__name__}")
                traceback.print_exc()
                if isinstance(error, KeyboardInterrupt):
                    break
            finally:
                signal.alarm(0)
            slowest = max(slowest, time.monotonic() - begin)
            if time.monotonic() > end:
                break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    total = sum(counts.values()) + failures
    print(f"{counts['read']} read, {counts['errors']} refused; slowest {slowest:.2f} s; {peak} MB")
    print(f"{total} inputs, {failures} failures")
    return failures


def _give_up(*_: object) -> None:
    raise TimeoutError(f"took more than {_PATIENCE_S} s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.riegeli.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after that time")
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    arguments = parser.parse_args()
    return 1 if _fuzz(arguments.inputs, arguments.seconds, arguments.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
