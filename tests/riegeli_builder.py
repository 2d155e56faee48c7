# SPDX-License-Identifier: Apache-2.0
"""A builder of TFDS's own kind over EnvLogger 1.x's logs, and what must come out."""

from __future__ import annotations

import pathlib
import shutil

import numpy as np
import riegeli_samples as samples
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.rlds import rlds_base

_CONFIG = rlds_base.DatasetConfig(
    name="catch",
    observation_info=tfds.features.Tensor(shape=(10, 5), dtype=tf.float32),
    action_info=tf.int64,
    reward_info=tf.float64,
    discount_info=tf.float64,
    episode_metadata_info={"ret": tf.float64},
)
_CASES = ("opt_brotli", "opt_simple_smallchunk", "v13codec_catch")


class LogsOfEnvLogger1(tfds.core.GeneratorBasedBuilder):
    """What a user writes to make a dataset of logs."""

    VERSION = tfds.core.Version("1.0.0")
    logs = pathlib.Path()

    def _info(self):
        return rlds_base.build_info(_CONFIG, self)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(tfds.core.Path(self.logs))}

    def _generate_examples(self, path):
        return rlds_base.generate_examples(path)


def check(builder, logs, **options):
    """Raises unless the builder makes the dataset of the logs, which are put into a directory."""
    for case in _CASES:
        shutil.copytree(samples.log(case), logs / case)
    builder.download_and_prepare(**options)

    expected = [episode for case in _CASES for episode in _episodes(case)]
    source = builder.as_data_source(split="train")
    got = [_columns(list(episode["steps"]), episode["ret"]) for episode in source]
    assert len(got) == len(expected) == 34
    # TFDS shuffles the episodes.
    assert sorted(map(_bits, got)) == sorted(map(_bits, expected))


def _episodes(case):
    """Returns the episodes as RLDS has them, from what EnvLogger 1.2's reader gave."""
    expected = samples.Expected(case)
    for steps, metadata in zip(expected.episodes, expected.episode_metadata, strict=True):
        rows = [
            {
                "observation": step.timestep.observation,
                "action": np.int64(after.action if after else 0),
                "reward": after.timestep.reward if after else np.float64(0),
                "discount": after.timestep.discount if after else np.float64(0),
                "is_first": step.timestep.first(),
                "is_last": after is None,
                "is_terminal": step.timestep.last() and step.timestep.discount == 0,
            }
            for step, after in zip(steps, [*steps[1:], None], strict=True)
        ]
        yield _columns(rows, metadata["ret"])


def _columns(rows, ret):
    names = sorted(rows[0])
    return {"ret": ret, **{name: np.stack([row[name] for row in rows]) for name in names}}


def _bits(columns):
    return [
        (name, np.asarray(value).dtype.str, np.asarray(value).tobytes())
        for name, value in columns.items()
    ]
