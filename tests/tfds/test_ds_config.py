# SPDX-License-Identifier: Apache-2.0
"""Datasets whose features a DatasetConfig gives, as EnvLogger 1.x's TFDS backend had it."""

from __future__ import annotations

import warnings

import dm_env
import helpers
import numpy as np
import pytest

import envlogger
from envlogger import errors, step_data
from envlogger.backends import tfds_backend_writer
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same
from envlogger.tfds import ds_config
from envlogger.tfds.features import Encoding

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow as tf
    import tensorflow_datasets as tfds

    DatasetConfig = tfds.rlds.rlds_base.DatasetConfig


def _catch_config(**changes):
    """The config of EnvLogger 1.x's own tests."""
    fields = {
        "name": "catch_example",
        "observation_info": tfds.features.Tensor(
            shape=(10, 5), dtype=tf.float32, encoding=tfds.features.Encoding.ZLIB
        ),
        "action_info": tf.int64,
        "reward_info": tf.float64,
        "discount_info": tf.float64,
        "step_metadata_info": {"timestamp": tf.int64},
        "episode_metadata_info": {"episode_id": tf.int64},
        **changes,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DatasetConfig(**fields)


def _generate(backend, num_episodes=2):
    """Logs episodes as EnvLogger 1.x's own tests did, straight into a backend."""
    env = catch_env.Catch()
    episodes = []
    for index in range(num_episodes):
        timestep = env.reset()
        data = step_data.StepData(timestep, None, {"timestamp": index})
        backend.record_step(data, is_new_episode=True)
        episode = [data]
        while not timestep.last():
            action = len(episode) % 3
            timestep = env.step(action)
            data = step_data.StepData(timestep, action, {"timestamp": 100 + len(episode)})
            backend.record_step(data, is_new_episode=False)
            episode.append(data)
        backend.set_episode_metadata({"episode_id": index})
        episodes.append(episode)
    backend.close()
    return episodes


@pytest.mark.parametrize("split_name", [None, "eval"])
def test_code_written_for_version_1(tmp_path, split_name):
    backend = tfds_backend_writer.TFDSBackendWriter(
        data_directory=str(tmp_path),
        split_name=split_name,
        ds_config=_catch_config(),
        max_episodes_per_file=1,
        metadata={"agent": "random"},
        store_ds_metadata=True,
    )
    episodes = _generate(backend)
    split = split_name or "train"

    assert_same(helpers.read(tmp_path, split), episodes)
    assert helpers.read_metadata(tmp_path) == [{"episode_id": 0}, {"episode_id": 1}]
    builder = tfds.builder_from_directory(str(tmp_path))
    assert builder.name == "catch_example"
    assert list(builder.info.splits) == [split]
    assert builder.info.splits[split].shard_lengths == [1, 1]
    assert builder.info.metadata["agent"] == "random"
    for number, episode in enumerate(helpers.tf_episodes(tmp_path, split)):
        assert episode["episode_id"] == number
        assert len(episode["steps"]) == len(episodes[number])
        for step, logged in zip(episode["steps"], episodes[number], strict=True):
            assert_same(step["observation"], logged.timestep.observation)
            assert step["timestamp"] == logged.custom_data["timestamp"]
            assert step["action"].dtype == np.int64
            assert step["reward"].dtype == np.float64


def test_metadata_of_the_dataset_is_stored_only_where_that_is_wanted(tmp_path):
    backend = tfds_backend_writer.TFDSBackendWriter(
        str(tmp_path), _catch_config(), 1, None, "1.2.3", False, metadata={"agent": "random"}
    )
    _generate(backend)

    with envlogger.Reader(tmp_path) as reader:
        assert "agent" not in reader.metadata()
    assert str(tfds.builder_from_directory(str(tmp_path)).version) == "1.2.3"


def test_through_the_wrapper(tmp_path):
    config = _catch_config(description="A catch.", overall_description="Catches.", citation="Me.")
    with envlogger.EnvLogger(
        catch_env.Catch(),
        step_fn=lambda *_: {"timestamp": 3},
        data_directory=tmp_path / "catch_example" / "1.0.0",
        ds_config=config,
        helper=False,
    ) as env:
        env.reset()
        env.step(1)

    (steps,) = helpers.read(tmp_path / "catch_example" / "1.0.0")
    assert len(steps) == 2
    info = tfds.builder_from_directory(str(tmp_path / "catch_example" / "1.0.0")).info
    assert info.description == "Catches.\nA catch."
    assert info.citation == "Me."


def test_episodes_without_the_metadata_of_the_config(tmp_path):
    helpers.record(
        tmp_path,
        [
            [
                helpers.first(np.zeros((10, 5), np.float32)),
                helpers.last(np.zeros((10, 5), np.float32)),
            ]
        ],
        ds_config=_catch_config(step_metadata_info=None),
    )

    assert helpers.read_metadata(tmp_path) == [None]
    (episode,) = helpers.data_source(tmp_path)
    assert episode["episode_id"] == 0
    assert not episode["present"]["episode_id"]


def test_values_that_the_config_lacks_are_refused(tmp_path):
    observation = np.zeros((10, 5), np.float32)
    env = helpers.ScriptedEnv([[helpers.first(observation), helpers.last(observation)]])
    with (
        envlogger.EnvLogger(
            env,
            step_fn=lambda *_: {"timestamp": 1, "more": 2},
            data_directory=tmp_path,
            ds_config=_catch_config(),
            helper=False,
        ) as logger,
        pytest.raises(errors.ValueMismatchError) as raised,
    ):
        logger.reset()

    helpers.check_message(
        raised, "more: got a value", "ds_config", "has no feature there", "Add one"
    )


@pytest.mark.parametrize(
    ("observation", "got"),
    [
        (np.zeros((10, 5)), "float64 of shape (10, 5)"),
        (np.zeros((5, 10), np.float32), "float32 of shape (5, 10)"),
    ],
)
def test_values_of_another_form_than_the_config_says(tmp_path, observation, got):
    env = helpers.ScriptedEnv([[helpers.first(observation), helpers.last(observation)]])
    with (
        envlogger.EnvLogger(
            env, data_directory=tmp_path, ds_config=_catch_config(), helper=False
        ) as logger,
        pytest.raises(errors.ValueMismatchError) as raised,
    ):
        logger.reset()

    helpers.check_message(raised, f"observation: got {got}", "expected float32 of shape (10, 5)")


def test_a_dataset_goes_on_with_its_config(tmp_path):
    steps = [
        helpers.first(np.zeros((10, 5), np.float32)),
        helpers.last(np.ones((10, 5), np.float32)),
    ]
    for _ in range(2):
        helpers.record(
            tmp_path,
            [steps],
            ds_config=_catch_config(),
            step_fn=lambda *_: {"timestamp": 1},
            episode_fn=lambda *_: {"episode_id": 7},
        )

    assert [len(episode) for episode in helpers.read(tmp_path)] == [2, 2]
    assert helpers.read_metadata(tmp_path) == [{"episode_id": 7}] * 2


def _feature(info, image_format="png"):
    config = _catch_config(observation_info={"x": info})
    return ds_config.to_schema(config, image_format).steps[("observation", "x")]


@pytest.mark.parametrize(
    ("info", "dtype", "shape", "encoding"),
    [
        (tf.float32, "f4", (), Encoding.PLAIN),
        (np.float32, "f4", (), Encoding.PLAIN),
        ("int32", "i4", (), Encoding.PLAIN),
        (tf.string, object, (), Encoding.STRING),
        (tf.float64, "f8", (), Encoding.BYTES),
        (tf.uint64, "u8", (), Encoding.BYTES),
        (tfds.features.Text(), object, (), Encoding.STRING),
        (tfds.features.Scalar(np.float64), "f8", (), Encoding.BYTES),
        (tfds.features.Tensor(shape=(3,), dtype=np.float32), "f4", (3,), Encoding.PLAIN),
        (tfds.features.Tensor(shape=(3,), dtype=np.float64), "f8", (3,), Encoding.BYTES),
        (
            tfds.features.Tensor(
                shape=(3,), dtype=np.float64, encoding=tfds.features.Encoding.ZLIB
            ),
            "f8",
            (3,),
            Encoding.ZLIB,
        ),
        (
            tfds.features.Tensor(
                shape=(3,), dtype=np.uint32, encoding=tfds.features.Encoding.BYTES
            ),
            "u4",
            (3,),
            Encoding.PLAIN,
        ),
        (tfds.features.Tensor(shape=(None,), dtype=np.float32), "f4", (None,), Encoding.BYTES),
        (tfds.features.Tensor(shape=(0, 3), dtype=np.float32), "f4", (0, 3), Encoding.BYTES),
        (
            tfds.features.Tensor(shape=(16, 16, 3), dtype=np.uint8),
            "u1",
            (16, 16, 3),
            Encoding.BYTES,
        ),
        (tfds.features.Image(shape=(16, 16, 3)), "u1", (16, 16, 3), Encoding.PNG),
        (
            tfds.features.Image(shape=(16, 16, 3), encoding_format="jpeg"),
            "u1",
            (16, 16, 3),
            Encoding.JPEG,
        ),
        (tfds.features.Sequence(np.float32), "f4", (None,), Encoding.SEQUENCE),
        (tfds.features.Sequence(np.float64), "f8", (None,), Encoding.BYTES),
        (tfds.features.Sequence(np.uint64), "u8", (None,), Encoding.BYTES),
        (tfds.features.Sequence(tfds.features.Text()), object, (None,), Encoding.SEQUENCE),
        (tfds.features.ClassLabel(num_classes=3), "i8", (), Encoding.PLAIN),
    ],
)
def test_features_get_encodings_that_are_exact(info, dtype, shape, encoding):
    feature = _feature(info)

    assert (feature.dtype, feature.shape, feature.encoding) == (np.dtype(dtype), shape, encoding)


def test_nested_features():
    info = tfds.features.FeaturesDict({"a": np.int32, "b": {"c": tfds.features.Text()}})
    of = ds_config.to_schema(
        _catch_config(observation_info=info, action_info={"d": tf.int8}), "png"
    )

    assert {path for path in of.steps if path[0] in ("observation", "action")} == {
        ("observation", "a"),
        ("observation", "b", "c"),
        ("action", "d"),
    }


@pytest.mark.parametrize(
    "info",
    [
        tfds.features.Video(shape=(None, 4, 4, 3)),
        tfds.features.Audio(),
        tfds.features.Image(shape=(4, 4, 4)),
    ],
)
def test_classes_that_cannot_be_written(info):
    with pytest.raises(errors.UnsupportedValueError, match=r"^observation/x: "):
        _feature(info)


@pytest.mark.parametrize("field", ["step_metadata_info", "episode_metadata_info"])
def test_reserved_names(field):
    with pytest.raises(errors.NameConflictError, match=f"reward: got a key.*{field}"):
        ds_config.to_schema(_catch_config(**{field: {"reward": tf.int64}}), "png")


VALUES = {
    "f4seq": (tfds.features.Sequence(np.float32), [np.zeros(0, "f4"), np.array([0.1, -0.0], "f4")]),
    "f8seq": (tfds.features.Sequence(np.float64), [np.array([0.1]), np.zeros(0)]),
    "zlib": (
        tfds.features.Tensor(
            shape=(None, 2), dtype=np.float16, encoding=tfds.features.Encoding.ZLIB
        ),
        [np.zeros((0, 2), "f2"), np.ones((3, 2), "f2")],
    ),
    "words": (
        tfds.features.Sequence(tfds.features.Text()),
        [np.array(["a", ""], object), np.array([], object)],
    ),
    "image": (
        tfds.features.Image(shape=(None, None, 3)),
        [np.full((2, 3, 3), 7, np.uint8), np.full((1, 1, 3), 8, np.uint8)],
    ),
    "label": (tfds.features.ClassLabel(num_classes=3), [2, 1]),
    "text": (tf.string, ["x", "ü\0"]),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back(tmp_path, name):
    info, (one, other) = VALUES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = DatasetConfig(
            name="x",
            observation_info={"v": info},
            action_info=tf.int64,
            reward_info=tf.float64,
            discount_info=tf.float64,
        )
    steps = [
        helpers.first({"v": one}),
        dm_env.transition(0.5, {"v": other}),
        helpers.last({"v": one}),
    ]

    env = helpers.ScriptedEnv([steps])
    env.observation_spec = dict
    with envlogger.EnvLogger(
        env, data_directory=tmp_path, ds_config=config, helper=False
    ) as logger:
        helpers.play(logger, [[0, 1]])

    assert_same(helpers.read(tmp_path), [helpers.expected_steps(steps, [0, 1])])
    (episode,) = helpers.tf_episodes(tmp_path)
    for step, logged in zip(episode["steps"], steps, strict=True):
        value = logged.observation["v"]
        got = step["observation"]["v"]
        if isinstance(value, np.ndarray) and value.dtype == object:
            value = [word.encode() for word in value]
        if isinstance(value, str):
            value = value.encode()
        assert np.asarray(got).tolist() == np.asarray(value).tolist()
