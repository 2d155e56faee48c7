# SPDX-License-Identifier: Apache-2.0
"""How many steps a dataset has that does not tell: they are counted once, and anew where that is stale."""

from __future__ import annotations

import foreign
import helpers
import pytest

import envlogger
from envlogger.tfds import shard_pool, step_index


@pytest.fixture
def others(tmp_path):
    return foreign.write_shards(tmp_path / "others" / "1.0.0")


def test_steps_are_counted_once(others, monkeypatch):
    reads = helpers.spy(monkeypatch, shard_pool.ShardPool, "read", lambda pool, index: index)
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
    foreign.write(others, foreign.RLDS, foreign.rlds([3, 1, 2, 2, 2]), "tfrecord")  # in its place

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
    episodes = [[helpers.first(), helpers.last()], helpers.GOOD]
    helpers.record(tmp_path, episodes[:1])
    (tmp_path / ".envlogger" / "index" / "train").unlink()
    helpers.record(tmp_path, episodes[1:])

    with envlogger.Reader(tmp_path) as reader:
        assert [len(episode) for episode in reader.episodes] == [2, 3]
        assert len(list(reader.steps)) == len(reader.steps) == 5
    helpers.record(tmp_path, episodes[1:])
    with envlogger.Reader(tmp_path) as reader:
        assert len(list(reader.steps)) == 8
