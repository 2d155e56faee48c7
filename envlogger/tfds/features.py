# SPDX-License-Identifier: Apache-2.0
"""One feature of a dataset: its dtype, shape and encoding, and the codec of its columns.

A feature is seen in three ways: as a column of T rows (numpy), as an entry of `features.json` (only
classes that stock TFDS has), and as lists in a `tf.train.Example`. The encoding of a feature is
chosen so that stock TFDS reads the same bits back, with and without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from envlogger import errors
from envlogger.tfds import example, images
from envlogger.tfds.partial_record import ElementsOnDisk, ListOnDisk
from envlogger.tfds.structure import Path, object_array

Shape: TypeAlias = tuple[int | None, ...]
# T rows of one feature: an array (T, *shape); a list of T arrays where a dimension is unknown.
# Strings are object arrays of bytes.
Column: TypeAlias = npt.NDArray[Any] | list[npt.NDArray[Any]]

STRING = np.dtype(object)

# Integers that are written as varints decode in the same pass that parses the record, others in a
# map call of their own; but each varint takes eight bytes in TensorFlow's memory until it is cast.
_MAX_PLAIN_INTEGERS = 256

# Smaller rows are not worth being read from disk one by one.
_ROW_ON_DISK = 1 << 13

# OpenCV writes no image with a longer side, and Pillow (TFDS without TensorFlow) warns of bombs from
# 89 million pixels on. What is larger is stored as BYTES.
_MAX_IMAGE_SIDE = 65_500
_MAX_IMAGE_PIXELS = 1 << 26


class Encoding(enum.Enum):
    """How the values of a feature lie in the Example."""

    PLAIN = "none"  # FloatList or Int64List
    BYTES = "bytes"  # BytesList: the raw little-endian bytes of each row
    ZLIB = "zlib"  # the same, deflated
    STRING = "string"  # BytesList: each string
    SEQUENCE = "sequence"  # a TFDS Sequence: flat values and row lengths
    PNG = "png"
    JPEG = "jpeg"


IMAGE_ENCODINGS = {"png": Encoding.PNG, "jpeg": Encoding.JPEG, "raw": Encoding.BYTES}


class EncodedColumn(Sequence[npt.NDArray[Any]]):
    """A column whose rows are decoded when they are asked for, such as images.

    Args:
      items: The rows as they are stored.
      decode: Returns the row that an item holds, an array of its own.
      keeps: Whether rows that are taken one by one, or few at a time, are kept decoded.
      is_large: Whether a row takes so long that it pays to decode on all cores.
    """

    def __init__(
        self,
        items: Sequence[Any],
        decode: Callable[[Any], npt.NDArray[Any]],
        *,
        keeps: bool = False,
        is_large: bool = True,
    ) -> None:
        self._items = items
        self._decode = decode
        self._keeps = keeps
        self._is_large = is_large
        self._kept: dict[int, npt.NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[npt.NDArray[Any]]: ...

    def __getitem__(self, index: int | slice) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        if isinstance(index, slice):
            return self._decode_all(self._items[index])
        return self._decode(self._items[index])

    def row(self, index: int) -> npt.NDArray[Any]:
        """Returns a row, an array of its own."""
        (row,) = self.take([index])
        return row.copy() if self._keeps else row

    def take(self, indices: Iterable[int]) -> list[npt.NDArray[Any]]:
        """Returns the rows at some indices, which may be kept here as well: copy what you give away."""
        wanted = list(indices)
        missing = [i for i in dict.fromkeys(wanted) if i not in self._kept]
        decoded = self._decode_all([self._items[i] for i in missing])
        found = dict(zip(missing, decoded, strict=True))
        if self._keeps and 2 * len(wanted) <= len(self):
            self._kept.update(found)
        return [self._kept[i] if i in self._kept else found[i] for i in wanted]

    def stack(self, indices: Sequence[int], feature: Feature) -> npt.NDArray[Any]:
        """Returns the rows at some indices as one array of its own; see `stack`."""
        shape = (len(indices), *_fixed(feature.shape))
        if feature.encoding is Encoding.BYTES and isinstance(self._items, ElementsOnDisk):
            column = np.empty(shape, feature.dtype)
            self._items.read_into(indices, column)
            return column
        is_most = isinstance(indices, range) and 2 * len(indices) > len(self)
        if not (self._keeps and is_most):
            return stack(self.take(indices), feature)
        column = np.empty(shape, feature.dtype)

        def fill(start: int, stop: int) -> None:
            items = self._stored(indices[start:stop])
            for row, item in zip(column[start:stop], items, strict=True):
                row[...] = self._decode(item)

        images.in_runs(fill, len(indices), is_large=self._is_large)
        return column

    def _stored(self, indices: Sequence[int]) -> Sequence[Any]:
        """Returns the rows at some indices as they are stored, read at once where they follow one another."""
        is_run = isinstance(indices, range) and indices.step == 1
        if is_run and isinstance(self._items, ElementsOnDisk):
            return self._items.run(indices[0], indices[-1] + 1)
        return [self._items[i] for i in indices]

    @staticmethod
    def decode_together(columns: Sequence[EncodedColumn], index: int) -> None:
        """Decodes a row of several columns on all cores; those that keep rows have it then."""
        missing = [c for c in columns if c._keeps and index not in c._kept]
        rows = images.map_all(lambda column: column[index], missing, is_large=True)
        for column, row in zip(missing, rows, strict=True):
            column._kept[index] = row

    def _decode_all(self, items: Sequence[Any]) -> list[npt.NDArray[Any]]:
        return images.map_all(self._decode, items, is_large=self._is_large)


class Chunks(list[npt.NDArray[Any]]):
    """A column in pieces: arrays (t, *shape) of fixed shape, one behind the other."""


@dataclasses.dataclass(frozen=True)
class Feature:
    """A leaf of a dataset's features.

    Attributes:
      path: Where it is, below the step or the episode: `("observation", "camera")`.
      dtype: The dtype of its values; `STRING` (object) for byte strings.
      shape: The shape of a row; None for a dimension that varies.
      encoding: How a row is stored.
      description: What it is, for `features.json`.
      item_encoding: How the items of a SEQUENCE are stored; None for PLAIN or STRING, unless the
        sequence is one of dicts. With it, a column can be read, but not written.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: Shape
    encoding: Encoding
    description: str = ""
    item_encoding: Encoding | None = None

    @property
    def is_ragged(self) -> bool:
        """Whether rows differ in shape."""
        return None in self.shape

    @property
    def item(self) -> Feature:
        """The feature that each item of a SEQUENCE has."""
        plain = Encoding.STRING if self.dtype == STRING else Encoding.PLAIN
        return Feature(self.path, self.dtype, self.shape[1:], self.item_encoding or plain)

    @property
    def size(self) -> int:
        """The number of elements of a row, with 1 for each dimension that varies."""
        return math.prod(1 if dim is None else dim for dim in self.shape)

    @property
    def is_large(self) -> bool:
        """Whether a row is so large that it is better not copied."""
        return self.size * self.dtype.itemsize >= example.LARGE_ROW

    def zeros(self, count: int) -> Column:
        """Returns a column of `count` rows of padding: zeros, empty strings."""
        shape = tuple(0 if dim is None else dim for dim in self.shape)
        if self.encoding in (Encoding.PNG, Encoding.JPEG):
            shape = tuple(dim or 1 for dim in shape)  # there is no image without pixels
        column = np.full((count, *shape), b"" if self.dtype == STRING else 0, self.dtype)
        return list(column) if self.is_ragged else column


def choose(
    path: Path, dtype: np.dtype[Any], shape: Shape, image_format: str, description: str = ""
) -> Feature:
    """Returns the feature in which stock TFDS keeps every bit of such values.

    Its first dimension varies where TFDS can store the values only as a list. The choice follows what TFDS 4.9.10 was seen to do: it narrows plain float64, has no raw decoder
    for uint32, overflows on plain uint64, and dies of SIGFPE on plain tensors without elements.

    Raises:
      UnsupportedValueError: No encoding reads back exactly.
    """
    encoding = _choose_encoding(path, dtype, shape, image_format)
    if encoding is Encoding.SEQUENCE:
        shape = (None, *shape[1:])
    return Feature(path, dtype, shape, encoding, description)


def _choose_encoding(path: Path, dtype: np.dtype[Any], shape: Shape, image_format: str) -> Encoding:
    varying = sum(dim is None for dim in shape)
    empty = 0 in shape
    if image_format != "raw" and dtype == np.uint8 and is_image_shape(shape):
        return IMAGE_ENCODINGS[image_format]
    if varying > 1 or (varying and empty):
        raise errors.UnsupportedValueError(
            f"{errors.format_path(path)}: got values whose shapes differ in {varying} dimensions "
            f"({shape}); TFDS reads back one varying dimension of values that are not empty. "
            "Pad them, or log them flat beside their shape."
        )
    if dtype in (STRING, np.uint32):
        if varying and shape[0] is not None:
            raise errors.UnsupportedValueError(
                f"{errors.format_path(path)}: got {dtype_name(dtype)} values of shape {shape}; for "
                "this dtype TFDS reads back only a varying first dimension. Transpose them."
            )
        if varying or empty:
            return Encoding.SEQUENCE
        return Encoding.STRING if dtype == STRING else Encoding.PLAIN
    if varying or empty:
        return Encoding.BYTES
    if dtype == np.float32:
        return Encoding.PLAIN
    if dtype.kind in "biu" and dtype != np.uint64:
        size = math.prod(dim or 0 for dim in shape)
        return Encoding.PLAIN if size <= _MAX_PLAIN_INTEGERS else Encoding.BYTES
    return Encoding.BYTES


def is_image_shape(shape: Shape) -> bool:
    """Whether arrays of a shape can be stored as images: height, width, 1 channel or 3."""
    if len(shape) != 3 or shape[2] not in (1, 3):
        return False
    height, width = (1 if dim is None else dim for dim in shape[:2])
    return 0 < height * width <= _MAX_IMAGE_PIXELS and max(height, width) <= _MAX_IMAGE_SIDE


# --- columns <-> Example ---------------------------------------------------------------------------


def encode_column(feature: Feature, *chunks: Column, nested: bool) -> dict[str, example.RawFeature]:
    """Returns the features of the Example that hold a column, by the suffix of their names.

    Args:
      feature: What the column holds; its items, if it is a SEQUENCE, are PLAIN or STRING.
      *chunks: T rows, in one column or more.
      nested: True below `steps`; False for a feature of the episode, whose column has one row.
    """
    encoding = feature.encoding
    if encoding is Encoding.SEQUENCE:
        return _encode_sequence(feature, [row for chunk in chunks for row in chunk], nested)
    if encoding is Encoding.PLAIN:
        arrays = [np.asarray(chunk) for chunk in chunks]
        is_float = feature.dtype.kind not in "biu"
        return {"": example.float_feature(*arrays) if is_float else example.int64_feature(*arrays)}
    if encoding is Encoding.STRING:
        strings = [np.asarray(chunk, object).reshape(-1).tolist() for chunk in chunks]
        return {"": example.bytes_feature(itertools.chain(*strings))}
    if encoding in (Encoding.PNG, Encoding.JPEG):
        pictures = [row for chunk in chunks for row in chunk]
        return {"": example.bytes_feature(images.encode_all(pictures, encoding.value))}
    if encoding is Encoding.BYTES and not feature.is_ragged:
        return {"": example.rows_feature(*(_little_endian(np.asarray(c)) for c in chunks))}
    rows = [_little_endian(np.asarray(row)).tobytes() for chunk in chunks for row in chunk]
    if encoding is Encoding.ZLIB:
        rows = [zlib.compress(row) for row in rows]
    return {"": example.bytes_feature(rows)}


def decode_column(
    feature: Feature, raw: Mapping[str, example.RawFeature], name: str, *, nested: bool
) -> Column | EncodedColumn:
    """Returns the rows that `encode_column` stored under `name`.

    Arrays may be views into the record, which are neither writable nor aligned.

    Raises:
      CorruptDatasetError: The record does not hold what the feature says; for an `EncodedColumn`
        also later, when a row is asked for.
    """
    try:
        if feature.encoding is Encoding.SEQUENCE:
            return _decode_sequence(feature, raw, name, nested)
        return _decode_rows(feature, raw[name], name)
    except (ValueError, KeyError) as error:
        detail = "it is not in the record" if isinstance(error, KeyError) else str(error)
        raise _damaged(feature, name, detail) from error


def has_large_rows(feature: Feature) -> bool:
    """Whether the rows of a column are worth being read one by one."""
    if feature.encoding in (Encoding.PNG, Encoding.JPEG):
        return True
    row_bytes = feature.size * feature.dtype.itemsize
    return (
        feature.encoding is Encoding.BYTES and not feature.is_ragged and row_bytes >= _ROW_ON_DISK
    )


def _decode_rows(feature: Feature, raw: example.RawFeature, name: str) -> Column | EncodedColumn:
    encoding, dtype, shape = feature.encoding, feature.dtype, feature.shape
    if encoding is Encoding.PLAIN:
        return _decode_numbers(raw, dtype).reshape(-1, *_fixed(shape))
    items: Sequence[memoryview]
    if encoding is Encoding.BYTES and not feature.is_ragged:
        if not isinstance(raw, ListOnDisk) or not has_large_rows(feature):
            return example.decode_rows(raw, dtype, _fixed(shape))
        items = raw.elements_of(feature.size * dtype.itemsize)
        return EncodedColumn(items, functools.partial(_decode_item, feature), is_large=False)
    if encoding in (Encoding.PNG, Encoding.JPEG) and isinstance(raw, ListOnDisk):
        items = raw.elements()
    else:
        items = example.decode_bytes(raw)
    if encoding is Encoding.STRING:
        return object_array([bytes(item) for item in items]).reshape(-1, *_fixed(shape))
    if encoding is Encoding.BYTES:
        return [_decode_item(feature, item) for item in items]

    def decode(item: memoryview) -> npt.NDArray[Any]:
        try:
            return _decode_item(feature, item)
        except (ValueError, zlib.error, errors.CorruptDatasetError) as error:
            raise _damaged(feature, name, str(error)) from error

    row_bytes = feature.size * dtype.itemsize
    is_large = feature.is_ragged or row_bytes >= images.LARGE_BYTES
    return EncodedColumn(items, decode, keeps=not feature.is_ragged, is_large=is_large)


def _decode_numbers(raw: example.RawFeature, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if dtype.kind not in "biu":
        return example.decode_floats(raw).astype(dtype, copy=False)
    values = example.decode_int64s(raw)
    return values.view(dtype) if dtype == np.uint64 else values.astype(dtype, copy=False)


def _decode_item(feature: Feature, item: memoryview) -> npt.NDArray[Any]:
    """Returns a row that is one byte string: BYTES, ZLIB, PNG or JPEG."""
    dims = _fixed(feature.shape)
    if feature.encoding in (Encoding.PNG, Encoding.JPEG):
        image = images.decode(item, feature.shape[2] or 3)
        if len(image.shape) != len(dims) or any(
            dim not in (-1, found) for dim, found in zip(dims, image.shape, strict=True)
        ):
            raise ValueError(f"got an image of shape {image.shape}")
        return image
    if feature.encoding is Encoding.ZLIB:
        return np.frombuffer(bytearray(zlib.decompress(item)), feature.dtype).reshape(dims)
    return np.frombuffer(item, feature.dtype).reshape(dims)


def _damaged(feature: Feature, name: str, detail: str) -> errors.CorruptDatasetError:
    return errors.CorruptDatasetError(
        f"{name}: a record does not hold {dtype_name(feature.dtype)} of shape {feature.shape} "
        f"as {feature.encoding.value}: {detail}."
    )


def _encode_sequence(
    feature: Feature, column: Column, nested: bool
) -> dict[str, example.RawFeature]:
    flat = [np.asarray(row).reshape(-1) for row in column]
    joined = np.concatenate([np.empty(0, feature.dtype), *flat])
    if feature.dtype == STRING:
        values = example.bytes_feature(joined.tolist())
    elif feature.dtype.kind in "biu":
        values = example.int64_feature(joined)
    else:
        values = example.float_feature(joined)
    if not nested:
        return {"": values}
    lengths = np.array(list(map(len, column)), np.int64)
    return {
        "/ragged_flat_values": values,
        "/ragged_row_lengths_0": example.int64_feature(lengths),
    }


def _decode_sequence(
    feature: Feature, raw: Mapping[str, example.RawFeature], name: str, nested: bool
) -> Column | EncodedColumn:
    item = feature.item
    flat = raw[name + "/ragged_flat_values" if nested else name]
    if item.encoding in (Encoding.PLAIN, Encoding.STRING):
        values: Any = _decode_rows(item, flat, name)
    else:
        values = example.decode_bytes(flat)
    lengths = [len(values)]
    if nested:
        lengths = example.decode_int64s(raw[name + "/ragged_row_lengths_0"]).tolist()
    expected = feature.shape[0]
    if sum(lengths) != len(values) or any(
        length < 0 or expected not in (None, length) for length in lengths
    ):
        raise ValueError(f"got {len(values)} items in rows of {sorted(set(lengths))}")
    stops = itertools.accumulate(lengths)
    rows = [values[stop - length : stop] for stop, length in zip(stops, lengths, strict=True)]
    if isinstance(values, np.ndarray):
        return rows if feature.is_ragged else values.reshape(-1, *_fixed(feature.shape))

    def decode(items: Sequence[memoryview]) -> npt.NDArray[Any]:
        try:
            return stack([_decode_item(item, data) for data in items], item)
        except (ValueError, zlib.error, errors.CorruptDatasetError) as error:
            raise _damaged(feature, name, str(error)) from error

    return EncodedColumn(rows, decode)


def stack(rows: Sequence[npt.NDArray[Any]], feature: Feature) -> npt.NDArray[Any]:
    """Returns rows as one array (T, *shape) of its own; where shapes differ, an object array (T,)."""
    if not feature.is_ragged:
        column = np.empty((len(rows), *_fixed(feature.shape)), feature.dtype)
        for i, row in enumerate(rows):
            column[i] = row
        return column
    column = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        column[i] = row
    return column


def _fixed(shape: Shape) -> tuple[int, ...]:
    return tuple(-1 if dim is None else dim for dim in shape)


def _little_endian(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return (
        array
        if array.dtype.kind == "V"
        else array.astype(array.dtype.newbyteorder("<"), copy=False)
    )


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Returns what TFDS calls a dtype."""
    return "string" if dtype == STRING else dtype.name
