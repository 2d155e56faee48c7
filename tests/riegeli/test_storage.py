# SPDX-License-Identifier: Apache-2.0
"""Storage protobufs: what EnvLogger wrote, what is possible besides, one by one and many at once."""

from __future__ import annotations

import itertools

import helpers
import numpy as np
import pytest
import storage_messages as messages
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from storage_messages import datum, field, numbers

from envlogger.riegeli import storage, storage_columns, storage_layouts
from envlogger.testing.comparison import assert_same

_DTYPES = ["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"]


def _arrays(min_dims):
    shapes = hnp.array_shapes(min_dims=min_dims, max_dims=3 * min_dims, max_side=4)
    return st.sampled_from(_DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, shapes, elements=hnp.from_dtype(np.dtype(dtype)))
    )


def _to_scalar(array):
    return bool(array) if array.dtype == np.bool_ else array[()]


_leaves = st.one_of(
    st.none(),
    st.integers(-(2**70), 2**70),
    st.text(max_size=5),
    st.binary(max_size=5),
    _arrays(0),
    _arrays(0).map(_to_scalar),
    _arrays(1),
    st.lists(st.text(max_size=3), min_size=1, max_size=3).map(lambda xs: np.array(xs, object)),
)
_values = st.recursive(
    _leaves,
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2) | st.integers(0, 9), children, max_size=3),
    ),
    max_leaves=8,
)


def _decode_many(encoded):
    ends = np.cumsum([len(message) for message in encoded])
    data = np.frombuffer(b"".join(encoded), np.uint8)
    return storage_columns.decode(data, ends - [len(message) for message in encoded], ends)


@given(_values)
def test_what_was_encoded_comes_back(value):
    # String keys come first, as EnvLogger writes them.
    got = storage.decode(messages.encode(value))
    assert_same(_ordered(got), _ordered(value))


@settings(deadline=None)
@given(st.lists(_values, max_size=4), st.lists(st.integers(0, 3), min_size=6, max_size=30))
def test_many_at_once_are_the_same_as_one_by_one(values, order):
    encoded = [messages.encode(values[i % len(values)] if values else None) for i in order]
    assert_same(_decode_many(encoded), [storage.decode(message) for message in encoded])


@settings(deadline=None)
@given(_values, st.data())
def test_many_that_are_damaged_are_the_same_as_one_by_one(value, data):
    encoded = [messages.encode((value, i)) for i in range(20)]
    i = data.draw(st.integers(0, 19))
    changed = bytearray(encoded[i])
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    encoded[i] = bytes(changed)
    assert_same(_attempt(_decode_many, encoded), _attempt(_decode_each, encoded))


def test_those_of_one_layout_need_nothing_but_their_values_decoded(monkeypatch):
    value = (({"a": 1, "b": [np.zeros((3, 2), "f4"), None, ()]}, np.int32(5)), "text", {}, True)
    others = [messages.encode(((i,), i)) for i in range(2)]
    encoded = [messages.encode(value)] * 20
    expected = _decode_each([*others, *encoded])
    left = helpers.spy(
        monkeypatch, storage_columns._Columns, "decode", lambda columns, begins, *_: len(begins)
    )
    assert_same(_decode_many([*others, *encoded]), expected)
    assert left == [0]


def test_those_of_one_size_may_differ_in_their_layout():
    # As protobuf's maps, which have their keys in any order.
    items = {"first": np.arange(6, dtype="i2"), "other": np.float64(2), "third": None, "x": "y"}
    orders = [list(itertools.islice(itertools.cycle(items), i, i + 4)) for i in range(4)]
    values = [({key: items[key] for key in orders[i % 3 and i % 4]}, i) for i in range(30)]
    encoded = [messages.encode(value) for value in values]
    assert len(set(map(len, encoded))) == 1
    assert_same(_decode_many(encoded), values)


def test_layouts_are_of_regular_messages_only():
    deep = messages.encode(1)
    for _ in range(60):
        deep = field(3, field(1, deep))
    many = messages.encode(list(range(1001)))
    keys = messages.encode({"k" * 20_000: 1})
    for message in (deep, many, keys, field(9, b"unknown"), field(1, b""), messages.encode({1: 2})):
        assert storage_layouts.find(memoryview(message)) is None
        assert_same(_decode_many([message] * 10), [storage.decode(message)] * 10)


def _decode_each(encoded):
    return [storage.decode(message) for message in encoded]


def _attempt(decode, encoded):
    try:
        return decode(encoded)
    except (ValueError, OverflowError):
        return "error"


def _ordered(value):
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: not isinstance(key, str))
        return {key: _ordered(value[key]) for key in keys}
    if isinstance(value, list | tuple):
        return type(value)(map(_ordered, value))
    return value


_DATUM = 1
_ONE = messages.encode(1)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", None),
        (field(9, b"unknown"), None),
        (b"\x4b" + field(1, b"in a group") + b"\x4c", None),
        (field(1, b""), None),
        # Present, but empty.
        (field(2, b""), []),
        (field(3, b""), ()),
        (field(4, b""), {}),
        # The last member of the oneof counts; what is there twice is merged.
        (_ONE + field(3, b""), ()),
        (field(3, b"") + _ONE, 1),
        (field(2, field(1, _ONE)) + field(2, field(1, _ONE)), [1, 1]),
        (field(2, field(1, _ONE)) + field(3, b"") + field(2, b""), []),
        # The fields of a Datum in another order, with others between.
        (field(1, field(2, field(10, b"\x07")) + field(7, b"?") + datum(None, b"")), 7),
        # Dicts: no key, no value, a key again, keys that are no strings.
        (field(4, field(1, field(2, _ONE))), {"": 1}),
        (field(4, field(1, field(1, b"a"))), {"a": None}),
        (field(4, 2 * field(1, field(1, b"a") + field(2, _ONE))), {"a": 1}),
        (field(4, field(2, field(1, messages.encode((None, 1))))), {None: 1}),
        (field(4, field(1, field(1, b"a")) + field(2, field(1, messages.encode(("a", 1))))), {"a": 1}),
        # Numbers that are not packed, or in several pieces.
        (field(1, datum((2,), messages.fixed_32(1, 1.5) * 2)), np.array([1.5, 1.5], "f4")),
        (field(1, datum((3,), b"\x18\x05" + field(3, b"\x06\x07"))), np.array([5, 6, 7], "i4")),
        (field(1, datum((2,), field(3, b"\x06") + field(3, b"\x07"))), np.array([6, 7], "i4")),
        # int32 keeps the low bits; -1 has ten bytes.
        (field(1, datum(None, field(3, messages.unsigned(-1)))), np.int32(-1)),
        (field(1, datum(None, field(3, messages.unsigned(2**32 + 3)))), np.int32(3)),
        # Several kinds: numbers first, then buffers, then strings, which replace what was there.
        (field(1, datum(None, field(3, b"\x06") + field(2, bytes(8)))), np.float64(0)),
        (field(1, datum((1,), field(3, b"\x06") + field(13, b"\x07"))), np.array([7], "u1")),
        (field(1, datum((1,), field(13, b"\x07") + field(8, b"s"))), np.array(["s"], object)),
        (field(1, datum(None, field(3, b"\x06") + field(13, b"\x07"))), np.int32(6)),
        # Shapes: none at all, a size that is left out, -1 as in numpy.
        (field(1, field(2, numbers(np.int32(4)))), np.array(4, "i4")),
        (field(1, datum((-1, 2), numbers(np.arange(4, dtype="i4")))), np.array([[0, 1], [2, 3]], "i4")),
        (field(1, datum((3,), b"")), None),
    ],
)  # fmt: skip
def test_what_is_possible_besides(message, expected):
    assert_same(storage.decode(message), expected)
    assert_same(_decode_many([message] * 10), [expected] * 10)


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0e",
        b"\x00\x00",
        b"\x4b",
        b"\x4c",
        b"\x80" * 11,
        field(1, datum((3,), numbers(np.arange(4, dtype="i4")))),
        field(1, datum((2,), field(10, b"\x01") * 2)),
        field(1, datum((2,), field(1, b"abc"))),
        field(1, datum(None, field(8, b"\xff"))),
        field(1, datum((2**62, 2**62), field(13, b"abcd"))),
        field(4, field(2, field(1, messages.encode((1, 2, 3))))),
        field(4, field(2, field(1, messages.encode(([1], 2))))),
    ],
)
def test_damage_is_an_error(message):
    with pytest.raises(ValueError, match=r"."):
        storage.decode(message)
    with pytest.raises(ValueError, match=r"."):
        _decode_many([message] * 10)


def test_nesting_has_a_bound():
    message = b""
    for _ in range(5000):
        message = field(2, field(1, message))
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        storage.decode(message)
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        _decode_many([message] * 10)


def test_arrays_are_writable_and_own_their_memory():
    arrays = [np.full(shape, 7, dtype) for dtype in _DTYPES for shape in [(3,), (500,)]]
    for array in arrays:
        for values in (
            _decode_many([messages.encode(array)] * 10),
            [storage.decode(messages.encode(array))],
        ):
            for value in values:
                assert_same(value, array)
                assert value.base is None or value.base.nbytes == value.nbytes
                value[:] = 0
