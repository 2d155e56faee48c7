# SPDX-License-Identifier: Apache-2.0
"""EnvLogger 1.x's storage protobufs to values.

    Data  { oneof value { Datum datum = 1; Array array = 2; Tuple tuple = 3; Dict dict = 4; } }
    Array { repeated Data values = 1; }   Tuple { repeated Data values = 1; }
    Dict  { map<string, Data> values = 1; Array kvs = 2; }
    Datum { Shape shape = 1; Values values = 2; }  Shape { repeated Dim dim = 2; }  Dim { int64 size = 1; }
    Values, see `_NUMBERS`, `_BUFFERS` and `_OBJECTS`

This decodes one message, whatever is in it; `storage_columns` decodes many that are alike.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from envlogger import varints

DATUM, ARRAY, TUPLE, DICT = 1, 2, 3, 4
# The shape of a scalar.
SCALAR = (-438,)
# Protobuf itself stops at 100 messages, which is 50 of these.
_MAX_DEPTH = 100

# Repeated numbers by field: their dtype in the message, as whose bits they are read.
NUMBERS: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype(np.int32),
    4: np.dtype(np.int64),
    5: np.dtype(np.uint32),
    6: np.dtype(np.uint64),
    7: np.dtype(np.bool_),
}
FLOATS = (1, 2)
BOOLS = 7
# Bytes which are arrays, big-endian, in the order in which they are looked for.
BUFFERS: dict[int, np.dtype[Any]] = {
    15: np.dtype(">f4"),
    11: np.dtype(">i1"),
    12: np.dtype(">i2"),
    13: np.dtype(">u1"),
    14: np.dtype(">u2"),
}
STRINGS, BYTES, BIGINTS = 8, 9, 10

_NATIVE = {field: dtype.newbyteorder("=") for field, dtype in (NUMBERS | BUFFERS).items()}
_TAG_1, _TAG_2 = 0x0A, 0x12
_UNUSUAL = object()

_VARINT, _FIXED_64, _BYTES, _GROUP, _END_GROUP, _FIXED_32 = range(6)
_Span = tuple[int, int]


def decode(message: bytes | memoryview) -> Any:
    """Returns the value of a serialized `Data`.

    Arrays are new, and writable. What EnvLogger did not store comes back as it did there: namedtuples
    are tuples; None, empty containers and arrays without elements are None.

    Raises:
      ValueError: It is not such a message, or an array has another shape than values.
    """
    return _decode(memoryview(message), (0, len(message)), 0)


def decode_datum(message: bytes) -> Any:
    """Returns the value of a serialized `Datum`, as the index files hold them.

    Raises:
      ValueError: It is not such a message.
    """
    return _decode_datum(memoryview(message), (0, len(message)))


def _decode(raw: memoryview, span: _Span, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"values are nested more than {_MAX_DEPTH} deep")
    begin, end = span
    if begin == end:
        return None
    only = read_only_field(raw, begin, end)
    if only and DATUM <= only[0] <= DICT:
        return _decode_member(raw, only[0], (only[1], end), depth)
    member = 0
    spans: list[_Span] = []
    for field, wire_type, begin, end in _fields(raw, span):
        if wire_type == _BYTES and DATUM <= field <= DICT:
            if field != member:
                member, spans = field, []
            spans.append((begin, end))
    if not member:
        return None
    raw, span = _merge(raw, spans)
    return _decode_member(raw, member, span, depth)


def _decode_member(raw: memoryview, member: int, span: _Span, depth: int) -> Any:
    if member == DATUM:
        return _decode_datum(raw, span)
    if member == DICT:
        return _decode_dict(raw, span, depth)
    values = [_decode(raw, value, depth + 1) for value in _spans(raw, span, 1)]
    return tuple(values) if member == TUPLE else values


def _decode_dict(raw: memoryview, span: _Span, depth: int) -> dict[Any, Any]:
    decoded: dict[Any, Any] = {}
    entries = _only_spans(raw, span, 1)
    for entry in _spans(raw, span, 1) if entries is None else entries:
        key, value_raw, value = _read_entry(raw, entry)
        decoded[key] = _decode(value_raw, value, depth + 1)
    if entries is not None:
        return decoded
    raw, kvs = _merge(raw, _spans(raw, span, 2))
    for pair in _spans(raw, kvs, 1):
        item = _decode(raw, pair, depth + 1)
        if not isinstance(item, tuple) or len(item) != 2:
            raise ValueError("an item of a dict is not a pair")
        try:
            decoded[item[0]] = item[1]
        except TypeError as error:
            raise ValueError(f"a key of a dict is a {type(item[0]).__name__}") from error
    return decoded


def _read_entry(raw: memoryview, span: _Span) -> tuple[str, memoryview, _Span]:
    """Returns the key of a dict's entry, and where its value is."""
    begin, end = span
    if end - begin > 2 and raw[begin] == _TAG_1 and raw[begin + 1] < 0x80:
        key_end = begin + 2 + raw[begin + 1]
        only = read_only_field(raw, key_end, end)
        if only and only[0] == 2:
            return str(raw[begin + 2 : key_end], "utf-8"), raw, (only[1], end)
    keys = _spans(raw, span, 1)
    key = str(raw[slice(*keys[-1])], "utf-8") if keys else ""
    return key, *_merge(raw, _spans(raw, span, 2))


def _decode_datum(raw: memoryview, span: _Span) -> Any:
    value = _decode_usual_datum(raw, *span)
    return _decode_any_datum(raw, span) if value is _UNUSUAL else value


def _decode_usual_datum(raw: memoryview, begin: int, end: int) -> Any:
    """Decodes a `Datum` with a shape and one field of values, as EnvLogger writes them."""
    if end - begin < 2 or raw[begin] != _TAG_1 or raw[begin + 1] >= 0x80:
        return _UNUSUAL
    stop = begin + 2 + raw[begin + 1]
    if stop + 2 > end or raw[stop] != _TAG_2:
        return _UNUSUAL
    values = read_only_field(raw, stop, end)
    only = values and read_only_field(raw, values[1], end)
    if not only or only[1] == end:
        return _UNUSUAL
    shape = cached_shape(bytes(raw[begin + 2 : stop]))
    field, begin = only
    if shape == SCALAR:
        return _decode_usual_scalar(raw, field, begin, end)
    if field in NUMBERS:
        array = _decode_numbers(raw, field, [(_BYTES, (begin, end))])
    elif field in BUFFERS:
        array = np.frombuffer(raw[begin:end], BUFFERS[field]).astype(_NATIVE[field])
    else:
        return _UNUSUAL
    return array.reshape(shape)


def _decode_usual_scalar(raw: memoryview, field: int, begin: int, end: int) -> Any:
    if field in FLOATS or field in BUFFERS:
        return np.frombuffer(raw[begin:end], NUMBERS.get(field) or BUFFERS[field])[0]
    if field in NUMBERS:
        if end - begin == 1 and raw[begin] < 0x80:
            number = NUMBERS[field].type(raw[begin])
            return bool(number) if field == BOOLS else number
        return scalar(_decode_numbers(raw, field, [(_BYTES, (begin, end))]))
    if field in (BYTES, BIGINTS, STRINGS):
        return to_object(field, raw[begin:end])
    return _UNUSUAL


def _decode_any_datum(raw: memoryview, span: _Span) -> Any:
    dims, shape_span = _merge(raw, _spans(raw, span, 1))
    shape = decode_shape(dims, shape_span)
    raw, span = _merge(raw, _spans(raw, span, 2))
    fields: dict[int, list[tuple[int, _Span]]] = {}
    for field, wire_type, begin, end in _fields(raw, span):
        fields.setdefault(field, []).append((wire_type, (begin, end)))
    is_scalar = shape == SCALAR
    array = None
    for field in NUMBERS:
        if field in fields and len(numbers := _decode_numbers(raw, field, fields[field])):
            array = numbers
            break
    else:
        field = 0
    if is_scalar and array is not None:
        return scalar(array)
    for field, dtype in BUFFERS.items():
        spans = [span for wire_type, span in fields.get(field, ()) if wire_type == _BYTES]
        if spans and spans[-1][0] < spans[-1][1]:
            array = np.frombuffer(raw[slice(*spans[-1])], dtype).astype(_NATIVE[field])
            if is_scalar:
                return scalar(array)
    for field in (STRINGS, BYTES, BIGINTS):
        spans = [span for wire_type, span in fields.get(field, ()) if wire_type == _BYTES]
        if spans:
            values = [to_object(field, raw[slice(*span)]) for span in spans]
            if is_scalar:
                return values[0]
            if field == BIGINTS:
                raise ValueError("an array of integers of any size")
            array = np.array(values, object)
            break
    return None if array is None else array.reshape(shape)


def decode_shape(raw: memoryview, span: _Span) -> tuple[int, ...]:
    """Returns the shape that a serialized `Shape` has, SCALAR for scalars."""
    shape = []
    for dim in _spans(raw, span, 2):
        size = 0
        for field, wire_type, begin, _ in _fields(raw, dim):
            if field == 1 and wire_type == _VARINT:
                size = varints.read(raw, begin)[0]
        shape.append(size - (size >> 63 << 64))
    return tuple(shape)


@functools.lru_cache(256)
def cached_shape(raw: bytes) -> tuple[int, ...]:
    """Returns the shape that a whole serialized `Shape` has; those that are usual are known."""
    return decode_shape(memoryview(raw), (0, len(raw)))


def to_object(field: int, raw: memoryview) -> Any:
    """Returns the str, bytes or int that a field of STRINGS, BYTES or BIGINTS holds."""
    if field == STRINGS:
        return str(raw, "utf-8")
    return bytes(raw) if field == BYTES else int.from_bytes(raw, "big", signed=True)


def scalar(array: Any) -> Any:
    """Returns the first element as a scalar: a Python bool, or numpy's."""
    return bool(array[0]) if array.dtype == np.bool_ else array[0]


def from_varints(field: int, numbers: Any) -> Any:
    """Returns uint64 as the integers of a field of NUMBERS; those of 32 bits lose the others."""
    dtype = NUMBERS[field]
    if dtype == np.bool_:
        return numbers != 0
    return numbers.astype(f"u{dtype.itemsize}", copy=False).view(dtype)


def _decode_numbers(raw: memoryview, field: int, found: list[tuple[int, _Span]]) -> Any:
    single = {_FIXED_32: 4, _FIXED_64: 8}
    size = NUMBERS[field].itemsize
    pieces = [
        raw[slice(*span)]
        for wire_type, span in found
        if wire_type == _BYTES
        or (single.get(wire_type) == size if field in FLOATS else wire_type == _VARINT)
    ]
    packed = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if field in FLOATS:
        return np.frombuffer(packed, NUMBERS[field]).astype(_NATIVE[field])
    return from_varints(field, varints.decode_array(np.frombuffer(packed, np.uint8)))


def read_only_field(raw: memoryview, begin: int, end: int) -> tuple[int, int] | None:
    """Returns the field and where its bytes begin, of a message that is one string or submessage."""
    if end - begin < 2:
        return None
    tag, size = raw[begin], raw[begin + 1]
    begin += 2
    if size >= 0x80:
        size, begin = varints.read(raw, begin - 1)
    if tag & 7 != _BYTES or tag >= 0x80 or begin + size != end:
        return None
    return tag >> 3, begin


def _spans(raw: memoryview, span: _Span, wanted: int) -> list[_Span]:
    """Returns where the strings or submessages of one field are."""
    only = _only_spans(raw, span, wanted)
    if only is not None:
        return only
    return [
        (begin, end)
        for field, wire_type, begin, end in _fields(raw, span)
        if field == wanted and wire_type == _BYTES
    ]


def _only_spans(raw: memoryview, span: _Span, wanted: int) -> list[_Span] | None:
    """Returns the same where there is nothing else in the message; None otherwise."""
    position, stop = span
    tag = wanted << 3 | _BYTES
    spans = []
    while position + 1 < stop and raw[position] == tag:
        size, begin = raw[position + 1], position + 2
        if size >= 0x80:
            size, begin = varints.read(raw, position + 1)
        position = begin + size
        spans.append((begin, position))
    return spans if position == stop else None


def _merge(raw: memoryview, spans: list[_Span]) -> tuple[memoryview, _Span]:
    """Returns a submessage that may be there several times: joined, they are one."""
    if len(spans) == 1:
        return raw, spans[0]
    joined = memoryview(b"".join(raw[slice(*span)] for span in spans))
    return joined, (0, len(joined))


def _fields(raw: memoryview, span: _Span) -> Iterator[tuple[int, int, int, int]]:
    """Yields each field's number, wire type, and where its value is; groups are passed over."""
    position, stop = span
    groups = 0
    while position < stop:
        # Most tags and sizes have one byte.
        tag = raw[position]
        position += 1
        if tag >= 0x80:
            tag, position = varints.read(raw, position - 1)
        wire_type = tag & 7
        begin = position
        if wire_type == _BYTES:
            if begin >= stop:
                raise ValueError("a message ends within a field")
            size = raw[begin]
            begin += 1
            if size >= 0x80:
                size, begin = varints.read(raw, begin - 1)
            position = begin + size
        elif wire_type == _VARINT:
            _, position = varints.read(raw, begin)
        elif wire_type == _FIXED_64:
            position += 8
        elif wire_type == _FIXED_32:
            position += 4
        elif wire_type == _GROUP:
            groups += 1
        elif wire_type == _END_GROUP:
            groups -= 1
        else:
            raise ValueError(f"a field has the wire type {wire_type}")
        if position > stop or groups < 0 or tag < 8:
            raise ValueError("a message is damaged")
        if not groups and wire_type not in (_GROUP, _END_GROUP):
            yield tag >> 3, wire_type, begin, position
    if groups:
        raise ValueError("a message ends within a group")
