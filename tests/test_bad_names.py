# SPDX-License-Identifier: Apache-2.0
"""Names that are reserved, that collide or cannot be names: an error says where, what was got and what
to do; and whatever was recorded before it stays readable."""

from __future__ import annotations

import bad_input
import helpers
import numpy as np
import pytest

from envlogger import errors
from envlogger.testing.comparison import assert_same

GOOD = helpers.GOOD

_RESERVED = (
    *("observation", "action", "reward", "discount", "is_first", "is_last", "is_terminal", "steps"),
    *("custom_data", "present", "envlogger", "steps/x"),
)


@pytest.mark.parametrize("name", _RESERVED)
@pytest.mark.parametrize("source", ["step_fn", "episode_fn"])
def test_reserved_names(tmp_path, source, name):
    values = iter([None, None, None, {name: 1}])

    raised = bad_input.record_until_error(
        tmp_path, [GOOD, GOOD], errors.NameConflictError, **{source: lambda *_: next(values)}
    )

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, f"{name}: got", source, "reserved", "Rename it")
    assert_same(helpers.read(tmp_path)[0], helpers.expected_steps(GOOD, [0, 1]))


def test_reserved_names_of_the_dataset(tmp_path):
    with pytest.raises(errors.NameConflictError) as raised:
        helpers.logger(tmp_path, helpers.ScriptedEnv([GOOD]), metadata={"envlogger": 1})

    helpers.check_message(raised, "metadata", "'envlogger'", "reserved", "Rename it")
    assert not (tmp_path / "dataset_info.json").exists()


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a/b": 1}, {"a": {"b": 2}}), ({"a": {"b/c": 1}}, {"a/b": {"c": 2}}), ({1: 1}, {"1": 2})],
)
@pytest.mark.parametrize("source", ["observation", "step_fn", "episode_fn"])
def test_names_that_collide(tmp_path, source, one, other):
    both = {**one, **other}
    values = iter([None, None, None, both])
    good = {"x": 0.0} if source == "observation" else 0.0
    steps = [helpers.first(good), helpers.mid(good), helpers.last(good)]
    kwargs = {}
    if source == "observation":
        broken = [helpers.first(both), helpers.mid(both)]
        path = tmp_path / "other"
    else:
        broken, path = steps, tmp_path
        kwargs = {source: lambda *_: next(values)}
    episodes = [broken] if source == "observation" else [steps, broken]

    raised = bad_input.record_until_error(path, episodes, errors.NameConflictError, **kwargs)

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, "Rename one of them")
    if source != "observation":
        assert_same(helpers.read(path)[0], helpers.expected_steps(steps, [0, 1]))


@pytest.mark.parametrize(
    "key", ["a/b", "with space", "ключ", "🙂", 0, -3, "_", "a.b", "a\nb", "%s"]
)
def test_keys_of_any_kind(tmp_path, key):
    value = {"in": {key: np.float32(1)}, key: 2}
    steps = [helpers.first(value), helpers.last(value)]

    helpers.record(tmp_path, [steps], episode_fn=lambda *_: {key: "x"}, step_fn=lambda *_: {key: 1})

    assert_same(helpers.read(tmp_path), [helpers.expected_steps(steps, [0], [{key: 1}, {key: 1}])])
    assert helpers.read_metadata(tmp_path) == [{key: "x"}]
    stored = helpers.source_steps(tmp_path)[0][0]
    assert stored["observation"]["in"][str(key)] == 1
    assert stored[str(key)] == 1
    (episode,) = helpers.tf_episodes(tmp_path)
    assert episode[str(key)] == b"x"
    assert episode["steps"][0]["observation"][str(key)] == 2


@pytest.mark.parametrize("key", ["", True, 1.5, None, (1, 2), "\ud800"])
def test_keys_that_cannot_be_names(tmp_path, key):
    values = iter([None, None, None, {key: 1}])

    raised = bad_input.record_until_error(
        tmp_path, [GOOD, GOOD], errors.NameConflictError, step_fn=lambda *_: next(values)
    )

    helpers.check_message(raised, f"got the key {key!r}", "expected", "Rename it")
    bad_input.check_kept(tmp_path, [GOOD])
