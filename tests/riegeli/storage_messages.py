# SPDX-License-Identifier: Apache-2.0
"""Values as EnvLogger 1.x's storage protobufs: what its codec writes, and what is possible besides."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from envlogger import varints

_PACKED = {"f4": 1, "f8": 2, "i4": 3, "i8": 4, "u4": 5, "u8": 6, "b1": 7}
_BUFFERS = {"i1": 11, "i2": 12, "u1": 13, "u2": 14}


def field(number: int, content: bytes) -> bytes:
    """Returns a string or submessage."""
    return varints.encode(number << 3 | 2) + varints.encode(len(content)) + content


def unsigned(value: int) -> bytes:
    """Returns a varint; of ten bytes for negative numbers."""
    return varints.encode(value % 2**64)


def datum(shape: tuple[int, ...] | None, values: bytes) -> bytes:
    """Returns a `Datum`; of a scalar if the shape is None."""
    sizes = (-438,) if shape is None else shape
    dims = b"".join(field(2, b"\x08" + unsigned(size)) for size in sizes)
    return field(1, dims) + field(2, values)


def numbers(array: Any, *, float_buffer: bool = True) -> bytes:
    """Returns `Values` with numbers; float32 big-endian as up to EnvLogger 1.2, or not."""
    array = np.asarray(array)
    code = array.dtype.str[1:]
    if code in _BUFFERS or (code == "f4" and float_buffer and array.ndim):
        return field(_BUFFERS.get(code, 15), array.astype(array.dtype.newbyteorder(">")).tobytes())
    if code in ("f4", "f8"):
        return field(_PACKED[code], array.astype(f"<{code}").tobytes())
    return field(_PACKED[code], b"".join(unsigned(int(value)) for value in array.ravel()))


def encode(value: Any) -> bytes:
    """Returns a serialized `Data`."""
    if value is None:
        return b""
    if isinstance(value, dict):
        entries = [
            field(1, field(1, key.encode()) + field(2, encode(item)))
            for key, item in value.items()
            if isinstance(key, str)
        ]
        kvs = [
            field(1, encode((key, item))) for key, item in value.items() if not isinstance(key, str)
        ]
        return field(4, b"".join(entries) + (field(2, b"".join(kvs)) if kvs else b""))
    if isinstance(value, list | tuple):
        items = b"".join(field(1, encode(item)) for item in value)
        return field(3 if isinstance(value, tuple) else 2, items)
    return field(1, _encode_datum(value))


def _encode_datum(value: Any) -> bytes:
    if isinstance(value, np.ndarray) and value.dtype == object:
        kind = 8 if isinstance(value.flat[0], str) else 9
        items = (item.encode() if kind == 8 else item for item in value.flat)
        return datum(value.shape, b"".join(field(kind, item) for item in items))
    if isinstance(value, np.ndarray):
        return datum(value.shape, numbers(value))
    if isinstance(value, str):
        return datum(None, field(8, value.encode()))
    if isinstance(value, bytes):
        return datum(None, field(9, value))
    if type(value) is int:
        size = value.bit_length() // 8 + 1
        return datum(None, field(10, value.to_bytes(size, "big", signed=True)))
    return datum(None, numbers(value))


def fixed_32(number: int, value: float) -> bytes:
    """Returns a float that is not packed."""
    return varints.encode(number << 3 | 5) + struct.pack("<f", value)
