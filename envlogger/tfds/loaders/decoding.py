# SPDX-License-Identifier: Apache-2.0
"""Decodes the rows of a column all at once; the values are those of stock TFDS, bit for bit.

What is slow in TFDS is a call for each step. Values that are stored as they are need no decoding;
raw bytes (`encoding="bytes"` and `"zlib"`) are decoded by one call for all rows. Everything else goes
through TFDS's own decoders as it does in a `tfds.features.Sequence`: one call for each row, but inside
of one op.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from envlogger.tfds.loaders import on_disk
from envlogger.tfds.loaders.columns import Column, Rows, Tensor

# Raw values from this size on are decoded late, like images: what has been parsed but is not part of
# any element that is given out is not copied once more.
_LATE_BYTES = 1 << 10

_UNROLLED = 8


def is_late(column: Column) -> bool:
    """Whether to decode after elements were cut, shuffled and batched: where it costs something."""
    if column.on_disk is not None:
        return True
    encoding = _raw_encoding(column)
    if encoding is None:
        return not _is_stored_as_is(column)
    shape = column.feature.shape
    itemsize: int = column.feature.tf_dtype.size
    return None in shape or bool(math.prod(shape) * itemsize >= _LATE_BYTES)


def is_stackable(column: Column) -> bool:
    """Whether the values of all steps have one shape, so that they can be batched."""
    return column.rank > 0 or None not in column.feature.shape


def row_bytes(column: Column) -> int:
    """Returns about how much memory a decoded row takes."""
    if isinstance(column.feature.shape, Mapping):
        return 1 << 10
    size = math.prod(dim or 16 for dim in column.feature.shape)
    return int(size * max(column.feature.tf_dtype.size, 1))


def decode(column: Column, rows: Rows) -> Tensor:
    """Returns the values of N rows: (N, ...), ragged where they differ in shape.

    Images whose size is not known beforehand are stacked; if they differ in size, that is an
    InvalidArgumentError at runtime.
    """
    if column.on_disk is not None:
        if on_disk.is_decoded(column):
            return column.on_disk.values(column, rows)
        rows = column.on_disk.strings(column, rows)
    if _is_stored_as_is(column):
        return rows
    encoding = _raw_encoding(column)
    if encoding is not None:
        if encoding == "zlib":
            rows = tf.io.decode_compressed(rows, compression_type="ZLIB")
        return _from_bytes(rows, column.feature)
    if column.rank:
        return column.feature.decode_ragged_example(rows)
    if type(column.feature) is tfds.features.Image:
        is_known = None not in column.feature.shape
        return _images(rows, column.feature) if is_known else _images_of_one_size(rows, column)
    return column.feature.decode_batch_example(rows)


def decode_one(column: Column, row: Rows) -> Tensor:
    """Returns the value of one row as TFDS decodes it: of any shape."""
    if column.on_disk is not None:
        row = column.on_disk.strings(column, row[None])[0]
    return column.feature.decode_example(row)


def _is_stored_as_is(column: Column) -> bool:
    """Whether the parsed rows already are the values."""
    feature = column.feature
    if isinstance(feature, tfds.features.Tensor):
        is_own = type(feature).decode_example is tfds.features.Tensor.decode_example
        return is_own and _encoding(feature) == "none" and not isinstance(column.info, Mapping)
    return type(feature).decode_example is tfds.features.FeatureConnector.decode_example


def _raw_encoding(column: Column) -> str | None:
    """Returns "bytes" or "zlib" if rows are strings that `_from_bytes` decodes."""
    feature = column.feature
    if (
        column.rank
        or isinstance(column.info, Mapping)
        or not isinstance(feature, tfds.features.Tensor)
        or type(feature).decode_example is not tfds.features.Tensor.decode_example
        or (None in feature.shape and 0 in feature.shape)
    ):
        return None
    encoding = _encoding(feature)
    return encoding if encoding in ("bytes", "zlib") else None


def _encoding(feature: Any) -> str:
    # Tensor has no public attribute for it, but what it writes to features.json is public.
    content = tfds.features.Tensor.to_json_content(feature)
    encoding: str = content.encoding
    return encoding or "none"


def _images(rows: Tensor, feature: Any) -> Tensor:
    """Decodes images of one size: several in each round of the loop, which costs 10 µs."""
    shape = tuple(feature.shape)
    full = tf.shape(rows)[0] // _UNROLLED * _UNROLLED

    def decode_image(row: Tensor) -> Tensor:
        return tf.ensure_shape(feature.decode_example(row), shape)

    def decode_some(some: Tensor) -> Tensor:
        return tf.stack([decode_image(row) for row in tf.unstack(some, _UNROLLED)])

    spec = tf.TensorSpec((_UNROLLED, *shape), feature.tf_dtype)
    rounds = tf.reshape(rows[:full], (-1, _UNROLLED))
    most = tf.reshape(tf.map_fn(decode_some, rounds, fn_output_signature=spec), (-1, *shape))
    spec = tf.TensorSpec(shape, feature.tf_dtype)
    rest = tf.map_fn(decode_image, rows[full:], fn_output_signature=spec)
    # The number of images is known to the caller, if anybody.
    return tf.ensure_shape(tf.concat([most, rest], axis=0), (rows.shape[0], *shape))


def _images_of_one_size(rows: Tensor, column: Column) -> Tensor:
    """Decodes images of a size that is not known beforehand: that of the first one."""
    feature = column.feature
    first = rows[:1]  # there may be none
    spec = tf.TensorSpec(feature.shape, feature.tf_dtype)
    shape = tf.shape(tf.map_fn(feature.decode_example, first, fn_output_signature=spec))[1:]

    def decode_image(row: Tensor) -> Tensor:
        image = feature.decode_example(row)
        message = (
            f"{column.name}: images differ in size, and cannot be stacked. Leave the field out "
            "(`fields`), or load single steps. The size of the first one, and that of another:"
        )
        check = tf.debugging.Assert(
            tf.reduce_all(tf.equal(tf.shape(image), shape)), [message, shape, tf.shape(image)]
        )
        with tf.control_dependencies([check]):
            return tf.identity(image)

    return tf.map_fn(decode_image, rows, fn_output_signature=spec)


def _from_bytes(rows: Tensor, feature: Any) -> Tensor:
    shape, dtype = feature.shape, feature.tf_dtype
    if None not in shape:
        values = _decode_raw(rows, dtype)
        dims = tf.concat([tf.shape(rows), tf.constant(shape, tf.int32, (len(shape),))], 0)
        return tf.ensure_shape(tf.reshape(values, dims), (rows.shape[0], *shape))
    # Rows of unequal length: their bytes in one string, and how many values each of them has.
    values = _decode_raw(tf.strings.reduce_join(rows), dtype)
    varying = shape.index(None)
    before, after = shape[:varying], shape[varying + 1 :]
    lengths = tf.cast(tf.strings.length(rows), tf.int64)
    lengths //= dtype.size * math.prod(before) * math.prod(after)
    values = tf.RaggedTensor.from_row_lengths(
        tf.reshape(values, (-1, *after)), tf.repeat(lengths, math.prod(before))
    )
    for dim in reversed(before):
        values = tf.RaggedTensor.from_uniform_row_length(values, dim)
    return values


def _decode_raw(rows: Tensor, dtype: Any) -> Tensor:
    # TensorFlow has no raw decoder for uint64.
    if dtype == tf.uint64:
        return tf.bitcast(tf.io.decode_raw(rows, tf.int64), tf.uint64)
    return tf.io.decode_raw(rows, dtype)
