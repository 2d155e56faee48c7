# SPDX-License-Identifier: Apache-2.0
"""Whole episodes, and the fields of them that are chosen."""

from __future__ import annotations

import warnings

import numbered
import numpy as np
import tf_reading

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow as tf
    import tensorflow_datasets as tfds

import envlogger.tfds


def test_episodes_have_columns_and_their_own_fields(directory, numpy_episodes):
    dataset = envlogger.tfds.episodes(str(directory), read_config=tf_reading.IN_ORDER)

    for index, (episode, expected) in enumerate(zip(dataset, numpy_episodes, strict=True)):
        assert episode["episode_id"] == f"episode {index}"
        assert episode["steps"].keys() == numbered.STEP.keys()
        np.testing.assert_array_equal(episode["steps"]["observation"]["x"], expected["x"])
        np.testing.assert_array_equal(episode["steps"]["reward"], expected["reward"])
        assert episode["steps"]["reward"].dtype == tf.float32


def test_episodes_know_their_tfds_id(directory):
    config = tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=1)

    dataset = envlogger.tfds.episodes(directory, read_config=config)

    expected = tfds.builder_from_directory(directory).as_dataset(split="train", read_config=config)
    ids = [episode["tfds_id"].numpy() for episode in dataset]
    assert ids == [episode["tfds_id"].numpy() for episode in expected]
    assert (
        envlogger.tfds.steps(directory, read_config=config).element_spec.keys()
        == numbered.STEP.keys()
    )


def test_only_what_was_chosen_is_loaded(directory):
    episodes = envlogger.tfds.episodes(
        directory, fields=["observation/x", "is_first"], episode_fields=[]
    )
    steps = envlogger.tfds.steps(directory, fields=["observation"])

    assert episodes.element_spec.keys() == {"steps"}
    assert episodes.element_spec["steps"].keys() == {"observation", "is_first"}
    assert episodes.element_spec["steps"]["observation"].keys() == {"x"}
    assert steps.element_spec.keys() == {"observation"}
    assert steps.element_spec["observation"].keys() == {"id", "x"}
