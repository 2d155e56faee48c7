# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import itertools

import dm_env
import pytest

from envlogger import step_data
from envlogger.backends import backend_reader


class _Numbers(backend_reader.BackendReader):
    """Episodes of 2, 0 and 3 steps whose custom data is their index."""

    _EPISODES = ((0, 2), (2, 0), (2, 3))

    def __init__(self):
        self.closed = 0
        self.metadata_reads = 0

    def _get_num_steps(self):
        return 5

    def _get_nth_step(self, i):
        assert 0 <= i < 5
        return step_data.StepData(dm_env.restart(None), None, i)

    def _get_num_episodes(self):
        return 3

    def _get_nth_episode_info(self, i, include_metadata=False):
        start, num_steps = self._EPISODES[i]
        self.metadata_reads += include_metadata
        metadata = f"episode {i}" if include_metadata and i != 1 else None
        return backend_reader.EpisodeInfo(start=start, num_steps=num_steps, metadata=metadata)

    def _copy(self):
        return _Numbers()

    def metadata(self):
        return {"a": 1}

    def close(self):
        self.closed += 1


def _indices(steps):
    return [step.custom_data for step in steps]


def test_steps():
    steps = _Numbers().steps

    assert _indices(steps) == [0, 1, 2, 3, 4]
    assert _indices(steps[1:4]) == [1, 2, 3]
    assert steps[-1].custom_data == 4


def test_episodes():
    episodes = _Numbers().episodes

    assert [_indices(episode) for episode in episodes] == [[0, 1], [], [2, 3, 4]]
    assert episodes[-1][-1].custom_data == 4
    assert [len(episode) for episode in episodes[1:]] == [0, 3]
    with pytest.raises(IndexError, match="2 is out of range: there are 2 items"):
        episodes[0][2]  # Though step 2 exists, in another episode.
    with pytest.raises(IndexError, match="3 is out of range"):
        episodes[3]


def test_nested_loops():
    reader = _Numbers()

    pairs = [(_indices(a), _indices(b)) for a in reader.episodes for b in reader.episodes]

    assert pairs == list(itertools.product([[0, 1], [], [2, 3, 4]], repeat=2))


def test_episode_metadata_is_read_only_where_asked_for():
    reader = _Numbers()
    list(map(list, reader.episodes))
    assert reader.metadata_reads == 0

    assert list(reader.episode_metadata()) == ["episode 0", None, "episode 2"]
    assert reader.episode_metadata()[-1] == "episode 2"
    assert reader.metadata_reads == 4


def test_leaving_the_context_closes():
    with _Numbers() as reader:
        assert reader.metadata() == {"a": 1}

    assert reader.closed == 1


def test_copy_is_closed_by_itself():
    reader = _Numbers()

    with reader.copy() as other:
        assert _indices(other.steps) == _indices(reader.steps)

    assert (other.closed, reader.closed) == (1, 0)


def test_episode_info_is_immutable():
    info = backend_reader.EpisodeInfo(start=3, num_steps=4)

    assert info.metadata is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.start = 0


def test_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        backend_reader.BackendReader()
