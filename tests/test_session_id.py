# SPDX-License-Identifier: Apache-2.0
"""Runs whose sessions have a name of the caller's."""

from __future__ import annotations

import helpers
import pytest

from envlogger import errors
from envlogger.testing.comparison import assert_same

_EPISODES = [helpers.GOOD, [helpers.first(1.0)]]


def _shards(path):
    return [shard.read_bytes() for shard in sorted(path.glob("*.array_record-*"))]


def test_same_run_gives_the_same_bits(tmp_path):
    paths = [tmp_path / "one" / "run", tmp_path / "two" / "run"]
    for path in paths:
        helpers.record(path, _EPISODES, session_id="walker-7")

    assert _shards(paths[0]) == _shards(paths[1]) != []
    ids = [episode["episode_id"] for episode in helpers.data_source(paths[0])]
    assert ids == [b"walker-7-000000000", b"walker-7-000000003"]


def test_another_session_appends(tmp_path):
    helpers.record(tmp_path, _EPISODES, session_id="a")
    helpers.record(tmp_path, _EPISODES, session_id="b")

    assert_same(helpers.read(tmp_path)[:2], helpers.read(tmp_path)[2:])


def test_the_same_session_is_refused(tmp_path):
    helpers.record(tmp_path, _EPISODES, session_id="a")
    before = _shards(tmp_path)
    with pytest.raises(errors.OptionError) as raised:
        helpers.record(tmp_path, _EPISODES, session_id="a")
    helpers.check_message(raised, "session_id", "'a'", str(tmp_path))
    assert _shards(tmp_path) == before


@pytest.mark.parametrize("session_id", ["", "..", "a/b", "-a", "x" * 101])
def test_names_that_no_directory_can_have(session_id, tmp_path):
    with pytest.raises(errors.OptionError, match="session_id"):
        helpers.record(tmp_path / "run", _EPISODES, session_id=session_id)
    assert not (tmp_path / "run").exists()
