# SPDX-License-Identifier: Apache-2.0
"""The choice of encodings, and columns there and back."""

from __future__ import annotations

import json

import nests
import numpy as np
import pytest
import repeatable
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from envlogger import errors
from envlogger.tfds import example, feature_json, features
from envlogger.tfds.features import STRING, Encoding, Feature

_settings = repeatable.settings(150)


def _choose(dtype, shape, image_format="png"):
    return features.choose(("a",), np.dtype(dtype), shape, image_format)


@pytest.mark.parametrize(
    ("dtype", "shape", "encoding"),
    [
        ("bool", (), "none"),
        ("int8", (3,), "none"),
        ("uint32", (300, 300), "none"),
        ("int64", (16, 16), "none"),
        ("int64", (257,), "bytes"),
        ("uint64", (), "bytes"),
        ("float16", (), "bytes"),
        ("float32", (1000,), "none"),
        ("float32", (3, 0), "bytes"),
        ("float32", (None, 3), "bytes"),
        ("float64", (), "bytes"),
        ("complex64", (2,), "bytes"),
        (nests.BFLOAT16, (2,), "bytes"),
        (STRING, (), "string"),
        (STRING, (2, 2), "string"),
        (STRING, (0,), "sequence"),
        (STRING, (None, 2), "sequence"),
        ("uint32", (0,), "sequence"),
        ("uint32", (None,), "sequence"),
        ("uint8", (84, 84, 3), "png"),
        ("uint8", (84, 84, 1), "png"),
        ("uint8", (84, 84, 4), "bytes"),
        ("uint8", (84, 0, 3), "bytes"),
        ("uint8", (None, None, 3), "png"),
        ("uint8", (1, 65_500, 3), "png"),
        ("uint8", (1, 65_501, 3), "bytes"),  # no image codec takes it
        ("uint8", (9_000, 9_000, 3), "bytes"),
        ("uint16", (84, 84, 3), "bytes"),
    ],
)
def test_encodings(dtype, shape, encoding):
    feature = _choose(dtype, shape)

    assert feature.encoding.value == encoding
    assert feature.dtype == dtype
    assert feature.shape == ((None, *shape[1:]) if encoding == "sequence" else shape)


def test_image_formats():
    assert _choose("uint8", (16, 16, 3), "raw").encoding is Encoding.BYTES
    assert _choose("uint8", (8, 8, 3), "jpeg").encoding is Encoding.JPEG
    assert _choose("uint8", (8, 8), "jpeg").encoding is Encoding.PLAIN


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("f4", (None, None)), ("f4", (None, 0)), (STRING, (2, None)), ("uint32", (2, None))],
)
def test_shapes_that_tfds_does_not_read_back_are_refused(dtype, shape):
    with pytest.raises(errors.UnsupportedValueError, match=r"^a: got .*(Pad them|Transpose them)"):
        _choose(dtype, shape)


def _all_leaves():
    """Returns leaves that can be stored, as values of a template (see `nests`)."""
    return nests.leaves().filter(lambda leaf: not (leaf.is_array and len(leaf.shape) > 4))


@_settings
@given(_all_leaves(), st.integers(0, 5), st.integers(0, 2**32), st.booleans())
def test_columns_come_back(leaf, count, seed, nested):
    rng = np.random.default_rng(seed)
    count = count if nested else 1
    rows = [nests._stored(nests.draw(leaf, n, rng)) for n in range(count)]
    rows = rows or [nests._stored(nests.draw(leaf, 0, rng))][:0]
    model = rows[0] if rows else nests._stored(nests.draw(leaf, 0, rng))
    is_varying = leaf.is_array and None in leaf.shape
    shape = (None, *model.shape[1:]) if is_varying else model.shape
    feature = features.choose(("a",), model.dtype, shape, "png")
    column = feature.zeros(count)
    for i, row in enumerate(rows):
        column[i] = row[()]

    encoded = features.encode_column(feature, column, nested=nested)
    record = example.serialize({f"a{suffix}": raw for suffix, raw in encoded.items()})
    decoded = features.decode_column(feature, example.parse(record), "a", nested=nested)

    assert len(decoded) == len(rows)
    for got, expected in zip(decoded, rows, strict=True):
        got = np.asarray(got, object if model.dtype == object else None)
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert got.tolist() == expected.tolist() or got.tobytes() == expected.tobytes()


def _feature(encoding, dtype="f4", shape=(2,)):
    return Feature(("a",), np.dtype(dtype), shape, encoding)


@pytest.mark.parametrize(
    ("feature", "raw"),
    [
        (_feature(Encoding.PLAIN), example.int64_feature(np.arange(2))),
        (_feature(Encoding.PLAIN), example.float_feature(np.arange(3.0))),
        (_feature(Encoding.PLAIN, "i4"), example.float_feature(np.arange(2.0))),
        (_feature(Encoding.BYTES), example.bytes_feature([b"1234567"])),
        (_feature(Encoding.BYTES, shape=(None,)), example.bytes_feature([b"1234567"])),
        (_feature(Encoding.ZLIB), example.bytes_feature([b"12345678"])),
        (_feature(Encoding.PNG, "u1", (2, 2, 3)), example.bytes_feature([b"12345678"])),
        (_feature(Encoding.STRING, object), example.bytes_feature([b"1", b"2", b"3"])),
        (_feature(Encoding.SEQUENCE, "u4", (None,)), example.int64_feature(np.arange(2))),
    ],
)
def test_records_that_hold_something_else_are_refused(feature, raw):
    with pytest.raises(errors.CorruptDatasetError, match=r"^a: a record does not hold "):
        list(features.decode_column(feature, {"a": raw}, "a", nested=True))


def test_the_error_names_what_is_missing():
    with pytest.raises(
        errors.CorruptDatasetError,
        match=r"^steps/a: a record does not hold float32 of shape \(2,\) as none: it is not in",
    ):
        features.decode_column(_feature(Encoding.PLAIN), {}, "steps/a", nested=True)


# --- features.json ---------------------------------------------------------------------------------

_Bytes = tfds.features.Encoding.BYTES

PAIRS = {
    "bool": (_choose("bool", ()), tfds.features.Tensor(shape=(), dtype=np.bool_)),
    "f32": (_choose("f4", (2, 3)), tfds.features.Tensor(shape=(2, 3), dtype=np.float32)),
    "u32": (_choose("u4", (2,)), tfds.features.Tensor(shape=(2,), dtype=np.uint32)),
    "f64": (
        _choose("f8", ()),
        tfds.features.Tensor(shape=(), dtype=np.float64, encoding=_Bytes),
    ),
    "f16": (
        _choose("f2", (3,)),
        tfds.features.Tensor(shape=(3,), dtype=np.float16, encoding=_Bytes),
    ),
    "bfloat16": (
        _choose(nests.BFLOAT16, (3,)),
        tfds.features.Tensor(shape=(3,), dtype=nests.BFLOAT16.type, encoding=_Bytes),
    ),
    "complex": (
        _choose("c16", (3,)),
        tfds.features.Tensor(shape=(3,), dtype=np.complex128, encoding=_Bytes),
    ),
    "varying": (
        _choose("i4", (None, 3)),
        tfds.features.Tensor(shape=(None, 3), dtype=np.int32, encoding=_Bytes),
    ),
    "empty": (
        _choose("i4", (0, 3)),
        tfds.features.Tensor(shape=(0, 3), dtype=np.int32, encoding=_Bytes),
    ),
    "text": (_choose(STRING, ()), tfds.features.Text()),
    "texts": (_choose(STRING, (2, 2)), tfds.features.Tensor(shape=(2, 2), dtype=np.object_)),
    "varying_texts": (
        _choose(STRING, (None, 2)),
        tfds.features.Sequence(tfds.features.Tensor(shape=(2,), dtype=np.object_)),
    ),
    "varying_u32": (
        _choose("u4", (None,)),
        tfds.features.Sequence(tfds.features.Tensor(shape=(), dtype=np.uint32)),
    ),
    "png": (
        _choose("u1", (4, 5, 3)),
        tfds.features.Image(shape=(4, 5, 3), dtype=np.uint8, encoding_format="png"),
    ),
    "jpeg": (
        _choose("u1", (None, None, 1), "jpeg"),
        tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="jpeg"),
    ),
    "zlib": (
        _feature(Encoding.ZLIB),
        tfds.features.Tensor(shape=(2,), dtype=np.float32, encoding=tfds.features.Encoding.ZLIB),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_json_of_a_feature_is_what_tfds_writes(name, tmp_path):
    feature, theirs = PAIRS[name]
    written = _tfds_file({name: theirs}, tmp_path)

    assert feature_json.to_json({(name,): feature}) == written
    assert feature_json.from_json(written) == {
        (name,): Feature((name,), feature.dtype, feature.shape, feature.encoding)
    }


def _tfds_file(nest, path):
    """Returns what TFDS writes into a features.json."""
    tfds.features.FeaturesDict(nest).save_config(str(path))
    return json.loads((path / "features.json").read_text())


def test_nests_and_descriptions(tmp_path):
    doc = tfds.core.features.Documentation(desc="What it is.")
    theirs = {
        "a": tfds.features.Tensor(shape=(), dtype=np.int32, doc=doc),
        "b c": {"ключ": tfds.features.Text(), "x/y": tfds.features.Text()},
    }
    ours = {
        ("a",): Feature(("a",), np.dtype("i4"), (), Encoding.PLAIN, "What it is."),
        ("b c", "ключ"): Feature(("b c", "ключ"), STRING, (), Encoding.STRING),
        ("b c", "x/y"): Feature(("b c", "x/y"), STRING, (), Encoding.STRING),
    }

    assert feature_json.to_json(ours) == _tfds_file(theirs, tmp_path)
    assert feature_json.from_json(feature_json.to_json(ours)) == ours


@pytest.mark.parametrize(
    "theirs",
    [
        tfds.features.Video(shape=(None, 4, 4, 3)),
        tfds.features.Audio(),
        tfds.features.Sequence(tfds.features.Sequence(np.int64)),
        tfds.features.Sequence(tfds.features.Tensor(shape=(None,), dtype=np.int64)),
        tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16),
        tfds.features.Image(shape=(4, 4, 1), dtype=np.float32),
    ],
)
def test_other_classes_are_refused_by_name(theirs, tmp_path):
    node = _tfds_file({"x": theirs}, tmp_path)

    with pytest.raises(errors.UnsupportedValueError, match=r"^x: got .* not supported"):
        feature_json.from_json(node)


def test_features_of_others_that_can_be_read(tmp_path):
    node = _tfds_file(
        {
            "label": tfds.features.ClassLabel(num_classes=3),
            "scalar": tfds.features.Scalar(np.int16),
            "tokens": tfds.features.Sequence(tfds.features.Text()),
            "numbers": tfds.features.Sequence(np.float32),
            "image": tfds.features.Image(),
        },
        tmp_path,
    )

    found = feature_json.from_json(node)

    assert {path[0]: (f.dtype, f.shape, f.encoding) for path, f in found.items()} == {
        "label": (np.dtype(np.int64), (), Encoding.PLAIN),
        "scalar": (np.dtype(np.int16), (), Encoding.PLAIN),
        "tokens": (STRING, (None,), Encoding.SEQUENCE),
        "numbers": (np.dtype(np.float32), (None,), Encoding.SEQUENCE),
        "image": (np.dtype(np.uint8), (None, None, 3), Encoding.PNG),
    }


def test_lists_of_features_for_the_journal_come_back():
    ours = [feature for feature, _ in PAIRS.values()]

    written = json.loads(json.dumps(feature_json.list_to_json(ours)))

    assert feature_json.list_from_json(written) == ours
