# SPDX-License-Identifier: Apache-2.0
"""Records that look like earlier ones are read by short cuts, and give the same."""

from __future__ import annotations

import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envlogger import errors
from envlogger.testing.comparison import assert_same
from envlogger.tfds import example, features, schema, stored_episode
from envlogger.tfds.features import Encoding, Feature

_FEATURES = [
    Feature(("f4",), np.dtype("f4"), (2,), Encoding.PLAIN),
    Feature(("f8",), np.dtype("f8"), (), Encoding.BYTES),
    Feature(("u1",), np.dtype("u1"), (3, 50), Encoding.BYTES),
    Feature(("i8",), np.dtype("i8"), (), Encoding.PLAIN),
    Feature(("u8",), np.dtype("u8"), (2,), Encoding.PLAIN),
    Feature(("bool",), np.dtype(bool), (), Encoding.PLAIN),
    Feature(("narrowed",), np.dtype("f8"), (), Encoding.PLAIN),
    Feature(("text",), features.STRING, (), Encoding.STRING),
    Feature(("list",), np.dtype("i4"), (None,), Encoding.SEQUENCE),
    Feature(("zlib",), np.dtype("f4"), (2,), Encoding.ZLIB),
]


def _schema():
    of = schema.Schema()
    of.steps = {feature.path: feature for feature in _FEATURES}
    return of


def _columns(count, rng, most):
    columns = {}
    for feature in _FEATURES:
        name, shape = feature.path[0], (count, *(dim or 0 for dim in feature.shape))
        if name == "text":
            columns[name] = np.array([rng.bytes(2) for _ in range(count)] or [], object)
        elif name == "list":
            columns[name] = [np.full(t % 2, rng.integers(most), "i4") for t in range(count)]
        elif feature.dtype.kind == "f":
            values = rng.standard_normal(shape).astype("f4")
            columns[name] = values.astype(feature.dtype)
        else:
            columns[name] = rng.integers(2 if name == "bool" else most, size=shape).astype(
                feature.dtype
            )
    return columns


def _record(columns):
    raw = {}
    for feature in _FEATURES:
        column = columns[feature.path[0]]
        for suffix, value in features.encode_column(feature, column, nested=True).items():
            raw[f"steps/{feature.path[0]}{suffix}"] = value
    return example.serialize(raw)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([2, 128, 200, 70_000]), st.integers(0, 99)),
        max_size=8,
    )
)
def test_a_decoder_that_has_seen_others_gives_the_same(episodes):
    of = _schema()
    decoder = stored_episode.Decoder(of)
    for count, most, seed in episodes:
        record = _record(_columns(count, np.random.default_rng(seed), most))

        for _ in range(2):
            found = decoder.decode(record, "").columns(None, slice(None))
            fresh = stored_episode.decode(record, of).columns(None, slice(None))
            assert {k: repr(v.tolist()) for k, v in found.items()} == {
                k: repr(v.tolist()) for k, v in fresh.items()
            }
            for name, column in found.items():
                assert column.dtype == fresh[name].dtype
                assert column.flags.writeable


def test_what_stands_between_rows_is_compared_each_time():
    of = _schema()
    decoder = stored_episode.Decoder(of)
    columns = _columns(3, np.random.default_rng(0), 100)
    record = _record(columns)
    episode = decoder.decode(record, "")
    assert_same(episode.column(("f8",), slice(None)), columns["f8"])
    place = record.index(columns["f8"][1].tobytes()) - 1  # the length of the row

    damaged = record[:place] + bytes([7]) + record[place + 1 :]

    with pytest.raises(errors.CorruptDatasetError, match="steps/f8"):
        decoder.decode(damaged, "").column(("f8",), slice(None))
    assert_same(decoder.decode(record, "").column(("f8",), slice(None)), columns["f8"])


def test_a_record_of_the_same_length_may_have_another_layout():
    parser = example.Parser()
    one = example.serialize(
        {"a": example.bytes_feature([b"xyz"]), "b": example.bytes_feature([b""])}
    )
    other = example.serialize(
        {"a": example.bytes_feature([b""]), "b": example.bytes_feature([b"xyz"])}
    )
    assert len(one) == len(other)

    for record in (one, other, one, one, other):
        parsed = example.ParsedRecord(record, parser.layout_of(record))
        found = {name: bytes(raw.data) for name, raw in parsed.items()}
        assert found == {name: bytes(raw.data) for name, raw in example.parse(record).items()}


def test_the_layouts_that_are_known_are_bounded(monkeypatch):
    monkeypatch.setattr(example, "_MAX_LAYOUTS", 2)
    find_layout = example.find_layout
    found = helpers.spy(monkeypatch, example, "find_layout", len)
    parser = example.Parser()
    records = [example.serialize({"a": example.bytes_feature([b"x" * n])}) for n in range(3)]
    sizes = list(map(len, records))

    for place in (0, 1, 0, 1, 2, 1, 2, 0):
        layout = parser.layout_of(records[place])
        assert layout == find_layout(records[place])
    assert found == [*sizes, sizes[0]]
