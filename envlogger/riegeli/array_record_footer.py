# SPDX-License-Identifier: Apache-2.0
"""The index of an ArrayRecord file, as its last two chunks with records hold it.

    footer       {1: {1: version, 2: number of chunks, 3: number of records, 4: options of the writer}}
                 {1: begin, 2: decoded size, 3: number of records}   for each chunk of data
    postscript   {1: begin of the footer, 2: magic number}           three times

Each line is a record, a protobuf; `{field: value}`, where numbers are varints.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from envlogger import varints

_VERSION = 1
_MAGIC = 0x71930E704FDAE05E
# It is there three times, in case that one is damaged.
_COPIES = 3

_VARINT = 0
_STRING = 2


class Entry(NamedTuple):
    """What the footer says of a chunk; see `chunks.Chunk`."""

    begin: int
    decoded_size: int
    num_records: int


def encode_footer(entries: Sequence[Entry], options: str) -> list[bytes]:
    """Returns the records of a footer.

    Args:
      entries: The chunks of data, in order.
      options: What the writer was told, for people who look.
    """
    num_records = sum(entry.num_records for entry in entries)
    about = _numbers(_VERSION, len(entries), num_records) + _string(4, options.encode())
    return [_string(1, about), *(_numbers(*entry) for entry in entries)]


def decode_footer(records: Sequence[bytes]) -> list[Entry] | None:
    """Returns the entries of a footer; None if the records are something else.

    A footer says how many entries it has, and how many records these have together; the chunks that
    they name lie one behind the other.
    """
    try:
        metadata = _fields(records[0])[1]
        about = _fields(metadata) if isinstance(metadata, bytes) else {}
        if about.get(1) != _VERSION or about.get(2, 0) != len(records) - 1:
            return None
        entries = [_entry(record) for record in itertools.islice(records, 1, None)]
    except (LookupError, ValueError):
        return None
    if about.get(3, 0) != sum(entry.num_records for entry in entries):
        return None
    if any(one.begin >= following.begin for one, following in itertools.pairwise(entries)):
        return None
    return entries


def encode_postscript(footer: int) -> list[bytes]:
    """Returns the records of a postscript for the footer that begins at a position."""
    return [_numbers(footer, _MAGIC)] * _COPIES


def is_postscript(records: Sequence[bytes]) -> bool:
    """Returns whether records are those of a postscript."""
    if len(records) != _COPIES or len(set(records)) != 1:
        return False
    try:
        fields = _fields(records[0])
    except ValueError:
        return False
    return fields.keys() == {1, 2} and fields[2] == _MAGIC


def _entry(record: bytes) -> Entry:
    fields = _fields(record)
    # Protobuf may leave out a number that is 0, as is the size of records without bytes.
    begin, decoded_size, num_records = fields[1], fields.get(2, 0), fields[3]
    if not (
        isinstance(begin, int)
        and isinstance(decoded_size, int)
        and isinstance(num_records, int)
        and fields.keys() <= {1, 2, 3}
    ):
        raise ValueError("not what a footer says of a chunk")
    return Entry(begin, decoded_size, num_records)


def _fields(message: bytes) -> dict[int, int | bytes]:
    """Returns the varints and the strings of a protobuf by the numbers of their fields.

    Raises:
      ValueError: It is none, or has fields of other kinds.
    """
    fields: dict[int, int | bytes] = {}
    position = 0
    while position < len(message):
        tag, position = varints.read(message, position)
        value, position = varints.read(message, position)
        if tag & 7 == _VARINT:
            fields[tag >> 3] = value
        elif tag & 7 == _STRING and position + value <= len(message):
            fields[tag >> 3] = message[position : position + value]
            position += value
        else:
            raise ValueError(f"got the tag {tag}, expected a varint or a whole string")
    return fields


def _numbers(*values: int) -> bytes:
    """Returns a protobuf whose fields 1, 2, … are varints."""
    return b"".join(
        varints.encode(field << 3 | _VARINT) + varints.encode(value)
        for field, value in enumerate(values, 1)
    )


def _string(field: int, value: bytes) -> bytes:
    return varints.encode(field << 3 | _STRING) + varints.encode(len(value)) + value
