# SPDX-License-Identifier: Apache-2.0
"""The wire codec against protobuf's own."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import example as also
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from envlogger import errors, varints
from envlogger.tfds import example

_settings = settings(deadline=None, derandomize=True, max_examples=200)

INT64S = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [0, 1, -1, 127, 128, 16383, 16384, 2**32, -(2**63), 2**63 - 1]
)
FLOAT_BITS = st.integers(0, 2**32 - 1) | st.sampled_from(
    [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345, 1]
)
VALUES = (
    st.tuples(st.just("bytes"), st.lists(st.binary(max_size=200), max_size=5))
    | st.tuples(st.just("float"), st.lists(FLOAT_BITS, max_size=20))
    | st.tuples(st.just("int"), st.lists(INT64S, max_size=20))
)
FEATURES = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), VALUES, max_size=5)


def _encode(values):
    kind, items = values
    if kind == "bytes":
        return example.bytes_feature(items)
    if kind == "float":
        return example.float_feature(np.array(items, np.uint32).view(np.float32))
    return example.int64_feature(np.array(items, np.int64))


def _decode(feature):
    """Returns kind and items, floats as bits."""
    if feature.kind == example.BYTES_LIST:
        return "bytes", [bytes(item) for item in example.decode_bytes(feature)]
    if feature.kind == example.FLOAT_LIST:
        return "float", example.decode_floats(feature).view(np.uint32).tolist()
    return "int", example.decode_int64s(feature).tolist()


def _to_protobuf(features):
    message = tf_example_pb2.Example()
    for name, (kind, items) in features.items():
        feature = message.features.feature[name]
        if kind == "bytes":
            feature.bytes_list.SetInParent()
            feature.bytes_list.value.extend(items)
        elif kind == "float":
            feature.float_list.SetInParent()
            feature.float_list.value.extend(np.array(items, np.uint32).view(np.float32).tolist())
        else:
            feature.int64_list.SetInParent()
            feature.int64_list.value.extend(items)
    return message


def _from_protobuf(message):
    features = {}
    for name, feature in message.features.feature.items():
        kind = feature.WhichOneof("kind")
        items = list(getattr(feature, kind).value)
        if kind == "float_list":
            items = np.array(items, np.float32).view(np.uint32).tolist()
        features[name] = (kind.removesuffix("_list").replace("int64", "int"), items)
    return features


def _quiet(features):
    """Returns features whose signalling NaNs are quiet, as Python's floats make them."""

    def quiet(bits):
        is_nan = bits & 0x7FFFFFFF > 0x7F800000
        return bits | 1 << 22 if is_nan else bits

    return {
        name: (kind, list(map(quiet, items)) if kind == "float" else items)
        for name, (kind, items) in features.items()
    }


@_settings
@given(FEATURES)
def test_protobuf_reads_what_we_write(features):
    data = example.serialize({name: _encode(values) for name, values in features.items()})

    message = tf_example_pb2.Example.FromString(data)

    assert _quiet(_from_protobuf(message)) == _quiet(features)


@_settings
@given(FEATURES)
def test_we_read_what_protobuf_writes(features):
    data = _to_protobuf(features).SerializeToString()

    parsed = {name: _decode(feature) for name, feature in example.parse(data).items()}

    assert _quiet(parsed) == _quiet(features)


@_settings
@given(FEATURES)
def test_we_read_what_we_write_to_the_bit(features):
    data = example.serialize({name: _encode(values) for name, values in features.items()})

    assert {name: _decode(feature) for name, feature in example.parse(data).items()} == features


@_settings
@given(FEATURES, FEATURES)
def test_records_that_are_joined_hold_the_features_of_both(one, other):
    data = example.serialize({name: _encode(values) for name, values in one.items()})
    data += example.serialize({name: _encode(values) for name, values in other.items()})

    parsed = {name: _decode(feature) for name, feature in example.parse(data).items()}

    assert parsed == {**one, **other}
    assert _quiet(_from_protobuf(tf_example_pb2.Example.FromString(data))) == _quiet(parsed)


def _message(tag, data):
    return bytes([tag]) + varints.encode(len(data)) + data


def _record(kind, list_bytes):
    """Returns a record with one feature, 'x', whose list is given byte by byte."""
    feature = _message(kind << 3 | 2, list_bytes)
    entry = _message(0x0A, b"x") + _message(0x12, feature)
    return _message(0x0A, _message(0x0A, entry))


@_settings
@given(st.lists(INT64S, max_size=20))
def test_integers_that_are_not_packed(values):
    data = _record(
        example.INT64_LIST,
        b"".join(b"\x08" + varints.encode(value % 2**64) for value in values),
    )

    assert list(tf_example_pb2.Example.FromString(data).features.feature["x"].int64_list.value) == (
        values
    )
    assert _decode(example.parse(data)["x"]) == ("int", values)


@_settings
@given(st.lists(FLOAT_BITS, max_size=20))
def test_floats_that_are_not_packed(values):
    data = _record(
        example.FLOAT_LIST, b"".join(b"\x0d" + struct.pack("<I", value) for value in values)
    )

    assert len(tf_example_pb2.Example.FromString(data).features.feature["x"].float_list.value) == (
        len(values)
    )
    assert _decode(example.parse(data)["x"]) == ("float", values)


@_settings
@given(st.lists(st.lists(INT64S, max_size=5), max_size=4))
def test_lists_that_are_packed_in_pieces(pieces):
    packed = [b"".join(varints.encode(v % 2**64) for v in piece) for piece in pieces]
    data = _record(example.INT64_LIST, b"".join(_message(0x0A, piece) for piece in packed))

    assert _decode(example.parse(data)["x"]) == ("int", [v for piece in pieces for v in piece])


@pytest.mark.parametrize(
    "lists",
    [
        (example.INT64_LIST, b"\x08\x01" + b"\x0a\x01\x02"),
        (example.INT64_LIST, b"\x0a\x01\x02" + b"\x08\x01"),
        (example.INT64_LIST, b"\x08\x01\x08"),
        (example.FLOAT_LIST, b"\x0d\0\0\0\0" + b"\x0a\x04\0\0\0\0"),
        (example.FLOAT_LIST, b"\x0d\0\0\0\0" + b"\x0a\x08\0\0\0\0\0\0\0\0"),
        (example.FLOAT_LIST, b"\x0d\0\0\0"),
        (example.FLOAT_LIST, b"\x0a\x03\0\0\0"),
        (example.INT64_LIST, b"\x0a\x01\x80"),
        (example.INT64_LIST, b"\x0a\x0b" + b"\xff" * 10 + b"\x01"),
        (example.BYTES_LIST, b"\x0a\x05abc"),
        (example.BYTES_LIST, b"\x08\x01"),
    ],
)
def test_broken_lists_are_refused(lists):
    feature = example.parse(_record(*lists))["x"]

    with pytest.raises((ValueError, IndexError)):
        _decode(feature)


def test_a_feature_without_a_value():
    message = tf_example_pb2.Example()
    message.features.feature["x"].SetInParent()

    feature = example.parse(message.SerializeToString())["x"]

    assert feature.kind == 0
    for decode in (example.decode_bytes, example.decode_floats, example.decode_int64s):
        with pytest.raises(ValueError, match="got no value, expected"):
            decode(feature)


def test_a_list_of_another_kind_is_refused():
    feature = example.int64_feature(np.arange(3))

    with pytest.raises(ValueError, match="got int64_list, expected float_list"):
        example.decode_floats(feature)


@_settings
@given(st.binary(max_size=60))
@also(b"\x0a")
@also(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@also(b"\x0a\x02\x0a\x00")
def test_garbage_gives_one_kind_of_error(data):
    with contextlib.suppress(errors.CorruptDatasetError):
        for feature in example.parse(data).values():
            with contextlib.suppress(ValueError, IndexError):
                _decode(feature)


@_settings
@given(FEATURES, st.data())
def test_damage_gives_one_kind_of_error(features, data):
    record = bytearray(example.serialize({n: _encode(v) for n, v in features.items()}))
    if record and data.draw(st.booleans()):
        del record[data.draw(st.integers(0, len(record) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3)) if record else 0):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))

    test_garbage_gives_one_kind_of_error.hypothesis.inner_test(bytes(record))


def test_what_is_cut_off_is_named():
    record = example.serialize({"x": example.bytes_feature([b"abc"])})

    with pytest.raises(
        errors.CorruptDatasetError, match=r"of \d+ bytes is not a tf\.train\.Example"
    ):
        example.parse(record[:-1])


@pytest.mark.parametrize("dtype", [np.bool_, *"bhilqBHILQ"])
def test_integers_of_every_width(dtype):
    dtype = np.dtype(dtype)
    top = 1 if dtype == np.bool_ else np.iinfo(dtype).max
    low = 0 if dtype == np.bool_ else np.iinfo(dtype).min
    values = np.array([[0, 1, top], [low, top // 2, 1]], dtype)

    decoded = example.decode_int64s(example.int64_feature(values))

    assert decoded.view(np.uint64).astype(dtype).tolist() == values.reshape(-1).tolist()


@pytest.mark.parametrize("shape", [(0, 3), (3,), (2, 3), (2, 0), (2, 2, 2), (1, 200)])
@pytest.mark.parametrize("dtype", ["uint8", "float64", "complex128"])
def test_rows(shape, dtype):
    rows = (np.arange(np.prod(shape)).reshape(shape) % 100).astype(dtype)

    feature = example.rows_feature(rows)

    assert [bytes(item) for item in example.decode_bytes(feature)] == [r.tobytes() for r in rows]
    decoded = example.decode_rows(feature, np.dtype(dtype), shape[1:])
    assert decoded.dtype == dtype
    assert decoded.shape == shape
    assert decoded.tobytes() == rows.tobytes()


def test_rows_that_are_not_contiguous():
    rows = np.arange(12.0).reshape(3, 4).T[::2]

    decoded = example.decode_rows(example.rows_feature(rows), rows.dtype, (3,))

    assert decoded.tolist() == rows.tolist()


def test_rows_of_another_size_are_refused():
    feature = example.bytes_feature([b"1234", b"12345678"])

    with pytest.raises(ValueError, match="elements are not of 4 bytes each"):
        example.decode_rows(feature, np.dtype(np.float32), ())
