# SPDX-License-Identifier: Apache-2.0
"""Datasets that other programs wrote, as Reader reads them; stock TFDS is the oracle."""

from __future__ import annotations

import itertools
import json
import pathlib
import shutil
import struct
import warnings

import dm_env
import helpers
import numpy as np
import pytest

import envlogger
from envlogger import errors
from envlogger.testing.comparison import assert_same
from envlogger.tfds import step_index

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow_datasets as tfds

F = tfds.features
LEGACY = pathlib.Path(__file__).parent / "data" / "tfds_legacy"
FORMATS = ("array_record", "tfrecord")

_FLAGS = {"is_first": np.bool_, "is_last": np.bool_, "is_terminal": np.bool_}
_RLDS = {
    "observation": {"x": F.Tensor(shape=(2,), dtype=np.float32)},
    "action": np.int32,
    "reward": np.float32,
    "discount": np.float32,
    **_FLAGS,
}


def _write(path, step, episodes, file_format, episode=None, per_shard=2, splits=("train",)):
    """Writes dicts with TFDS's own writer; returns the directory."""
    path.mkdir(parents=True, exist_ok=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="toy", version=tfds.core.Version("1.0.0"), data_dir=str(path), module_name=""
    )
    features = F.FeaturesDict({"steps": F.Dataset(step), **(episode or {})})
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, per_shard, file_format=file_format)
    writer.initialize_splits(list(splits))
    for item in episodes:
        writer.add_examples({split: [item] for split in splits})
    writer.close_all()
    return path


def _rlds_step(number, t, count, **more):
    return {
        "observation": {"x": np.array([number, t], np.float32)},
        "action": 10 * number + t,
        "reward": np.float32(t / 3),
        "discount": np.float32(1),
        "is_first": t == 0,
        "is_last": t == count - 1,
        "is_terminal": t == count - 1,
        **more,
    }


def _rlds(lengths):
    return [
        {"steps": [_rlds_step(number, t, count) for t in range(count)]}
        for number, count in enumerate(lengths)
    ]


def _flat(tree, path=()):
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for key, item in tree.items() for k, v in _flat(item, (*path, key)).items()}


def _check_columns(columns, steps):
    """Compares columns with the steps that TFDS gives."""
    columns = _flat(columns)
    assert columns.keys() == _flat(steps[0]).keys()
    for path, column in columns.items():
        assert isinstance(column, np.ndarray)
        assert len(column) == len(steps)
        for row, step in zip(column, steps, strict=True):
            expected, row = _array(_flat(step)[path]), _array(row)
            if not expected.size:  # TFDS gives an empty list
                assert not row.size
                continue
            assert row.dtype.kind == expected.dtype.kind or row.dtype == object
            assert row.shape == expected.shape, path
            assert row.tolist() == expected.tolist(), path


def _array(value):
    """Returns a value as an array that keeps NULs at the end of strings."""
    is_text = isinstance(value, bytes) or (isinstance(value, list) and bytes in map(type, value))
    return np.asarray(value, object if is_text else None)


# --- every feature --------------------------------------------------------------------------------

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
    return {f: _write(root / f, step, episodes, f, episode) for f in FORMATS}


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_feature_is_what_tfds_reads(everything, file_format):
    expected = helpers.source_steps(everything["array_record"])

    with envlogger.Reader(everything[file_format]) as reader:
        for episode, steps in zip(reader.episodes, expected, strict=True):
            _check_columns(episode.columns(), steps)
        for episode in reader.episodes:
            columns = _flat(episode.columns())
            for t, step in enumerate(episode):
                for path, value in _flat(step.custom_data).items():
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
    _write(tmp_path, {"is_first": np.bool_}, episodes, "tfrecord", {"n": {"score": optional}})

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
            for column in _flat(reader.episodes[1].columns(rows=rows)).values():
                for row in column if column.dtype == object else [column]:
                    if isinstance(row, np.ndarray):
                        row[...] = 0
                column[...] = 0
        assert json.dumps(_flat_lists(reader.episodes[1].columns())) == before


def _flat_lists(tree):
    return {"/".join(k): repr([np.asarray(x).tolist() for x in v]) for k, v in _flat(tree).items()}


@pytest.mark.parametrize(
    ("name", "feature", "value"),
    [
        ("audio", F.Audio(), np.zeros(3, np.int64)),
        ("deep", F.Image(shape=(2, 2, 1), dtype=np.uint16), np.zeros((2, 2, 1), np.uint16)),
        ("nested", F.Sequence(F.Sequence(np.int64)), [[1]]),
    ],
)
def test_a_feature_that_cannot_be_read_is_named(tmp_path, name, feature, value):
    _write(
        tmp_path, {"camera": {name: feature}}, [{"steps": [{"camera": {name: value}}]}], "tfrecord"
    )

    with pytest.raises(errors.UnsupportedValueError) as raised:
        envlogger.Reader(tmp_path)

    helpers.check_message(raised, str(tmp_path), f"camera/{name}: got ", "tfds.load")


# --- the fields of RLDS ---------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("missing", [*_RLDS, None])
def test_fields_that_are_not_there_are_none(tmp_path, missing, file_format):
    step = {key: value for key, value in _RLDS.items() if key != missing}
    episodes = [
        {"steps": [{key: item[key] for key in step} for item in episode["steps"]]}
        for episode in _rlds([3, 1])
    ]
    _write(tmp_path, step, episodes, file_format)

    with envlogger.Reader(tmp_path) as reader:
        first, middle, last, single = reader.steps
        slots = [
            (s.timestep.observation, s.action, s.timestep.reward, s.timestep.discount)
            for s in (first, middle, last)
        ]
        assert missing not in reader.episodes[0].columns()
    kinds = [step.timestep.step_type for step in (first, middle, last, single)]
    assert kinds == [
        dm_env.StepType.FIRST,
        dm_env.StepType.MID,
        dm_env.StepType.LAST,
        dm_env.StepType.FIRST,
    ]
    expected = [
        (
            {"x": np.array([0, t], np.float32)},
            np.int32(t - 1),
            np.float32((t - 1) / 3),
            np.float32(1),
        )
        for t in range(3)
    ]
    expected[0] = (expected[0][0], None, None, None)
    names = ("observation", "action", "reward", "discount")
    assert_same(
        slots,
        [
            tuple(
                None if name == missing else value for name, value in zip(names, row, strict=True)
            )
            for row in expected
        ],
    )


def test_an_episode_that_goes_on_has_no_last_step(tmp_path):
    steps = [{"is_first": False, "is_last": False}] * 2
    _write(tmp_path, {"is_first": np.bool_, "is_last": np.bool_}, [{"steps": steps}], "tfrecord")

    with envlogger.Reader(tmp_path) as reader:
        assert [step.timestep.step_type for step in reader.steps] == [dm_env.StepType.MID] * 2


def test_a_dataset_without_steps(tmp_path):
    path = tmp_path / "1.0.0"
    _write(path, _RLDS, _rlds([2]), "tfrecord")
    features = json.loads((path / "features.json").read_text())
    entries = features["featuresDict"]["features"]
    entries["frames"] = entries.pop("steps")
    (path / "features.json").write_text(json.dumps(features))

    with pytest.raises(errors.DatasetError) as raised:
        envlogger.Reader(path)

    helpers.check_message(raised, str(path / "features.json"), "'steps'", "not in RLDS form")


def test_episodes_without_steps(tmp_path):
    _write(tmp_path, _RLDS, [*_rlds([2, 0, 3]), {"steps": []}], "tfrecord")

    with envlogger.Reader(tmp_path) as reader:
        assert [len(episode) for episode in reader.episodes] == [2, 0, 3, 0]
        assert len(list(reader.steps)) == 5
        assert reader.steps[2].timestep.observation["x"].tolist() == [2, 0]
        assert list(reader.episodes[1]) == []
        assert reader.episodes[1].columns()["observation"]["x"].shape == (0, 2)


# --- samples of other writers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("envlogger12_catch/0.0.1", "train"),
        ("openx_style/1.0.0", "train"),
        ("openx_style/1.0.0", "val"),
    ],
)
def test_what_other_programs_wrote(name, split):
    episodes = helpers.tf_episodes(LEGACY / name, split)

    with envlogger.Reader(LEGACY / name, split, cache_bytes=0) as reader:
        assert len(reader.episodes) == len(episodes)
        for number, episode in enumerate(episodes):
            columns, steps = reader.episodes[number].columns(), episode.pop("steps")
            if (
                "wrist_image" in columns["observation"]
            ):  # JPEG, which TensorFlow decodes less exactly
                found = columns["observation"].pop("wrist_image").astype(int)
                expected = [step["observation"].pop("wrist_image") for step in steps]
                assert np.abs(found - np.array(expected, int)).mean() < 2
            _check_columns(columns, steps)
            found = _flat(reader.episode_metadata()[number])
            assert found == _flat(episode)
    assert not (LEGACY / name / ".envlogger").exists() or _forget(LEGACY / name)


def _forget(path):
    shutil.rmtree(path / ".envlogger")
    return True


def test_a_tfds_log_of_envlogger_is_a_game_of_catch(tmp_path):
    path = shutil.copytree(LEGACY / "envlogger12_catch" / "0.0.1", tmp_path / "catch")

    with envlogger.Reader(path) as reader:
        assert (len(reader.episodes), len(reader.steps)) == (12, 120)
        for number, episode in enumerate(reader.episodes):
            kinds = [step.timestep.step_type for step in episode]
            assert kinds == [
                dm_env.StepType.FIRST,
                *[dm_env.StepType.MID] * 8,
                dm_env.StepType.LAST,
            ]
            assert episode[-1].timestep.reward in (-1.0, 1.0)
            assert episode[-1].timestep.discount == 0.0
            assert episode[0].action is None
            assert reader.episode_metadata()[number] == {"episode_id": number}
            # The paddle moves by the action beside it.
            for before, step in itertools.pairwise(episode[:-1]):
                paddles = [np.argmax(s.timestep.observation[-1]) for s in (before, step)]
                assert paddles[1] == np.clip(paddles[0] + step.action - 1, 0, 4)


# --- the number of steps ----------------------------------------------------------------------------


@pytest.fixture
def others(tmp_path):
    return _write(tmp_path / "others" / "1.0.0", _RLDS, _rlds([3, 1, 4, 2, 5]), "tfrecord")


def _reads(monkeypatch):
    """Returns a list to which the number of each record is appended that is read."""
    from envlogger.tfds import shard_pool

    found = []
    read = shard_pool.ShardPool.read
    monkeypatch.setattr(
        shard_pool.ShardPool, "read", lambda self, index: found.append(index) or read(self, index)
    )
    return found


def test_steps_are_counted_once(others, monkeypatch):
    reads = _reads(monkeypatch)
    with envlogger.Reader(others) as reader:
        assert reads == []
        assert reader.episodes[3][1].timestep.observation["x"].tolist() == [3, 1]
        assert reads == [3]  # an episode needs no index
        assert len(reader.steps) == 15
        assert reads[1:] == [0, 1, 2, 3, 4]
    reads.clear()

    with envlogger.Reader(others) as reader:
        assert len(reader.steps) == 15
        assert reads == []
        assert reader.steps[-1].timestep.observation["x"].tolist() == [4, 4]
        assert reads == [4]


def test_what_was_counted_is_forgotten_where_a_shard_has_changed(others, monkeypatch):
    with envlogger.Reader(others) as reader:
        assert len(reader.steps) == 15
    _write(others, _RLDS, _rlds([3, 1, 2, 2, 2]), "tfrecord")  # in its place

    with envlogger.Reader(others) as reader:
        assert [len(episode) for episode in reader.episodes] == [3, 1, 2, 2, 2]
        assert len(list(reader.steps)) == len(reader.steps) == 10


@pytest.mark.parametrize("content", ["", "[]", '{"toy-train.tfrecord-00000": 3}', "{", "\0"])
def test_counts_that_are_damaged_are_made_anew(others, content):
    with envlogger.Reader(others) as reader:
        assert len(reader.steps) == 15
    (counts,) = (others / ".envlogger" / "counts").iterdir()
    good = counts.read_text()
    counts.write_text(content)

    with envlogger.Reader(others) as reader:
        assert len(reader.steps) == 15
    assert counts.read_text() == good


def test_a_directory_that_cannot_be_written_to(others, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setattr(step_index.tempfile, "mkstemp", refuse)
    for _ in range(2):
        with envlogger.Reader(others) as reader:
            assert len(list(reader.steps)) == 15
    assert list((others / ".envlogger" / "counts").iterdir()) == []


def test_an_index_with_a_hole_is_not_believed(tmp_path):
    episodes = [[helpers.first(), helpers.last()], [helpers.first(), helpers.mid(), helpers.last()]]
    helpers.record(tmp_path, episodes[:1])
    (tmp_path / ".envlogger" / "index" / "train").unlink()
    helpers.record(tmp_path, episodes[1:])

    with envlogger.Reader(tmp_path) as reader:
        assert [len(episode) for episode in reader.episodes] == [2, 3]
        assert len(list(reader.steps)) == len(reader.steps) == 5
    helpers.record(tmp_path, episodes[1:])
    with envlogger.Reader(tmp_path) as reader:
        assert len(list(reader.steps)) == 8


# --- damage -----------------------------------------------------------------------------------------


def _shard(path, index):
    return path / f"toy-train.tfrecord-{index:05d}"


def test_a_tfrecord_that_is_missing_spoils_no_other(others):
    _shard(others, 1).unlink()

    with envlogger.Reader(others) as reader:
        assert len(reader.episodes[0]) == 3
        with pytest.raises(errors.CorruptDatasetError) as raised:
            reader.episodes[2][0]

    helpers.check_message(raised, str(_shard(others, 1)), "missing", "2 episodes", "Restore it")


@pytest.mark.parametrize("size", [0, 5, 100, -1, -20])
def test_a_tfrecord_that_is_cut_off(others, size):
    data = _shard(others, 0).read_bytes()
    _shard(others, 0).write_bytes(data[:size])

    with envlogger.Reader(others) as reader:
        with pytest.raises(errors.CorruptDatasetError) as raised:
            list(reader.episodes[0])
        assert len(list(reader.episodes[2])) == 4

    helpers.check_message(raised, str(_shard(others, 0)), "damaged or was not finished", "says 2")


def test_a_tfrecord_with_a_damaged_record_spoils_no_other(others):
    data = bytearray(_shard(others, 0).read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    data[12 + length // 2] ^= 1
    _shard(others, 0).write_bytes(data)

    with envlogger.Reader(others) as reader:
        with pytest.raises(errors.CorruptDatasetError) as raised:
            list(reader.episodes[0])
        assert len(list(reader.episodes[1])) == 1

    helpers.check_message(raised, str(_shard(others, 0)), "episode 0", "other episodes can be read")


@pytest.mark.parametrize("place", [0, 7, 8, 11])
def test_a_tfrecord_with_a_damaged_length(others, place):
    data = bytearray(_shard(others, 0).read_bytes())
    data[place] ^= 255
    _shard(others, 0).write_bytes(data)

    with envlogger.Reader(others) as reader, pytest.raises(errors.CorruptDatasetError) as raised:
        list(reader.episodes[0])

    helpers.check_message(raised, str(_shard(others, 0)), "damaged")


def test_a_record_that_lacks_a_feature_names_it(others):
    features = json.loads((others / "features.json").read_text())
    entries = features["featuresDict"]["features"]["steps"]["sequence"]["feature"]
    entries["featuresDict"]["features"]["camera"] = entries["featuresDict"]["features"]["reward"]
    (others / "features.json").write_text(json.dumps(features))

    with envlogger.Reader(others) as reader:
        assert reader.episodes[0].columns(["reward"])["reward"].shape == (3,)
        for read in (reader.episodes[0].columns, lambda: reader.episodes[0][0]):
            with pytest.raises(errors.CorruptDatasetError) as raised:
                read()
            helpers.check_message(
                raised, str(_shard(others, 0)), "steps/camera", "not in the record"
            )
