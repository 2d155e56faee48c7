# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import collections
import enum
import json
import math
import struct
import types

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from envlogger import errors
from envlogger.converters import json_codec


def _round_trip(value):
    text = json.dumps(json_codec.encode(value), allow_nan=False)
    text.encode()  # Strict JSON is Unicode, without lone surrogates.
    return json_codec.decode(json.loads(text))


def _same(a, b):
    """Whether two values have the same types and bits all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.str_ | np.bytes_):
        return a == b
    if isinstance(a, np.ndarray | np.generic):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype == object:
            return all(map(_same, a.reshape(-1).tolist(), b.reshape(-1).tolist()))
        return a.tobytes() == b.tobytes()
    if isinstance(a, complex):
        return struct.pack("dd", a.real, a.imag) == struct.pack("dd", b.real, b.imag)
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return _same(list(a), list(b)) and _same(list(a.values()), list(b.values()))
    return a == b


# Every code point, lone surrogates too, and often something that looks like one of our tags.
texts = st.text(st.characters(), max_size=5) | st.sampled_from(
    ["__tuple__", "__dict__", "__ndarray__", "__other__", "\ud83d\ude00"]
)
dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(),
    hnp.complex_number_dtypes(),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
    hnp.byte_string_dtypes(min_len=1),
    hnp.unicode_string_dtypes(min_len=1),
)
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
scalars = st.one_of(
    dtypes.flatmap(lambda dtype: hnp.arrays(dtype, ())).map(lambda array: array[()]),
    texts.map(np.str_),
    st.binary(max_size=5).map(np.bytes_),
)
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.builds(
        lambda bits: struct.unpack("d", struct.pack("Q", bits))[0], st.integers(0, 2**64 - 1)
    ),
    texts,
    st.binary(max_size=9),
)
keys = st.recursive(atoms, lambda inner: st.tuples(inner, inner), max_leaves=3)
values = st.recursive(
    atoms | scalars | arrays,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(texts, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=500)
@given(values)
def test_round_trip(value):
    assert _same(_round_trip(value), value)


@settings(deadline=None)
@given(arrays)
def test_round_trip_of_arrays_in_any_layout(array):
    for view in (array.T, array[..., ::-1] if array.ndim else array, np.asfortranarray(array)):
        assert _same(_round_trip(view), np.ascontiguousarray(view).reshape(view.shape))


@settings(deadline=None)
@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=0, min_side=0, max_side=3)))
def test_round_trip_of_bfloat16(bits):
    array = np.asarray(bits).view(ml_dtypes.bfloat16)

    assert _same(_round_trip(array), array)
    if array.size:
        assert _same(_round_trip(array.reshape(-1)[0]), array.reshape(-1)[0])


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1,
        2**64 - 1,
        1.5,
        "text",
        [1, [2.5, None]],
        {"agent": {"name": "dqn", "layers": [64, 64]}, "": [], "__a__": 1, "b": {}},
        {"__not_a_tag": 1},
    ],
)
def test_what_json_can_say_stays_plain(value):
    assert json_codec.encode(value) == value
    assert _same(_round_trip(value), value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, ("a",)), {"__tuple__": [1, {"__tuple__": ["a"]}]}),
        (b"\x00\xff", {"__bytes__": "AP8="}),
        (math.inf, {"__float__": "inf"}),
        (-math.inf, {"__float__": "-inf"}),
        (math.nan, {"__float__": "nan"}),
        (2**64, {"__int__": "0x10000000000000000"}),
        ({1: "a"}, {"__dict__": [[1, "a"]]}),
        ({"__tuple__": 1}, {"__dict__": [["__tuple__", 1]]}),
        (np.float32(0.5), {"__scalar__": {"dtype": "float32", "values": [0.5]}}),
        (np.str_("a"), {"__scalar__": {"dtype": "str", "values": ["a"]}}),
        (
            np.array([[1, 2]], np.int64),
            {"__ndarray__": {"dtype": "int64", "shape": [1, 2], "values": [1, 2]}},
        ),
        (
            np.array(["ab", "c"]),
            {"__ndarray__": {"dtype": "<U2", "shape": [2], "values": ["ab", "c"]}},
        ),
        # Little-endian bytes, whatever the dtype.
        (
            np.array(math.inf, ">f4"),
            {"__ndarray__": {"dtype": ">f4", "shape": [], "base64": "AACAfw=="}},
        ),
        (
            np.array([1], ml_dtypes.bfloat16),
            {"__ndarray__": {"dtype": "bfloat16", "shape": [1], "base64": "gD8="}},
        ),
    ],
)
def test_written_form_is_fixed(value, expected):
    assert json_codec.encode(value) == expected
    assert _same(_round_trip(value), value)


def test_large_arrays_are_base64():
    array = np.arange(2000).reshape(2, 1000)

    assert "base64" in json_codec.encode(array)["__ndarray__"]
    assert _same(_round_trip(array), array)


def test_object_arrays():
    array = np.empty((2, 2), dtype=object)
    array[0, 0], array[0, 1], array[1, 0] = "text", [1, (2,)], np.arange(3)

    assert _same(_round_trip(array), array)


def test_unusual_bools_keep_their_bits():
    array = np.array([0, 1, 2], np.uint8).view(bool)

    assert _round_trip(array).tobytes() == b"\x00\x01\x02"


def test_mappings_become_dicts():
    value = collections.OrderedDict(a=types.MappingProxyType({"b": 1}))

    assert _same(_round_trip(value), {"a": {"b": 1}})


def test_encoded_form_shares_nothing_with_the_value():
    value = {"a": [1]}
    encoded = json_codec.encode(value)

    value["a"].append(2)

    assert encoded == {"a": [1]}


def test_decoded_arrays_are_writable():
    for array in (np.zeros(3), np.full(3, math.nan), np.zeros((0, 2), ">f4")):
        decoded = _round_trip(array)
        decoded[...] = 1


Pair = collections.namedtuple("Pair", "a b")
Color = enum.IntEnum("Color", "RED")


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ({1, 2}, "set"),
        (Pair(1, 2), "Pair"),
        (Color.RED, "Color"),
        (np.ma.masked_array([1], [True]), "MaskedArray"),
        (object(), "object"),
        (len, "builtin_function"),
    ],
)
def test_other_types_are_refused(value, got):
    with pytest.raises(
        errors.UnsupportedValueError,
        match=rf"at 'agent/0/x': got .*{got}.*supported are None, bool",
    ):
        json_codec.encode({"agent": [{"x": value}]})
    with pytest.raises(errors.UnsupportedValueError, match=r"at the top level: got"):
        json_codec.encode(value)


def test_refusal_inside_an_object_array_names_the_element():
    with pytest.raises(errors.UnsupportedValueError, match=r"at 'a/1': got builtins\.set"):
        json_codec.encode({"a": np.array([1, {2}], dtype=object)})


@pytest.mark.parametrize("value", [np.zeros(2, [("x", "f4")]), np.zeros(2, [("x", "f4")])[0]])
def test_dtypes_with_fields_are_refused(value):
    with pytest.raises(errors.UnsupportedValueError, match=r"at 'a'.*without fields"):
        json_codec.encode({"a": value})


@pytest.mark.parametrize(
    "obj",
    [
        {"__tuple__": 3},
        {"__bytes__": "%%%"},
        {"__bytes__": 3},
        {"__float__": "fast"},
        {"__float__": "0xff"},
        {"__int__": "zz"},
        {"__dict__": [[1]]},
        {"__dict__": [[[], 1]]},
        {"__ndarray__": None},
        {"__ndarray__": {"dtype": "int64", "shape": [3], "values": [1, 2]}},
        {"__ndarray__": {"dtype": "int64", "shape": [3], "base64": "AAAA"}},
        {"__ndarray__": {"dtype": "no_such", "shape": [], "values": [1]}},
        {"__ndarray__": {"dtype": "object", "shape": [1], "base64": "AAAAAAAAAAA="}},
        {"__ndarray__": {"dtype": "int64", "shape": [1]}},
        {"__scalar__": {"dtype": "str", "values": []}},
    ],
)
def test_broken_forms_are_refused(obj):
    (tag,) = obj
    with pytest.raises(ValueError, match=f"Broken '{tag}' at 'a/0'"):
        json_codec.decode({"a": [obj]})


def test_unknown_forms_are_refused():
    with pytest.raises(ValueError, match=r"Unknown form '__quaternion__' at 'a'.*upgrade"):
        json_codec.decode({"a": {"__quaternion__": [1, 2, 3, 4]}})


def test_decode_takes_only_json():
    with pytest.raises(TypeError, match="Not JSON at 'a': got tuple"):
        json_codec.decode({"a": (1, 2)})
