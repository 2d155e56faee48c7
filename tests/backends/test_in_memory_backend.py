# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dm_env
import numpy as np
import pytest

from envlogger import step_data
from envlogger.backends import in_memory_backend, schedulers
from envlogger.testing import catch_env


def _record(num_episodes, scheduler=None):
    """Returns the steps that were played and the writer that got them."""
    env = catch_env.Catch()
    writer = in_memory_backend.InMemoryBackendWriter(scheduler=scheduler)
    rng = np.random.default_rng(0)
    played = []
    for _ in range(num_episodes):
        played.append(step_data.StepData(env.reset(), None))
        writer.record_step(played[-1], is_new_episode=True)
        while not played[-1].timestep.last():
            action = rng.integers(3)
            played.append(step_data.StepData(env.step(action), action, {"x": rng.random(2)}))
            writer.record_step(played[-1], is_new_episode=False)
    return played, writer


def _first(custom_data):
    return step_data.StepData(dm_env.restart(np.zeros(1)), None, custom_data)


def test_steps_and_episodes_round_trip():
    played, writer = _record(3)
    reader = in_memory_backend.InMemoryBackendReader(writer)

    np.testing.assert_equal(list(reader.steps), played)
    assert [len(episode) for episode in reader.episodes] == [10, 10, 10]
    for i, episode in enumerate(reader.episodes):
        np.testing.assert_equal(episode[:], played[10 * i : 10 * (i + 1)])
    assert writer.episode_start_indices == [0, 10, 20]


def test_types_are_kept():
    played, writer = _record(1)

    recorded = writer.steps[1]

    assert isinstance(recorded, step_data.StepData)
    assert isinstance(recorded.timestep, dm_env.TimeStep)
    assert recorded.timestep.step_type is dm_env.StepType.MID
    assert type(recorded.action) is type(played[1].action)
    assert recorded.timestep.observation.dtype == np.float32


def test_empty():
    reader = in_memory_backend.InMemoryBackendReader(in_memory_backend.InMemoryBackendWriter())

    assert (len(reader.steps), len(reader.episodes), len(reader.episode_metadata())) == (0, 0, 0)
    assert reader.metadata() is None


def test_step_scheduler_keeps_episodes_apart():
    # Every 7th of 40 steps, in episodes of 10: 0 7 | 14 | 21 28 | 35
    played, writer = _record(4, schedulers.NStepScheduler(7))
    reader = in_memory_backend.InMemoryBackendReader(writer)

    np.testing.assert_equal(list(reader.steps), played[::7])
    assert [len(episode) for episode in reader.episodes] == [2, 1, 2, 1]


def test_episode_scheduler():
    played, writer = _record(4, schedulers.ListEpisodeScheduler([1, 3]))
    reader = in_memory_backend.InMemoryBackendReader(writer)

    np.testing.assert_equal(list(reader.steps), played[10:20] + played[30:])
    assert len(reader.episodes) == 2


def test_what_the_caller_changes_later_is_not_recorded():
    buffer, action, notes = np.zeros(3), np.zeros(2), {"deep": [np.zeros(1)]}
    writer = in_memory_backend.InMemoryBackendWriter()
    writer.record_step(
        step_data.StepData(dm_env.restart({"board": buffer}), action, notes), is_new_episode=True
    )
    writer.set_episode_metadata(notes)
    for array in (buffer, action, notes["deep"][0]):
        array += 1
    notes["new"] = 1

    (step,) = in_memory_backend.InMemoryBackendReader(writer).steps
    np.testing.assert_array_equal(step.timestep.observation["board"], np.zeros(3))
    np.testing.assert_array_equal(step.action, np.zeros(2))
    assert step.custom_data == {"deep": [np.zeros(1)]}
    assert writer.episode_metadata == {0: {"deep": [np.zeros(1)]}}


def test_step_that_cannot_be_copied_changes_nothing():
    writer = in_memory_backend.InMemoryBackendWriter()

    with pytest.raises(TypeError):
        writer.record_step(_first(custom_data=(i for i in "ab")), is_new_episode=True)

    assert (writer.steps, writer.episode_start_indices) == ([], [])


def test_episode_metadata_belongs_to_its_episode():
    writer = in_memory_backend.InMemoryBackendWriter()
    writer.set_episode_metadata("before any episode")
    for i in range(4):
        writer.record_step(_first(i), is_new_episode=True)
        if i != 2:
            writer.set_episode_metadata("overwritten")
            writer.set_episode_metadata({"episode": i})
    reader = in_memory_backend.InMemoryBackendReader(writer)

    assert writer.episode_metadata == {i: {"episode": i} for i in (0, 1, 3)}
    assert list(reader.episode_metadata()) == [
        {"episode": 0},
        {"episode": 1},
        None,
        {"episode": 3},
    ]


def test_metadata():
    writer = in_memory_backend.InMemoryBackendWriter(metadata={"a": 1})

    assert in_memory_backend.InMemoryBackendReader(writer).metadata() == {"a": 1}


def test_reader_sees_what_is_recorded_later():
    writer = in_memory_backend.InMemoryBackendWriter()
    reader = in_memory_backend.InMemoryBackendReader(writer)
    steps, episodes = reader.steps, reader.episodes

    writer.record_step(_first(0), is_new_episode=True)
    writer.record_step(_first(1), is_new_episode=False)

    assert len(steps) == 2
    assert [len(episode) for episode in episodes] == [2]


def test_copies_read_the_same_steps_after_close():
    played, writer = _record(2)
    reader = in_memory_backend.InMemoryBackendReader(writer)
    other = reader.copy()

    reader.close()
    writer.close()
    writer.close()

    np.testing.assert_equal(list(other.steps), played)
