# SPDX-License-Identifier: Apache-2.0
"""Sixty-four environments that step together: kills, and the space and descriptors that they take."""

from __future__ import annotations

import os

import processes
import pytest

import envlogger

_MANY = """
import itertools, os, sys
import dm_env
import numpy as np
from dm_env import specs

class Many(dm_env.Environment):
    num_envs = 64

    def __init__(self):
        self._steps = np.zeros(64, int)
        self._lengths = np.arange(64) % 7 + 3
        self._calls = 0

    def reset(self):
        return self._timestep(np.zeros(64, int))

    def step(self, actions):
        self._calls += 1
        self._steps = np.where(self._steps == self._lengths, 0, self._steps + 1)
        kinds = np.where(self._steps == 0, 0, np.where(self._steps == self._lengths, 2, 1))
        return self._timestep(kinds)

    def _timestep(self, kinds):
        observation = np.full((64, 20), self._calls, np.float32)
        observation[:, 1] = np.arange(64)
        return dm_env.TimeStep(kinds, np.ones(64), np.ones(64), observation)

    def observation_spec(self):
        return specs.Array((20,), np.float32)

    def action_spec(self):
        return specs.DiscreteArray(3, np.int64)

    def reward_spec(self):
        return specs.Array((), float)

    def discount_spec(self):
        return specs.BoundedArray((), float, 0, 1)

def open_descriptors():
    return len(os.listdir("/proc/self/fd"))
"""

_PLAY = """
envs = envlogger.BatchedEnvLogger(Many(), data_directory=directory, **options)
envs.reset()
os.write(notes, b".")
while True:
    envs.step(np.zeros(64, int))
    os.write(notes, b".")
"""


def _numbers(directory):
    """Returns the numbers of the calls that each stream has, in the order of the dataset, by episode."""
    streams = [[] for _ in range(64)]
    with envlogger.Reader(directory) as reader:
        for episode in reader.episodes:
            observation = episode.columns()["observation"]
            (stream,) = set(observation[:, 1].tolist())
            streams[int(stream)].append(observation[:, 0].tolist())
    return streams


def _flat(episodes):
    return [number for episode in episodes for number in episode]


@pytest.mark.parametrize("with_helper", [True, False])
@pytest.mark.parametrize("num_calls", [3, 150])
def test_every_step_that_returned_is_there_after_a_kill(with_helper, num_calls, tmp_path):
    directory = tmp_path / "many" / "1.0.0"
    # So that shards are published on the way.
    options = f"options = dict(helper={with_helper}, max_episodes_per_file=300)\n"
    program = processes.Program(_MANY + options + _PLAY, directory, tmp_path)
    program.wait_for_calls(num_calls)
    if with_helper:
        processes.kill(program.wait_for_helper())
    program.kill()

    acknowledged = program.num_acknowledged
    envlogger.recover(directory)

    for stream, episodes in enumerate(_numbers(directory)):
        # Of the call that was under way the first streams may have been recorded.
        numbers = _flat(episodes)
        assert numbers in (list(range(acknowledged)), list(range(acknowledged + 1)))
        assert all(len(episode) == stream % 7 + 4 for episode in episodes[:-1])
    assert processes.sessions(directory) == []


def test_one_helper_recovers_what_its_writer_left(tmp_path):
    directory = tmp_path / "many" / "1.0.0"
    program = processes.Program(_MANY + "options = {}\n" + _PLAY, directory, tmp_path)
    program.wait_for_calls(50)
    assert len(processes.children(program.process.pid)) == 1
    program.kill()

    processes.wait_for(lambda: processes.sessions(directory) == [])

    expected = list(range(program.num_acknowledged))
    assert all(_flat(episodes)[: len(expected)] == expected for episodes in _numbers(directory))


_BOUNDS = """
before = open_descriptors()
envs = envlogger.BatchedEnvLogger(Many(), data_directory=directory, max_backlog_bytes=48 << 20)
envs.reset()
most, descriptors = 0, 0
for call in range(600):
    envs.step(np.zeros(64, int))
    if call % 50 == 0:
        descriptors = max(descriptors, open_descriptors() - before)
        path = envs._backend._session._sealing.directory
        sizes = []
        for name in os.listdir(path):
            if name.startswith("segment-"):
                sizes.append(os.path.getsize(os.path.join(path, name)))
        most = max(most, sum(sizes))
envs.close()
assert 0 < most <= 48 << 20, most
# What is mapped takes one each.
assert 0 < descriptors <= 512 + 16, descriptors
assert open_descriptors() <= before + 1
"""


def test_sixty_four_streams_take_bounded_space_and_descriptors(tmp_path):
    directory = tmp_path / "many" / "1.0.0"

    program = processes.run(_MANY + _BOUNDS, directory, tmp_path)

    assert program.stderr == ""
    assert all(_flat(episodes) == list(range(601)) for episodes in _numbers(directory))
    # Shards are those of the whole, not of each stream.
    assert len([name for name in os.listdir(directory) if "array_record" in name]) < 64
