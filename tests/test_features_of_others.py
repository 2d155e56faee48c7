# SPDX-License-Identifier: Apache-2.0
"""Every feature of datasets that other programs wrote, as Reader reads it; stock TFDS is the oracle."""

from __future__ import annotations

import json
import warnings

import foreign
import helpers
import numpy as np
import pytest

import envlogger
from envlogger import errors
from envlogger.testing.comparison import assert_same

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow_datasets as tfds

F = tfds.features
_IMAGE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
_EVERYTHING = {
    **{
        f"{name}_{encoding}": (
            F.Tensor(shape=(2,), dtype=np.dtype(name).type, encoding=encoding),
            lambda t, name=name: np.array([t, 1], name),
        )
        for name in ("bool", "int8", "uint16", "int64", "float16", "float32")
        for encoding in ("none", "bytes", "zlib")
    },
    "float64": (F.Tensor(shape=(), dtype=np.float64, encoding="bytes"), lambda t: t / 3),
    "narrowed": (F.Scalar(np.float64), lambda t: t / 3),
    "uint64": (F.Tensor(shape=(1,), dtype=np.uint64, encoding="zlib"), lambda t: [2**64 - 1 - t]),
    "ragged": (
        F.Tensor(shape=(None, 2), dtype=np.float64, encoding="bytes"),
        lambda t: np.full((t, 2), t / 3),
    ),
    "text": (F.Text(), lambda t: f"é{t}\0"),
    "texts": (F.Tensor(shape=(2,), dtype=np.object_), lambda t: np.array([b"a", b"b\0"], object)),
    "label": (F.ClassLabel(names=["no", "yes"]), lambda t: "yes" if t else "no"),
    "labels": (F.Sequence(F.ClassLabel(num_classes=3)), lambda t: [1] * t),
    "numbers": (F.Sequence(np.float32), lambda t: [0.5] * t),
    "pairs": (F.Sequence(F.Tensor(shape=(2,), dtype=np.int32)), lambda t: [[t, 1]] * t),
    "words": (F.Sequence(F.Text()), lambda t: ["a", "bc"][:t]),
    "dicts": (
        F.Sequence({"a": np.int64, "b": F.Text()}),
        lambda t: [{"a": i, "b": "x"} for i in range(t)],
    ),
    "box": (F.BBoxFeature(), lambda t: F.BBox(0.0, 0.25, 0.5, 1.0)),
    "translation": (F.Translation(["de", "en"]), lambda t: {"de": "ja", "en": "yes"}),
    "png": (F.Image(shape=(4, 4, 3), encoding_format="png"), lambda t: _IMAGE + np.uint8(t)),
    "grey": (F.Image(shape=(4, 4, 1), encoding_format="png"), lambda t: _IMAGE[..., :1]),
    "rgba": (F.Image(shape=(4, 3, 4), encoding_format="png"), lambda t: _IMAGE.reshape(4, 3, 4)),
    "sizes": (
        F.Image(shape=(None, None, 3), encoding_format="png"),
        lambda t: np.full((1 + t, 2, 3), t, np.uint8),
    ),
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A dataset of every feature; empty sequences come last, as TFDS needs it."""
    step = {name: feature for name, (feature, _) in _EVERYTHING.items()}
    episodes = [
        {
            "steps": [{name: make(t) for name, (_, make) in _EVERYTHING.items()} for t in times],
            "episode_metadata": {"file_path": "a/b", "tags": ["x", "y"], "score": {"n": 3}},
            "image": _IMAGE,
        }
        for times in ([2, 1], [0, 3, 1])
    ]
    episode = {
        "episode_metadata": {
            "file_path": F.Text(),
            "tags": F.Sequence(F.Text()),
            "score": {"n": np.int64},
        },
        "image": F.Image(shape=(4, 4, 3), encoding_format="png"),
    }
    root = tmp_path_factory.mktemp("everything")
    return {f: foreign.write(root / f, step, episodes, f, episode) for f in foreign.FORMATS}


@pytest.mark.parametrize("file_format", foreign.FORMATS)
def test_every_feature_is_what_tfds_reads(everything, file_format):
    expected = helpers.source_steps(everything["array_record"])

    with envlogger.Reader(everything[file_format]) as reader:
        for episode, steps in zip(reader.episodes, expected, strict=True):
            foreign.check_columns(episode.columns(), steps)
        for episode in reader.episodes:
            columns = helpers.flat(episode.columns())
            for t, step in enumerate(episode):
                for path, value in helpers.flat(step.custom_data).items():
                    assert np.asarray(value).tolist() == np.asarray(columns[path][t]).tolist()
                assert step.action is step.timestep.reward is step.timestep.observation is None
        metadata = reader.episode_metadata()[1]
        assert metadata["episode_metadata"]["score"] == {"n": 3}
        assert metadata["episode_metadata"]["file_path"] == b"a/b"
        assert metadata["episode_metadata"]["tags"].tolist() == [b"x", b"y"]
        assert_same(metadata["image"], _IMAGE)


def test_an_optional_feature_may_be_missing(tmp_path):
    optional = F.Tensor(shape=(), dtype=np.int64, optional=True)
    episodes = [{"steps": [{"is_first": True}], "n": {"score": n}} for n in (3, None)]
    foreign.write(
        tmp_path, {"is_first": np.bool_}, episodes, "tfrecord", {"n": {"score": optional}}
    )

    with envlogger.Reader(tmp_path) as reader:
        assert list(reader.episode_metadata()) == [{"n": {"score": 3}}, {"n": {"score": None}}]


def test_dtypes_stay_what_they_were_declared(everything):
    with envlogger.Reader(everything["tfrecord"]) as reader:
        columns = reader.episodes[1].columns()
    for name, (feature, _) in _EVERYTHING.items():
        if isinstance(feature, F.Tensor) and None not in feature.shape:
            assert columns[name].dtype == feature.np_dtype, name
    # What TFDS has narrowed when it wrote it stays narrowed.
    assert columns["narrowed"].tolist() == [0.0, float(np.float32(1)), float(np.float32(1 / 3))]
    assert columns["float64"][2] == 1 / 3


def test_columns_belong_to_the_caller(everything):
    with envlogger.Reader(everything["array_record"]) as reader:
        before = json.dumps(_flat_lists(reader.episodes[1].columns()))
        for rows in (slice(None), [0, 1, 2]):
            for column in helpers.flat(reader.episodes[1].columns(rows=rows)).values():
                for row in column if column.dtype == object else [column]:
                    if isinstance(row, np.ndarray):
                        row[...] = 0
                column[...] = 0
        assert json.dumps(_flat_lists(reader.episodes[1].columns())) == before


def _flat_lists(tree):
    return {
        "/".join(k): repr([np.asarray(x).tolist() for x in v])
        for k, v in helpers.flat(tree).items()
    }


@pytest.mark.parametrize(
    ("name", "feature", "value"),
    [
        ("audio", F.Audio(), np.zeros(3, np.int64)),
        ("deep", F.Image(shape=(2, 2, 1), dtype=np.uint16), np.zeros((2, 2, 1), np.uint16)),
        ("nested", F.Sequence(F.Sequence(np.int64)), [[1]]),
    ],
)
def test_a_feature_that_cannot_be_read_is_named(tmp_path, name, feature, value):
    foreign.write(
        tmp_path, {"camera": {name: feature}}, [{"steps": [{"camera": {name: value}}]}], "tfrecord"
    )

    with pytest.raises(errors.UnsupportedValueError) as raised:
        envlogger.Reader(tmp_path)

    helpers.check_message(raised, str(tmp_path), f"camera/{name}: got ", "tfds.load")
