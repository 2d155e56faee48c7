# SPDX-License-Identifier: Apache-2.0
"""Varints: seven bits to a byte, least significant first; bit 7 says that another byte follows."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

_MAX_LENGTH = 10  # of 64 bits
# Fewer are read faster one by one.
_FEW = 16

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Indexed(Protocol):
    """Bytes, each by its place."""

    def __getitem__(self, position: int, /) -> int: ...


def encode(value: int) -> bytes:
    """Returns the varint of a number that is not negative."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_array(values: npt.NDArray[Any]) -> memoryview:
    """Returns the varints of integers of any integer dtype or bool; shape (n,).

    A negative number takes ten bytes, as protobuf has it (its two's complement in 64 bits).
    """
    if values.dtype == np.bool_ or (values.dtype == np.uint8 and not (values > 0x7F).any()):
        return values.view(np.uint8).data
    bits = values if values.dtype == np.uint64 else values.astype(np.int64).view(np.uint64)
    if not len(bits) or int(bits.max()) < 0x80:
        return bits.astype(np.uint8).data
    lengths = lengths_of(bits)
    ends = np.cumsum(lengths)
    out = np.empty(int(ends[-1]), np.uint8)
    starts = ends - lengths
    for i in range(int(lengths.max())):
        longer = np.flatnonzero(lengths > i)
        group = (bits[longer] >> np.uint64(7 * i)).astype(np.uint8) & 0x7F
        out[starts[longer] + i] = group | ((lengths[longer] > i + 1).astype(np.uint8) << 7)
    return out.data


def read(data: Indexed, position: int) -> tuple[int, int]:
    """Reads one varint of up to 64 bits.

    Returns:
      The number, and the position behind it.

    Raises:
      ValueError: It is too long, or `data` ends in it.
    """
    value = shift = 0
    begin = position
    try:
        while shift < 7 * _MAX_LENGTH:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, position
            shift += 7
    except IndexError:
        pass
    raise ValueError(f"a varint at {begin} does not end")


def read_array(data: Bytes, position: int, count: int) -> tuple[Ints, int]:
    """Reads varints that lie one behind the other, as sizes and indices.

    Args:
      data: uint8 of shape (n,).
      position: Where the first begins.
      count: How many.

    Returns:
      int64 of shape (count,), and the position behind the last.

    Raises:
      ValueError: `data` ends before, or a number is above 2**63 - 1.
    """
    if count > len(data) - position:
        raise ValueError(
            f"expected {count} varints at {position}, got {len(data) - position} bytes"
        )
    if count <= _FEW:
        raw = data.data
        found = []
        stop = position
        for _ in range(count):
            value, stop = read(raw, stop)
            found.append(value)
        values = np.array(found, np.uint64).view(np.int64)
    else:
        ends = np.flatnonzero(data[position:] < 0x80)[:count] + 1
        if len(ends) < count:
            raise ValueError(f"expected {count} varints at {position}, got {len(ends)}")
        stop = position + int(ends[-1])
        values = decode_array(data[position:stop]).view(np.int64)
    if count and values.min() < 0:
        raise ValueError(f"a size at {position} is above 2**63 - 1")
    return values, stop


def decode_array(data: Bytes) -> npt.NDArray[np.uint64]:
    """Decodes all of `data`, uint8 of shape (n,), as varints; the twin of `encode_array`.

    Returns:
      uint64 of shape (number of varints,).

    Raises:
      ValueError: The last one does not end, or one is too long.
    """
    if data.tobytes().isascii():  # all below 0x80, found out in a fifth of the time
        return data.astype(np.uint64)
    is_end = data < 0x80
    ends = np.flatnonzero(is_end)
    if not is_end[-1]:
        raise ValueError("the last varint does not end")
    starts = np.empty_like(ends)
    starts[0] = 0
    starts[1:] = ends[:-1] + 1
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > _MAX_LENGTH:
        raise ValueError(f"a varint has {longest} bytes")
    values = (data[starts] & 0x7F).astype(np.uint64)
    for i in range(1, longest):
        longer = np.flatnonzero(lengths > i)
        more = (data[starts[longer] + i] & 0x7F).astype(np.uint64)
        values[longer] |= more << np.uint64(7 * i)
    return values


def string_sizes(data: Bytes, count: int) -> Ints:
    """Returns how many bytes strings take that follow each other, each with its size before it.

    Args:
      data: uint8 of shape (n,).
      count: How many strings to look at; at least one.

    Raises:
      ValueError: `data` ends before.
    """
    if common := common_string_size(data, count):
        return np.full(count, common)
    raw = data.data
    found = []
    position = 0
    try:
        for _ in range(count):
            size = raw[position]
            begin = position + 1
            if size >= 0x80:
                size, begin = read(raw, position)
            found.append(begin - position + size)
            position = begin + size
    except IndexError:
        position = len(raw) + 1
    if position > len(raw):
        raise ValueError("a string does not end")
    return np.array(found, np.int64)


def common_string_size(data: Bytes, count: int) -> int | None:
    """Returns how many bytes each of these strings takes if that is the same, and they fill `data`.

    Raises:
      ValueError: The size of the first one does not end.
    """
    size, begin = read(data.data, 0)
    size += begin
    if size * count != len(data):
        return None
    prefixes = data.reshape(count, size)[:, :begin]
    return size if (prefixes == prefixes[0]).all() else None


def lengths_of(values: Ints | npt.NDArray[np.uint64]) -> Ints:
    """Returns how many bytes the varints of numbers that are not negative take."""
    lengths = np.ones(len(values), np.int64)
    bound = 0x80
    largest = int(values.max()) if len(values) else 0
    while largest >= bound:
        lengths += values >= bound
        bound <<= 7
    return lengths
