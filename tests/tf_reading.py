# SPDX-License-Identifier: Apache-2.0
"""Reading by tf.data: in the order of recording, and from where an iterator had come."""

from __future__ import annotations

import os
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow as tf
    import tensorflow_datasets as tfds

IN_ORDER = tfds.ReadConfig(interleave_cycle_length=1)


def restore(saved, fresh, directory):
    """Has an iterator go on where another one of the same dataset is, by way of a file; returns it."""
    path = tf.train.Checkpoint(iterator=saved).write(os.fspath(directory / "checkpoint"))
    tf.train.Checkpoint(iterator=fresh).read(path).assert_consumed()
    return fresh
