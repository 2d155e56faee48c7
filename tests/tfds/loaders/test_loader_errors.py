# SPDX-License-Identifier: Apache-2.0
"""What the loaders refuse, and how they say so: datasets that lack something, options, sources, damage."""

from __future__ import annotations

import warnings

import array_records
import foreign
import helpers
import numbered
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow as tf
    import tensorflow_datasets as tfds

import envlogger.tfds
from envlogger import errors

F = tfds.features
Shuffle = envlogger.tfds.Shuffle


def test_a_dataset_without_reward(tmp_path):
    path = numbered.write(tmp_path, [2], step=numbered.without("reward"))

    with pytest.raises(errors.DatasetError) as raised:
        envlogger.tfds.transitions(path)
    helpers.check_message(
        raised, "transitions", str(path), "no field 'reward'", "action", "`windows`"
    )
    assert len(list(envlogger.tfds.windows(path, length=2))) == 1


def test_a_dataset_that_does_not_tell_how_episodes_end(tmp_path):
    path = numbered.write(tmp_path, [2], step=numbered.without("discount", "is_terminal"))

    with pytest.raises(errors.DatasetError, match=r"no field 'discount' or 'is_terminal'"):
        envlogger.tfds.transitions(path)


@pytest.mark.parametrize("lacking", ["observation", "action"])
def test_a_dataset_without_observation_or_action(tmp_path, lacking):
    path = numbered.write(tmp_path, [2], step=numbered.without(lacking), make=dict)

    with pytest.raises(errors.DatasetError, match=f"no field '{lacking}'.*pass `fields`"):
        envlogger.tfds.transitions(path)
    assert len(list(envlogger.tfds.transitions(path, fields=["is_first"]))) == 1


@pytest.mark.parametrize(
    ("reward", "discount", "message"),
    [
        (F.Text(), np.float32, "reward of .*: got Text.*expected numbers"),
        (F.Sequence(np.float32), np.float32, "reward of .*expected numbers"),
        (
            np.float32,
            F.Tensor(shape=(2,), dtype=np.float32),
            r"got discounts of shape \(2,\) for rewards of shape \(\)",
        ),
        ({"a": np.float32}, {"b": np.float32}, "reward/a of .*: there is no discount of its own"),
    ],
    ids=str,
)
def test_signals_that_no_return_can_be_computed_from(tmp_path, reward, discount, message):
    step = {**numbered.STEP, "reward": reward, "discount": discount}
    foreign.describe(tmp_path, F.FeaturesDict({"steps": F.Dataset(step)}))

    with pytest.raises(errors.UnsupportedValueError, match=message):
        envlogger.tfds.transitions(tmp_path)


@pytest.mark.parametrize("name", ["next_observation", "next_is_last"])
def test_fields_that_transitions_make_themselves(tmp_path, name):
    path = numbered.write(
        tmp_path, [2], step={**numbered.STEP, name: np.int64}, make=lambda s: {**s, name: 1}
    )

    with pytest.raises(errors.NameConflictError, match=f"have a field '{name}'"):
        envlogger.tfds.transitions(path, fields=["observation", "action", name])
    assert len(list(envlogger.tfds.transitions(path))) == 1


def test_a_field_that_is_called_as_the_mask_is(tmp_path):
    path = numbered.write(
        tmp_path, [2], step={**numbered.STEP, "mask": np.int64}, make=lambda s: {**s, "mask": 1}
    )

    with pytest.raises(errors.NameConflictError, match="have a field 'mask'"):
        envlogger.tfds.windows(path, length=2)


@pytest.mark.parametrize(
    ("loader", "options", "message"),
    [
        ("steps", {"split": "test"}, r"split: got 'test', expected .*\('train'\)"),
        ("steps", {"split": "train[:1%]x"}, r"split: got 'train\[:1%\]x'"),
        ("steps", {"split": "train[5:5]"}, r"split: got 'train\[5:5\]', which holds no episode"),
        ("steps", {"split": 3}, r"split: got 3, expected"),
        ("episodes", {"split": None}, r"split: got None, expected"),
        ("steps", {"fields": ["rewards"]}, r"steps: fields: got 'rewards', .* have only: action, "),
        ("steps", {"fields": ["observation/y"]}, r"got 'observation/y'"),
        (
            "windows",
            {"fields": "reward", "length": 2},
            r"windows: fields: got 'reward', expected a",
        ),
        ("steps", {"fields": []}, r"fields: got none"),
        ("episodes", {"episode_fields": ["id"]}, r"episode_fields: got 'id'.*only: .*episode_id"),
        ("episodes", {"episode_fields": "episode_id"}, r"got 'episode_id', expected a list"),
        ("episodes", {"shuffle": Shuffle(steps=2)}, r"episodes: got Shuffle\(steps=...\)"),
        ("transitions", {"n_step": 0}, r"n_step: got 0, expected an integer of at least 1"),
        ("transitions", {"n_step": 1.0}, r"n_step: got 1.0, expected an integer"),
        ("transitions", {"gamma": 1.5}, r"gamma: got 1.5, expected a number in \[0, 1\]"),
        ("transitions", {"gamma": "1"}, r"gamma: got '1', expected a number in \[0, 1\]"),
        ("windows", {"length": 0}, r"length: got 0"),
        ("windows", {"length": 2, "stride": 0}, r"stride: got 0"),
        ("windows", {"length": 2, "pad": 1}, r"pad: got 1, expected a bool"),
        ("windows", {"length": 2, "pad": None}, r"pad: got None, expected a bool\."),
        ("steps", {"fields": 3}, r"steps: fields: got 3, expected a list of names"),
        ("steps", {"batch_size": 0}, r"batch_size: got 0"),
        ("steps", {"interleave": True}, r"interleave: got True"),
        ("steps", {"shuffle": 100}, r"shuffle: got 100, expected a Shuffle"),
        ("steps", {"read_config": {}}, r"read_config: got \{\}, expected a ReadConfig"),
    ],
    ids=str,
)
def test_options_that_are_not_allowed(directory, loader, options, message):
    with pytest.raises(errors.OptionError, match=message):
        getattr(envlogger.tfds, loader)(directory, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": 1}, "Shuffle.files: got 1, expected a bool"),
        ({"episodes": -1}, "Shuffle.episodes: got -1, expected an integer of at least 0"),
        ({"steps": 1.5}, "Shuffle.steps: got 1.5"),
        ({"seed": "x"}, "Shuffle.seed: got 'x', expected an integer"),
    ],
    ids=str,
)
def test_what_cannot_be_shuffled(options, message):
    with pytest.raises(errors.OptionError, match=message):
        Shuffle(**options)


@pytest.mark.parametrize("source", [None, 3, [], [None]], ids=str)
def test_sources_that_are_none(source):
    with pytest.raises(errors.OptionError, match=r"steps: got an? "):
        envlogger.tfds.steps(source)


def test_a_directory_without_a_dataset(tmp_path):
    with pytest.raises(
        errors.DatasetError, match=r"no dataset_info.json.*such as data/catch/1.0.0"
    ):
        envlogger.tfds.steps(tmp_path)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_damaged_json(tmp_path, name):
    path = numbered.write(tmp_path, [1])
    (path / name).write_text('{"name": ')

    with pytest.raises(errors.CorruptDatasetError, match=f"{tmp_path}: .*{name}"):
        envlogger.tfds.steps(path)


def test_a_dataset_without_steps(tmp_path):
    foreign.describe(tmp_path, F.FeaturesDict({"image": F.Image()}))

    with pytest.raises(errors.DatasetError, match="no nested feature 'steps'"):
        envlogger.tfds.steps(tmp_path)


def test_datasets_of_a_list_that_differ(root, directory):
    step = {**numbered.STEP, "action": np.float32}
    other = numbered.write(root / "float" / "toy" / "1.0.0", [2], step=step)

    with pytest.raises(errors.DatasetError) as raised:
        envlogger.tfds.steps([directory, other])
    helpers.check_message(raised, str(other), "'action'", str(directory), "fields=[...]")
    assert len(numbered.ids(envlogger.tfds.steps([directory, other], fields=["observation"]))) == 53


def test_datasets_of_a_list_with_other_fields(root, directory):
    other = numbered.write(root / "less" / "toy" / "1.0.0", [2], step=numbered.without("is_first"))

    for pair in ([directory, other], [other, directory]):
        with pytest.raises(errors.DatasetError, match=r"'is_first' is not stored as in"):
            envlogger.tfds.steps(pair)


@pytest.mark.parametrize("lacking", ["discount", "is_terminal"])
def test_datasets_of_a_list_of_which_one_lacks_a_signal(root, directory, lacking):
    other = numbered.write(
        root / f"no_{lacking}" / "toy" / "1.0.0", [2], step=numbered.without(lacking)
    )

    for pair in ([directory, other], [other, directory]):
        with pytest.raises(errors.DatasetError) as raised:
            envlogger.tfds.transitions(pair)
        helpers.check_message(
            raised,
            f"the steps of {directory} have a field '{lacking}'",
            f"those of {other} have none",
            "concatenate",
        )


def test_datasets_of_a_list_of_which_one_has_no_action(root, directory):
    other = numbered.write(
        root / "no_action" / "toy" / "1.0.0", [2], step=numbered.without("action")
    )

    with pytest.raises(errors.DatasetError, match=rf"{other} have no field 'action'"):
        envlogger.tfds.transitions([directory, other])


def test_a_missing_shard(tmp_path):
    path = numbered.write(tmp_path, [1, 2])
    [shard] = path.glob("toy-train*")
    shard.unlink()

    with pytest.raises(errors.CorruptDatasetError, match=f"{shard.name}: this shard is missing"):
        envlogger.tfds.steps(path)


def test_a_record_whose_columns_differ_in_length(tmp_path):
    path = numbered.write(tmp_path, [3])
    [shard] = path.glob("toy-train*")
    [record] = array_records.records(shard)
    example = tf.train.Example.FromString(record)
    del example.features.feature["steps/action"].int64_list.value[-1]
    array_records.ADAPTER.write_examples(shard, enumerate([example.SerializeToString()]))

    with pytest.raises(tf.errors.InvalidArgumentError, match="fields of an episode differ in len"):
        list(envlogger.tfds.steps(path))
    assert len(list(envlogger.tfds.steps(path, fields=["reward"]))) == 3
