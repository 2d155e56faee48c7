# SPDX-License-Identifier: Apache-2.0
"""The step log: rows in memory-mapped segments, safe from the death of the process that writes them.

A segment is a file of fixed size, mapped into memory:

    header       int64 words, see `_COUNT` and following
    notes        int64 (row, offset, length): episode metadata, as JSON in the heap
    records      one packed record per row: structure, step type, flags, and every scalar leaf
    columns      one array (capacity, *shape) for each leaf that is an array of fixed shape
    heap         bytes of the leaves that vary in length, and of the notes

A row counts once the count in the header has been raised, which is the last thing that `append`
does: a row that was torn by the death of the process is never seen. What is in the mapping belongs
to the kernel and outlives the process.

Space is reserved when a segment is made, so a full disk is an exception then, and never a SIGBUS.
Segments whose rows have been sealed are used again: their pages are mapped already.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from envlogger.tfds import feature_json
from envlogger.tfds import features as features_lib
from envlogger.tfds.features import Feature
from envlogger.tfds.structure import Path

# Words of the header.
_COUNT, _NUM_NOTES, HEAP_USED, _LAYOUT, _FIRST_ROW, _STATE = range(6)  # the compiler knows two
_HEADER_BYTES = 64
_FREE, _IN_USE, _DONE, _SEALED = range(4)

# Bits of a record's flags; all but the first are those of rows that are steps of RLDS.
NEW_EPISODE = 1
IS_FIRST = 2
IS_TERMINAL = 4
ENDED = 8  # the episode is complete with this row
WHOLE = 16  # the episode counts only once it is complete
NOT_LAST = 32  # whoever gave the step said that it is not `is_last`

# An episode that is larger goes into several records: protobuf ends at 2 GiB, memory before that.
EPISODE_BYTES = 256 << 20
_MAX_NOTES = 1024
_HEAP_BYTES = 64 << 10
# Large enough that taking the next segment is rare, small enough that a small environment's process
# stays small; see benchmarks/growth.py.
_SEGMENT_BYTES = 4 << 20
# Of rows so large that sixteen come to more, a segment has fewer.
_LARGE_SEGMENT_BYTES = 64 << 20
# Streams share that, down to this: each of them has a few segments.
_STREAM_SEGMENT_BYTES = 256 << 10
_ALIGNMENT = 64
_ZEROS_BYTES = 1 << 20
NUM_SPARES = 2


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where things are in a segment.

    Attributes:
      number: Which layout of the session it is.
      features: The leaves of a row.
      capacity: How many rows fit.
      heap_bytes: The size of the heap.
    """

    number: int
    features: tuple[Feature, ...]
    capacity: int
    heap_bytes: int

    def __post_init__(self) -> None:
        """Works out the offsets."""
        fields: list[Any] = [("structure", "<u2"), ("step_type", "u1"), ("flags", "u1")]
        fields += [
            _field(i, feature) for i, feature in enumerate(self.features) if in_record(feature)
        ]
        record = np.dtype(fields)
        offset = _HEADER_BYTES + _MAX_NOTES * 24
        records = offset = _align(offset)
        offset += record.itemsize * self.capacity
        columns: dict[Path, int] = {}
        for feature in self.features:
            if not in_record(feature):
                offset = _align(offset)
                columns[feature.path] = offset
                offset += _nbytes(feature) * self.capacity
        object.__setattr__(self, "record", record)
        object.__setattr__(self, "records_offset", records)
        object.__setattr__(self, "column_offsets", columns)
        object.__setattr__(self, "heap_offset", _align(offset))
        object.__setattr__(self, "size", _align(offset) + self.heap_bytes)

    record: np.dtype[Any] = dataclasses.field(init=False, compare=False)
    records_offset: int = dataclasses.field(init=False, compare=False)
    column_offsets: dict[Path, int] = dataclasses.field(init=False, compare=False)
    heap_offset: int = dataclasses.field(init=False, compare=False)
    size: int = dataclasses.field(init=False, compare=False)

    @property
    def row_bytes(self) -> float:
        """The size of a row, without what it has in the heap."""
        return (self.heap_offset - self.records_offset) / self.capacity

    def to_json(self) -> dict[str, Any]:
        """Returns the layout for the session's journal."""
        return {
            "number": self.number,
            "features": feature_json.list_to_json(self.features),
            "capacity": self.capacity,
            "heap_bytes": self.heap_bytes,
        }

    @classmethod
    def from_json(cls, node: Mapping[str, Any]) -> Layout:
        """Returns the layout that `to_json` described."""
        features = tuple(feature_json.list_from_json(node["features"]))
        return cls(node["number"], features, node["capacity"], node["heap_bytes"])


def make_layout(
    number: int,
    features: Iterable[Feature],
    max_rows: int,
    heap_bytes: int,
    num_streams: int = 1,
) -> Layout:
    """Returns a layout whose segments are of a sensible size.

    Args:
      number: Its number.
      features: The leaves of a row.
      max_rows: How many rows to make room for at most.
      heap_bytes: How large a value of varying length must fit.
      num_streams: How many streams have such segments.
    """
    leaves = tuple(features)
    size = segment_bytes(num_streams)
    fixed = max(sum(_nbytes(feature) for feature in leaves), 16)
    # The last row stays in its segment, so there is room for two at least.
    least = min(max_rows, max(min(_LARGE_SEGMENT_BYTES // fixed, 16), 2))
    capacity = max(min(size // fixed, max_rows), least)
    varies = any(is_varying(feature) for feature in leaves)
    heap = max(_HEAP_BYTES, size if varies and max_rows > 16 else 0, 2 * heap_bytes)
    return Layout(number, leaves, capacity, heap)


def segment_bytes(num_streams: int) -> int:
    """Returns how large the rows of a segment are, unless they are large themselves."""
    return min(max(_SEGMENT_BYTES // num_streams, _STREAM_SEGMENT_BYTES), _SEGMENT_BYTES)


class Segment:
    """A mapped segment.

    Args:
      path: The file, which `reserve` has made.
      layout: Where things are in it.
    """

    def __init__(self, path: str, layout: Layout) -> None:
        self.path = path
        self.layout = layout
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.buffer = mmap.mmap(descriptor, layout.size)
        finally:
            os.close(descriptor)
        self.header = memoryview(self.buffer)[:_HEADER_BYTES].cast("q")
        self.notes = np.ndarray((_MAX_NOTES, 3), np.int64, self.buffer, _HEADER_BYTES)
        self.records = np.ndarray(
            layout.capacity, layout.record, self.buffer, layout.records_offset
        )
        self._features = {feature.path: feature for feature in layout.features}
        self.columns: dict[Path, npt.NDArray[Any]] = {}
        for i, feature in enumerate(layout.features):
            if in_record(feature):
                self.columns[feature.path] = self.records[f"f{i}"]
            else:
                shape = (layout.capacity, *_fixed(feature))
                offset = layout.column_offsets[feature.path]
                self.columns[feature.path] = np.ndarray(shape, feature.dtype, self.buffer, offset)

    @property
    def count(self) -> int:
        """The number of rows."""
        return self.header[_COUNT]

    @property
    def is_open(self) -> bool:
        """Whether rows may come into the segment."""
        return self.header[_STATE] == _IN_USE

    @property
    def is_full(self) -> bool:
        """Whether rows may come into the segment, but no more fit."""
        return self.is_open and self.header[_COUNT] == self.layout.capacity

    def has_room(self, heap_bytes: int) -> bool:
        """Whether another row fits, which needs so many bytes of the heap."""
        fits = self.header[HEAP_USED] + heap_bytes <= self.layout.heap_bytes
        return fits and self.header[_COUNT] < self.layout.capacity

    def end_episode(self) -> None:
        """Says that an episode is complete with the last row."""
        self.records["flags"][self.count - 1] |= ENDED

    def commit(self, count: int) -> None:
        """Makes the rows below `count` count."""
        self.header[_COUNT] = count

    @property
    def heap_used(self) -> int:
        """How many bytes of the heap are taken."""
        return self.header[HEAP_USED]

    @property
    def first_row(self) -> int:
        """The number, in the session, of the first row."""
        return self.header[_FIRST_ROW]

    @property
    def is_unsealed(self) -> bool:
        """Whether the writer has taken the segment into use again."""
        return self.header[_STATE] in (_IN_USE, _DONE)

    def feature(self, path: Path) -> Feature | None:
        """Returns the leaf at a path as this segment has it, or None."""
        return self._features.get(path)

    def begin(self, first_row: int) -> None:
        """Takes the segment into use; whatever it held is forgotten."""
        self.header[_STATE] = _FREE
        for word in (_COUNT, _NUM_NOTES, HEAP_USED):
            self.header[word] = 0
        self.header[_LAYOUT] = self.layout.number
        self.header[_FIRST_ROW] = first_row
        self.header[_STATE] = _IN_USE

    def mark_done(self) -> None:
        """Says that no more rows will come into the segment."""
        self.header[_STATE] = _DONE

    @property
    def is_done(self) -> bool:
        """Whether no more rows will come into the segment."""
        return self.header[_STATE] == _DONE

    def release_pages(self) -> None:
        """Takes the pages out of the memory of this process; what they hold stays with the file."""
        self.buffer.madvise(mmap.MADV_DONTNEED)

    def mark_sealed(self) -> None:
        """Gives the space back: all rows are in published shards."""
        self.header[_STATE] = _SEALED

    @property
    def is_sealed(self) -> bool:
        """Whether all rows are in published shards."""
        return self.header[_STATE] == _SEALED

    def allocate(self, data: bytes | memoryview) -> tuple[int, int] | None:
        """Puts bytes into the heap; returns offset and length, or None where they don't fit."""
        used, size = self.header[HEAP_USED], len(data)
        if used + size > self.layout.heap_bytes:
            return None
        start = self.layout.heap_offset + used
        self.buffer[start : start + size] = data
        self.header[HEAP_USED] = used + size
        return used, size

    def heap(self, offset: int, size: int) -> bytes:
        """Returns bytes from the heap."""
        start = self.layout.heap_offset + offset
        return self.buffer[start : start + size]

    def add_note(self, row: int, text: bytes) -> bool:
        """Adds metadata for the episode of a row; returns False where there is no room."""
        index = self.header[_NUM_NOTES]
        # Only an episode's last note counts, so one for the same row may take the place of another.
        if index == _MAX_NOTES or (place := self.allocate(text)) is None:
            return False
        self.notes[index] = (row, *place)
        self.header[_NUM_NOTES] = index + 1
        return True

    def last_note(self, start: int, stop: int) -> bytes | None:
        """Returns the last note for the rows from `start` to before `stop`, or None."""
        rows = self.notes[: self.header[_NUM_NOTES], 0]  # they ascend
        index = int(np.searchsorted(rows, stop)) - 1
        if index < 0 or rows[index] < start:
            return None
        _, offset, size = self.notes[index].tolist()
        return self.heap(offset, size)

    def column(
        self, feature: Feature, start: int, stop: int, present: npt.NDArray[np.bool_]
    ) -> features_lib.Column:
        """Returns rows of a leaf.

        Args:
          feature: The leaf, as the layout has it.
          start: The place of the first row in the segment.
          stop: The place behind the last.
          present: bool (stop - start,): whether a row has the leaf; the others are padding.

        Returns:
          A view of the mapping where all rows have it and are of one shape; otherwise a copy.
        """
        values = self.columns[feature.path][start:stop]
        if is_varying(feature):
            places = np.where(present[:, None], values, 0).tolist()
            return unpack_varying(feature, [self.heap(offset, size) for offset, size in places])
        if not present.all():
            # What lies there is left of the segment's former rows.
            values = values.copy()
            values[~present] = 0
        return values

    def sync(self) -> None:
        """Makes the rows survive a loss of power."""
        self.buffer.flush()

    def close(self) -> None:
        """Unmaps the segment, as soon as no view of it is left."""
        self.header.release()
        del self.notes, self.records, self.columns
        with contextlib.suppress(BufferError):  # a column that somebody still holds keeps it
            self.buffer.close()


def open_segment(path: str, layouts: Mapping[int, Layout]) -> Segment | None:
    """Returns the segment in a file, or None if it holds no rows that may be unsealed."""
    words = _read_header(path)
    if words[_STATE] not in (_IN_USE, _DONE) or int(words[_LAYOUT]) not in layouts:
        return None
    return Segment(path, layouts[int(words[_LAYOUT])])


def count_rows(path: str) -> int:
    """Returns how many rows a session has up to those in a segment's file; 0 if all of it is sealed."""
    words = _read_header(path)
    is_unsealed = words[_STATE] in (_IN_USE, _DONE)
    return int(words[_FIRST_ROW] + words[_COUNT]) if is_unsealed else 0


def _read_header(path: str) -> npt.NDArray[np.int64]:
    with open(path, "rb") as file:
        return np.frombuffer(file.read(_HEADER_BYTES).ljust(_HEADER_BYTES, b"\0"), "<i8")


def reserve(path: str, size: int) -> None:
    """Makes a file of zeros whose space is reserved.

    The zeros are written: that puts large pages into the kernel's cache, and the first write to a
    mapping of them costs a twentieth of what it costs where the space is only set aside.

    Raises:
      OSError: There is no space.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            os.posix_fallocate(descriptor, 0, size)
            zeros = bytes(min(size, _ZEROS_BYTES))
            for start in range(0, size, len(zeros)):
                os.pwrite(descriptor, memoryview(zeros)[: size - start], start)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        # A path by way of a descriptor says nothing to people.
        raise OSError(error.errno, error.strerror, os.path.realpath(path)) from error


def segment_path(directory: str, stream: int, index: int | str) -> str:
    """Returns where a segment of a stream is; the index "*" stands for all of them."""
    return os.path.join(directory, f"segment-{stream}-{index}")


def spare_path(directory: str, layout: Layout, index: int) -> str:
    """Returns where the helper puts a segment's file before the writer needs it."""
    return os.path.join(directory, f"spare-{layout.number}-{index}")


def in_record(feature: Feature) -> bool:
    """Whether a leaf is a field of the packed record: scalars, and references into the heap."""
    return feature.shape == () or is_varying(feature)


def is_varying(feature: Feature) -> bool:
    """Whether the size of a leaf varies from row to row."""
    return feature.is_ragged or feature.dtype == features_lib.STRING


def pack_varying(feature: Feature, array: npt.NDArray[Any]) -> bytes:
    """Returns a leaf of varying size as bytes: its shape, the lengths of its strings, its data."""
    shape = np.array(array.shape, "<u4").tobytes()
    if feature.dtype != features_lib.STRING:
        return shape + array.tobytes()
    items = array.reshape(-1).tolist()
    lengths = np.array([len(item) for item in items], "<u4").tobytes()
    return b"".join([shape, lengths, *items])


def unpack_varying(feature: Feature, rows: list[bytes]) -> features_lib.Column:
    """Returns the rows that `pack_varying` packed; an empty one is padding."""
    rank = len(feature.shape)
    padding = np.asarray(feature.zeros(1)[0], feature.dtype)
    column = [_unpack(feature, rank, row) if row else padding for row in rows]
    if feature.is_ragged:
        return column
    fixed = np.empty((len(rows), *_fixed(feature)), feature.dtype)
    for i, row in enumerate(column):
        fixed[i] = row if row.shape else row[()]
    return fixed


def _unpack(feature: Feature, rank: int, row: bytes) -> npt.NDArray[Any]:
    shape = np.frombuffer(row, "<u4", rank).tolist()
    start = rank * 4
    if feature.dtype != features_lib.STRING:
        return np.frombuffer(row, feature.dtype, offset=start).reshape(shape)
    count = int(np.prod(shape, dtype=np.int64))
    lengths = np.frombuffer(row, "<u4", count, start).tolist()
    start += count * 4
    items = np.empty(count, object)
    for i, length in enumerate(lengths):
        items[i] = row[start : start + length]
        start += length
    return items.reshape(shape)


def _field(index: int, feature: Feature) -> tuple[Any, ...]:
    name = f"f{index}"
    return (name, "<i8", (2,)) if is_varying(feature) else (name, feature.dtype)


def _fixed(feature: Feature) -> tuple[int, ...]:
    return tuple(dim or 0 for dim in feature.shape)


def _nbytes(feature: Feature) -> int:
    return 16 if is_varying(feature) else feature.size * feature.dtype.itemsize


def _align(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


__all__ = ["NEW_EPISODE", "Layout", "Segment", "make_layout", "open_segment"]
