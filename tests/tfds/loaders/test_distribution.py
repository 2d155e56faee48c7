# SPDX-License-Identifier: Apache-2.0
"""The loaders' batches, divided among the replicas of a `tf.distribute` strategy."""

from __future__ import annotations

import processes

# TensorFlow wants to be told before anything else that there are two devices.
_CODE = """
import sys
import tensorflow as tf

[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import envlogger.tfds

directory = sys.argv[1]
one, two = (tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(n)]) for n in (1, 2))
for load, options in (
    (envlogger.tfds.steps, {}),
    (envlogger.tfds.steps, {"fields": ["observation/x"], "drop_remainder": True}),
    (envlogger.tfds.transitions, {}),
    (envlogger.tfds.windows, {"length": 3}),
):
    for shuffle in (None, envlogger.tfds.Shuffle(steps=10)):
        dataset = load(directory, batch_size=8, shuffle=shuffle, **options)
        expected = [len(batch["observation"]["x"]) for batch in dataset]
        for strategy in (one, two):
            divided = [
                [len(part) for part in strategy.experimental_local_results(batch["observation"]["x"])]
                for batch in strategy.experimental_distribute_dataset(dataset)
            ]
            assert [sum(parts) for parts in divided] == expected, (load, shuffle, divided)
            assert divided[0] == [8 // len(divided[0])] * len(divided[0]), divided
print("done")
"""


def test_each_replica_gets_its_part_of_a_batch(directory):
    assert processes.python(_CODE, directory).stdout == "done\n"
