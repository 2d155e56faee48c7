# SPDX-License-Identifier: Apache-2.0
"""A record of which parts are read when they are asked for.

An episode of images takes megabytes, and a step of it some of them. Where the record lies in its file as
it is, not compressed, only the features that are small are read as a whole; of the others, rows.
"""

from __future__ import annotations

import collections
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from envlogger import errors
from envlogger.tfds import example
from envlogger.tfds.example import Layout, RawFeature

# So much is read at once where it is parsed byte by byte.
_WINDOW = 512
_LONGEST_HEADER = 11  # of an element: a tag and a varint
_MAX_BUFFERS = 1024  # of one call of readv(2)


class Place(NamedTuple):
    """Where a record lies in a file.

    Attributes:
      position: Of what contains it, as the reader of the file has it.
      offset: Of the record in that.
      size: Of the record, in bytes.
    """

    position: int
    offset: int
    size: int


class RecordOnDisk:
    """The bytes of a record, which are read when they are asked for. Threads may share one.

    Args:
      size: Of the record, in bytes.
      read: Returns the bytes from one place to another, which are the caller's; fewer where there are none.
      num_bytes: How much memory it takes.
      read_into: Fills buffers with the bytes from a place on, and returns how many there were; by default,
        by way of `read`.
    """

    def __init__(
        self,
        size: int,
        read: Callable[[int, int], memoryview],
        num_bytes: int = 0,
        read_into: Callable[[int, Sequence[memoryview]], int] | None = None,
    ) -> None:
        self.num_bytes = num_bytes
        self._size = size
        self._read = read
        self._read_into = read_into or self._spread
        self._window: tuple[int, memoryview] = (0, memoryview(b""))

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, key: int, /) -> int: ...

    @overload
    def __getitem__(self, key: slice, /) -> memoryview: ...

    def __getitem__(self, key: int | slice, /) -> int | memoryview:
        """Returns a byte, or the bytes from a place to another."""
        start, stop = (key, key + 1) if isinstance(key, int) else (key.start, key.stop)
        first, data = self._window
        if not first <= start <= stop <= first + len(data):
            if stop > self._size:
                raise IndexError(f"byte {stop} of {self._size}")
            if not isinstance(key, int):
                return self._checked(start, stop)
            first, data = start, self._checked(start, min(start + _WINDOW, self._size))
            self._window = first, data
        return data[key - first] if isinstance(key, int) else data[start - first : stop - first]

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        """Fills buffers with the bytes from a place on.

        Raises:
          CorruptDatasetError: There are not so many.
        """
        stop = start + sum(map(len, buffers))
        self._check(self._read_into(start, buffers), start, stop)

    def _spread(self, start: int, buffers: Sequence[memoryview]) -> int:
        return spread(self._read(start, start + sum(map(len, buffers))), buffers)

    def _checked(self, start: int, stop: int) -> memoryview:
        data = self._read(start, stop)
        self._check(len(data), start, stop)
        return data

    def _check(self, found: int, start: int, stop: int) -> None:
        if found != stop - start:
            raise errors.CorruptDatasetError(
                f"the file ends before byte {stop} of a record of {self._size} bytes."
            )


def spread(data: memoryview, buffers: Sequence[memoryview]) -> int:
    """Fills buffers with data, as far as there is any; returns how many bytes they got."""
    position = 0
    for buffer in buffers:
        piece = data[position : position + len(buffer)]
        buffer[: len(piece)] = piece
        position += len(piece)
    return position


def fill(descriptor: int, buffers: Iterable[memoryview], position: int) -> int:
    """Fills buffers from a place in a file on; returns how many bytes there were: fewer at its end."""
    pieces = collections.deque(buffers)
    end = position
    while pieces:
        # It may stop early: after 2 GiB, or where a signal comes in between.
        found = os.preadv(descriptor, list(itertools.islice(pieces, _MAX_BUFFERS)), end)
        end += found
        if not found and len(pieces[0]):
            break
        while pieces and found >= len(pieces[0]):
            found -= len(pieces.popleft())
        if found:
            pieces[0] = pieces[0][found:]
    return end - position


def record_in_memory(data: memoryview) -> RecordOnDisk:
    """Returns a record that was read as a whole."""

    def read(start: int, stop: int) -> memoryview:
        return memoryview(bytearray(data[start:stop]))

    return RecordOnDisk(len(data), read, len(data))


class Places:
    """What was found out of a record, for the next time that it is opened. Threads may share it.

    Attributes:
      layout: Where its features are.
      num_bytes: Of the features that are read as a whole.
      elements: Where the elements are of lists that differ in size, by where the lists start.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.num_bytes = sum(
            stop - start
            for kind, start, stop in layout.values()
            if not example.is_large(kind, stop - start)
        )
        self.elements: dict[int, list[tuple[int, int]]] = {}


class _EqualPlaces(Sequence[tuple[int, int]]):
    """Start and stop of elements of one size, which need not be listed."""

    def __init__(self, stops: range, size: int) -> None:
        self._stops = stops
        self._size = size

    def __len__(self) -> int:
        return len(self._stops)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...

    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(index, slice):
            return [(stop - self._size, stop) for stop in self._stops[index]]
        stop = self._stops[index]
        return stop - self._size, stop


class ElementsOnDisk(Sequence[memoryview]):
    """The elements of a BytesList, read one by one.

    Args:
      record: The record.
      places: Start and stop of each.
      header: What stands before each, which is then compared; nothing if that has been done.
    """

    def __init__(
        self, record: RecordOnDisk, places: Sequence[tuple[int, int]], header: bytes = b""
    ) -> None:
        self._record = record
        self._places = places
        self._header = header

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> memoryview: ...

    @overload
    def __getitem__(self, index: slice) -> list[memoryview]: ...

    def __getitem__(self, index: int | slice) -> memoryview | list[memoryview]:
        """Reads elements."""
        if isinstance(index, slice):
            return [self._read(*place) for place in self._places[index]]
        return self._read(*self._places[index])

    def run(self, first: int, end: int) -> list[memoryview]:
        """Reads the elements [first, end) at once. What is returned shares its memory."""
        places, size = self._places[first:end], len(self._header)
        if not places:
            return []
        position = places[0][0] - size
        data = self._record[position : places[-1][1]]
        headers = (data[start - size - position : start - position] for start, _ in places)
        if size and any(header != self._header for header in headers):
            raise ValueError(f"elements are not of {places[0][1] - places[0][0]} bytes each")
        return [data[start - position : stop - position] for start, stop in places]

    def read_into(self, indices: Sequence[int], rows: npt.NDArray[Any]) -> None:
        """Reads elements straight into rows; those that follow one another at once.

        Args:
          indices: Of n elements, which have the size of a row each.
          rows: (n, ...), contiguous.

        Raises:
          ValueError: They have another size.
        """
        begin = 0
        for end in range(1, len(indices) + 1):
            if end == len(indices) or indices[end] != indices[end - 1] + 1:
                self.read_run_into(indices[begin], rows[begin:end])
                begin = end

    def read_run_into(self, first: int, rows: npt.NDArray[Any]) -> None:
        """Does what `read_into` does, with as many elements as there are rows, from one on; not with none."""
        start, stop = self._places[first]
        size, header = stop - start, self._header
        if size != rows[0].nbytes:
            raise ValueError(f"elements are not of {rows[0].nbytes} bytes each")
        headers = memoryview(bytearray(len(header) * len(rows)))
        values = rows.reshape(-1).view(np.uint8).data
        buffers = []
        for i in range(len(rows)):
            buffers.append(headers[i * len(header) : (i + 1) * len(header)])
            buffers.append(values[i * size : (i + 1) * size])
        self._record.read_into(start - len(header), buffers)
        if headers != header * len(rows):
            raise ValueError(f"elements are not of {size} bytes each")

    def _read(self, start: int, stop: int) -> memoryview:
        size = len(self._header)
        data = self._record[start - size : stop]
        if data[:size] != self._header:
            raise ValueError(f"elements are not of {stop - start} bytes each")
        return data[size:]


class ListOnDisk(RawFeature):
    """A large BytesList. Its size says how many bytes of it are in memory."""

    __slots__ = ("_place", "_places", "_record")

    def __init__(self, record: RecordOnDisk, start: int, stop: int, places: Places) -> None:
        super().__init__(example.BYTES_LIST)
        self._record = record
        self._place = start, stop
        self._places = places

    @property
    def data(self) -> memoryview:
        """The bytes of the list message, which are read."""
        start, stop = self._place
        return self._record[start:stop]

    def elements(self) -> ElementsOnDisk:
        """Returns the elements, of which the headers are read.

        Raises:
          ValueError: There is something else.
        """
        start, stop = self._place
        if start not in self._places.elements:
            self._places.elements[start] = self._find_elements(start, stop)
        return ElementsOnDisk(self._record, self._places.elements[start])

    def elements_of(self, size: int) -> ElementsOnDisk:
        """Returns the elements, which all have one size. Nothing is read.

        Raises:
          ValueError: They have another size; also later, when one is asked for.
        """
        start, stop = self._place
        header = example.element_header(size)
        stride = len(header) + size
        if (stop - start) % stride:
            raise ValueError(f"elements are not of {size} bytes each")
        places = _EqualPlaces(range(start + stride, stop + 1, stride), size)
        return ElementsOnDisk(self._record, places, header)

    def _find_elements(self, position: int, stop: int) -> list[tuple[int, int]]:
        found = []
        while position < stop:
            # One read for each: a parser looks at byte by byte.
            header = self._record[position : min(position + _LONGEST_HEADER, stop)]
            start, end = example.first_element(header)
            if position + end > stop:
                raise ValueError("an element ends behind its list")
            found.append((position + start, position + end))
            position += end
        return found


class PartialRecord(Mapping[str, RawFeature]):
    """The features of a record on disk.

    Args:
      record: The record.
      places: What was found out of it before.

    Raises:
      CorruptDatasetError: The bytes are not an Example.
    """

    def __init__(self, record: RecordOnDisk, places: Places | None = None) -> None:
        self.places = places or Places(example.find_layout(record))
        self.layout = self.places.layout
        self._record = record

    @property
    def num_bytes(self) -> int:
        """About how much memory the record takes, and the features that are read as a whole."""
        return self._record.num_bytes + self.places.num_bytes

    def list_bytes(self, name: str) -> bytes:
        """Returns the list message of a feature; nothing where there is no such feature."""
        return bytes(self[name].data) if name in self.layout else b""

    def __getitem__(self, name: str) -> RawFeature:
        kind, start, stop = self.layout[name]
        if example.is_large(kind, stop - start):
            return ListOnDisk(self._record, start, stop, self.places)
        return RawFeature(kind, self._record[start:stop])

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)
