# SPDX-License-Identifier: Apache-2.0
"""The wire form of `tf.train.Example`, read and written straight from numpy columns.

An Example is a map from feature name to one of three lists (protobuf wire format,
`tensorflow/core/example/example.proto` and `feature.proto`):

    Example   = 0A len Features
    Features  = (0A len Entry)*
    Entry     = 0A len name, 12 len Feature
    Feature   = 0A len BytesList | 12 len FloatList | 1A len Int64List
    BytesList = (0A len bytes)*        FloatList = 0A len packed        Int64List = 0A len packed

Every encoder stands beside its decoder. Nothing here knows about episodes, TFDS or RLDS, and nothing
loops over elements in Python, except over byte strings of different lengths.
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from envlogger import errors, varints

BYTES_LIST = 1
FLOAT_LIST = 2
INT64_LIST = 3

_KIND_NAMES = {BYTES_LIST: "bytes_list", FLOAT_LIST: "float_list", INT64_LIST: "int64_list"}
_LENGTH_DELIMITED = 2
# Rows from here on are joined to the record one by one, and not copied into a table before.
LARGE_ROW = 2048
_LARGE_LIST = 1 << 15
_BYTES_TAG = 0x0A  # field 1, length-delimited: an element of a list, and most of the messages above


Buffer: TypeAlias = bytes | memoryview


class Octets(Protocol):
    """Bytes that need not all be in memory."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, key: int, /) -> int: ...

    @overload
    def __getitem__(self, key: slice, /) -> Buffer: ...


# Episodes of one environment differ little in their number of steps, or all differ.
_MAX_LAYOUTS = 512

_NOWHERE = 0, 0, 0  # kind, start and stop of a feature that is not in a record


class RawFeature:
    """One feature as it lies in the record, not decoded.

    Args:
      kind: `BYTES_LIST`, `FLOAT_LIST` or `INT64_LIST`; 0 for a feature without a value.
      *parts: The bytes of the list message, end to end. They are not copied until the record is put
        together: a copy of an episode of images costs more than its compression.
    """

    __slots__ = ("kind", "parts", "size")

    def __init__(self, kind: int, *parts: Buffer) -> None:
        self.kind = kind
        self.parts = parts
        self.size = sum(map(len, parts))

    @property
    def data(self) -> memoryview:
        """The bytes of the list message, in one piece."""
        return memoryview(self.parts[0] if len(self.parts) == 1 else b"".join(self.parts))


@functools.lru_cache(maxsize=1 << 14)
def _header(tag: int, size: int) -> bytes:
    """Returns what stands before a length-delimited field."""
    return bytes((tag,)) + varints.encode(size)


@functools.lru_cache(maxsize=1 << 14)
def _entry_header(name: str, kind: int, size: int) -> bytes:
    """Returns what stands before the list of a feature: headers of the entry, name and value."""
    encoded = name.encode()
    value = _header(kind << 3 | _LENGTH_DELIMITED, size)
    entry = _header(_BYTES_TAG, len(encoded)) + encoded + _header(0x12, len(value) + size) + value
    return _header(_BYTES_TAG, len(entry) + size) + entry


def element_header(size: int) -> bytes:
    """Returns what stands before an element of a BytesList."""
    return _header(_BYTES_TAG, size)


def list_stops(features: Mapping[str, RawFeature]) -> dict[str, int]:
    """Returns where in the serialized Example the list of each feature ends."""
    sizes = {
        name: len(_entry_header(name, feature.kind, feature.size)) + feature.size
        for name, feature in features.items()
    }
    start = len(_header(_BYTES_TAG, sum(sizes.values())))
    stops = itertools.accumulate(sizes.values(), initial=start)
    return dict(zip(sizes, itertools.islice(stops, 1, None), strict=True))


def is_large(kind: int, size: int) -> bool:
    """Whether a list of so many bytes is so large that its elements are best read one by one."""
    return kind == BYTES_LIST and size >= _LARGE_LIST


def serialize(features: Mapping[str, RawFeature]) -> bytes:
    """Returns the serialized Example that holds `features`, in their order."""
    parts: list[Buffer] = [b""]
    size = 0
    for name, feature in features.items():
        header = _entry_header(name, feature.kind, feature.size)
        parts.append(header)
        parts += feature.parts
        size += len(header) + feature.size
    parts[0] = _header(_BYTES_TAG, size)
    return b"".join(parts)


class Layout(dict[str, tuple[int, int, int]]):
    """Kind, start and stop of each feature's list in a record.

    Attributes:
      notes: For whoever decodes such records to note what else they have in common.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notes: Any = None

    def list_in(self, record: bytes, name: str) -> bytes:
        """Returns the list message of a feature of a record; nothing where there is no such feature."""
        _, start, stop = self.get(name, _NOWHERE)
        return record[start:stop]


class ParsedRecord(Mapping[str, RawFeature]):
    """The features of a record, which are cut out of it when they are asked for.

    Args:
      record: A serialized Example.
      layout: Kind, start and stop of each feature's list in it, the same object for all records that
        look alike.
    """

    __slots__ = ("layout", "record")

    def __init__(self, record: bytes, layout: Layout) -> None:
        self.record = record
        self.layout = layout

    def __getitem__(self, name: str) -> RawFeature:
        kind, start, stop = self.layout[name]
        return RawFeature(kind, memoryview(self.record)[start:stop])

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)


class Parser:
    """Finds the layouts of records, faster where one looks like another before it.

    Records of one length that agree in all that stands between their features' values have these
    at the same places; so what stands there is compared, and not parsed again.
    """

    def __init__(self) -> None:
        # By the lengths of records.
        self._layouts: collections.OrderedDict[
            int, tuple[Layout, struct.Struct, tuple[bytes, ...]]
        ] = collections.OrderedDict()

    def layout_of(self, record: bytes) -> Layout:
        """Returns where the features of a record are.

        Raises:
          CorruptDatasetError: The bytes are not an Example.
        """
        known = self._layouts.get(len(record))
        if known is not None:
            layout, between, expected = known
            if between.unpack(record) == expected:
                return layout
        layout = find_layout(record)
        if known is None and len(self._layouts) >= _MAX_LAYOUTS:
            self._layouts.popitem(last=False)
        between = _between(len(record), layout)
        self._layouts[len(record)] = layout, between, between.unpack(record)
        return layout


def _between(size: int, layout: Layout) -> struct.Struct:
    """Returns what cuts the stretches out of a record that are not values."""
    parts, position = [], 0
    for start, stop in sorted((start, stop) for _, start, stop in layout.values() if stop > start):
        parts.append(f"{start - position}s{stop - start}x")
        position = stop
    return struct.Struct(f"<{''.join(parts)}{size - position}s")


def parse(record: bytes) -> dict[str, RawFeature]:
    """Splits a serialized Example into its features, without decoding their values.

    Raises:
      CorruptDatasetError: The bytes are not an Example.
    """
    return dict(ParsedRecord(record, find_layout(record)))


def find_layout(record: Octets) -> Layout:
    """Returns where the features of a serialized Example are, of which only the headers are read.

    Raises:
      CorruptDatasetError: The bytes are not an Example.
    """
    layout = Layout()
    try:
        for body in _fields(record, 0, len(record), 1):
            for entry in _fields(record, *body, 1):
                name, place = _parse_entry(record, *entry)
                layout[name] = place
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise errors.CorruptDatasetError(
            f"A record of {len(record)} bytes is not a tf.train.Example: {error}."
        ) from error
    return layout


def _parse_entry(record: Octets, start: int, stop: int) -> tuple[str, tuple[int, int, int]]:
    name, place = "", (0, 0, 0)
    for field, begin, end in _messages(record, start, stop):
        if field == 1:
            name = str(record[begin:end], "utf-8")
        elif field == 2:
            for value in _messages(record, begin, end):
                place = value
    return name, place


def _messages(record: Octets, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yields number, start and stop of the length-delimited fields of a message."""
    position = start
    while position < stop:
        tag, position = varints.read(record, position)
        if tag & 7 != _LENGTH_DELIMITED:
            raise ValueError(f"wire type {tag & 7} where a message was expected")
        size, position = varints.read(record, position)
        if position + size > stop:
            raise ValueError("a field ends behind the record")
        yield tag >> 3, position, position + size
        position += size


def _fields(record: Octets, start: int, stop: int, number: int) -> Iterator[tuple[int, int]]:
    return ((a, b) for field, a, b in _messages(record, start, stop) if field == number)


def elements(record: Octets, start: int, stop: int) -> list[tuple[int, int]]:
    """Returns start and stop of each element of the BytesList that is at a place in a record."""
    return list(_fields(record, start, stop, 1))


def first_element(data: Octets) -> tuple[int, int]:
    """Returns start and stop of the element that part of a BytesList begins with.

    Raises:
      ValueError: There is something else.
    """
    if data[0] != _BYTES_TAG:
        raise ValueError("a list of byte strings has something else in it")
    size, start = varints.read(data, 1)
    return start, start + size


def _packed(kind: int, chunks: Sequence[Buffer]) -> RawFeature:
    return RawFeature(kind, _header(_BYTES_TAG, sum(map(len, chunks))), *chunks)


def float_feature(*chunks: npt.NDArray[Any]) -> RawFeature:
    """Returns a FloatList of all the values of arrays, in C order; they are cast to float32."""
    return _packed(FLOAT_LIST, [_bytes_of(np.ascontiguousarray(c, "<f4")) for c in chunks])


def decode_floats(feature: RawFeature) -> npt.NDArray[np.float32]:
    """Returns the values of a FloatList, shape (n,); a view where the list is packed in one piece."""
    _check_kind(feature, FLOAT_LIST)
    data = feature.data
    if len(data) and data[0] == 0x0D:  # not packed: (0D, four bytes) for each value
        table = np.frombuffer(data, np.dtype([("tag", "u1"), ("value", "<f4")]))
        _check_tags(table["tag"], 0x0D)
        return table["value"].copy()
    packed = _in_one_piece(data)
    if packed is not None:
        return np.frombuffer(packed, "<f4")
    chunks = [np.frombuffer(data[a:b], "<f4") for a, b in elements(data, 0, len(data))]
    return np.concatenate([np.empty(0, "<f4"), *chunks])


def int64_feature(*chunks: npt.NDArray[Any]) -> RawFeature:
    """Returns an Int64List of all the values of arrays, in C order (bools as 0 and 1, uint64 bit-cast)."""
    return _packed(
        INT64_LIST, [varints.encode_array(np.ascontiguousarray(c).reshape(-1)) for c in chunks]
    )


def decode_int64s(feature: RawFeature) -> npt.NDArray[np.int64]:
    """Returns the values of an Int64List, shape (n,)."""
    _check_kind(feature, INT64_LIST)
    data = feature.data
    if len(data) and data[0] == 0x08:  # not packed: (08, varint) for each value
        tagged = _integers(data)
        _check_tags(tagged[::2], 0x08)
        if len(tagged) % 2:
            raise ValueError("a number is missing at the end")
        return tagged[1::2]
    packed = _in_one_piece(data)
    if packed is not None:
        return _integers(packed)
    chunks = [_integers(data[a:b]) for a, b in elements(data, 0, len(data))]
    return np.concatenate([np.empty(0, np.int64), *chunks])


def _in_one_piece(data: memoryview) -> memoryview | None:
    """Returns the packed values of a list that has them in one piece, as writers do; or None."""
    if not len(data) or data[0] != _BYTES_TAG:
        return None
    size, position = varints.read(data, 1)
    return data[position:] if position + size == len(data) else None


def bytes_feature(values: Iterable[Buffer]) -> RawFeature:
    """Returns a BytesList of byte strings of any lengths."""
    parts: list[Buffer] = []
    for value in values:
        parts += (_header(_BYTES_TAG, len(value)), value)
    return RawFeature(BYTES_LIST, *parts)


def rows_feature(*chunks: npt.NDArray[Any]) -> RawFeature:
    """Returns a BytesList with the raw bytes of each row of arrays, (n, *shape) of one row shape."""
    size = chunks[0].dtype.itemsize * math.prod(chunks[0].shape[1:])
    if size >= LARGE_ROW:
        rows = (_bytes_of(np.ascontiguousarray(row)) for chunk in chunks for row in chunk)
        return bytes_feature(rows)
    prefix = _header(_BYTES_TAG, size)
    table = np.empty((sum(map(len, chunks)), len(prefix) + size), np.uint8)
    table[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
    start = 0
    for chunk in chunks:
        stop = start + len(chunk)
        if size and stop > start:
            raw = np.ascontiguousarray(chunk).reshape(len(chunk), -1).view(np.uint8)
            table[start:stop, len(prefix) :] = raw
        start = stop
    return RawFeature(BYTES_LIST, table.reshape(-1).data)


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """Returns the bytes of a contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def decode_bytes(feature: RawFeature) -> list[memoryview]:
    """Returns the elements of a BytesList; each a view into the record."""
    _check_kind(feature, BYTES_LIST)
    data = feature.data
    return [data[start:stop] for start, stop in elements(data, 0, len(data))]


def decode_rows(
    feature: RawFeature, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Returns a BytesList of elements of one size as an array (n, *shape); the twin of `rows_feature`.

    The array is a view into the record: neither writable nor aligned, nor contiguous.

    Raises:
      ValueError: An element has another size than `dtype` and `shape` say.
    """
    _check_kind(feature, BYTES_LIST)
    size = dtype.itemsize * math.prod(shape)
    prefix = _header(_BYTES_TAG, size)
    stride = len(prefix) + size
    data = np.frombuffer(feature.data, np.uint8)
    count = data.size // stride
    table = data[: count * stride].reshape(count, stride)
    if count * stride != data.size or table[:, : len(prefix)].tobytes() != prefix * count:
        raise ValueError(f"elements are not of {size} bytes each")
    if not size:
        return np.empty((count, *shape), dtype)
    return table[:, len(prefix) :].view(dtype).reshape(count, *shape)


def _integers(data: Buffer) -> npt.NDArray[np.int64]:
    return varints.decode_array(np.frombuffer(data, np.uint8)).view(np.int64)


def _check_tags(tags: npt.NDArray[Any], expected: int) -> None:
    if not (tags == expected).all():
        raise ValueError("a list is packed in part")


def _check_kind(feature: RawFeature, kind: int) -> None:
    if feature.kind != kind:
        got = _KIND_NAMES.get(feature.kind, "no value")
        raise ValueError(f"got {got}, expected {_KIND_NAMES[kind]}")
