# SPDX-License-Identifier: Apache-2.0
"""What `step_fn` and `episode_fn` return is logged beside the steps and episodes."""

from __future__ import annotations

import collections
import itertools

import helpers
import numpy as np
import pytest

import envlogger
from envlogger.testing.comparison import assert_same

GOOD = helpers.GOOD

VALUES = [
    {"a": 1},
    {"a": {"b": 0.5, "c": ["x", (b"y",)]}},
    {},
    0.5,
    3,
    True,
    "text",
    b"\0bytes",
    np.arange(3, dtype=np.int16),
    np.float16(0.5),
    np.array(["a", "bc"]),
    [1.0, 2.0],
    (1, "a"),
    [],
    [{"a": 1}, None],
    None,
]


@pytest.mark.parametrize("value", VALUES)
def test_metadata_of_any_kind(tmp_path, value):
    helpers.record(tmp_path, [GOOD, GOOD], step_fn=lambda *_: value, episode_fn=lambda *_: value)

    for episode in helpers.read(tmp_path):
        assert_same([step.custom_data for step in episode], [value] * 3)
    assert_same(helpers.read_metadata(tmp_path), [value] * 2)


def test_the_callbacks_see_what_is_logged(tmp_path):
    seen = []
    env = helpers.ScriptedEnv([GOOD])
    with envlogger.EnvLogger(
        env,
        data_directory=tmp_path,
        helper=False,
        step_fn=lambda *args: seen.append(("step", *args)),
        episode_fn=lambda *args: seen.append(("episode", *args)),
    ) as logger:
        helpers.play(logger, [[7, 8]])

    expected = [
        (name, timestep, action)
        for timestep, action in zip(GOOD, [None, 7, 8], strict=True)
        for name in ("step", "episode")
    ]
    assert [call[:3] for call in seen] == expected
    assert all(call[3] is env for call in seen)


def test_keys_become_features(tmp_path):
    helpers.record(
        tmp_path,
        [GOOD],
        step_fn=lambda *_: {"clock": 3, "nested": {"x": "y"}},
        episode_fn=lambda *_: {"score": 0.5},
    )

    (episode,) = helpers.data_source(tmp_path)
    assert episode["score"] == 0.5
    assert [step["clock"] for step in episode["steps"]] == [3, 3, 3]
    assert [step["nested"]["x"] for step in episode["steps"]] == [b"y"] * 3
    assert not episode["invalid"]


def test_the_last_value_that_is_not_none_is_kept(tmp_path):
    values = iter([1, 2, None, None, None, None, None, 5, 6])

    helpers.record(tmp_path, [GOOD] * 3, episode_fn=lambda *_: next(values))

    assert_same(helpers.read_metadata(tmp_path), [2, None, 6])


def test_metadata_may_change_its_nesting(tmp_path):
    values = iter([{"a": 1}, {"b": 2}, None, [1.0], {"a": 2, "c": {"d": 3}}, 1.0])
    expected = [{"a": 1}, {"b": 2}, None, [1.0], {"a": 2, "c": {"d": 3}}]

    with helpers.scripted_logger(tmp_path, [GOOD, GOOD], step_fn=lambda *_: next(values)) as logger:
        helpers.play(logger, [[0, 1], [0]])

    assert_same([s.custom_data for e in helpers.read(tmp_path) for s in e], expected)


def test_features_that_turn_up_later(tmp_path):
    steps = iter([{"a": 1}, None, {"a": 2}, {"a": 3}, {"a": 4, "b": "x"}, None])
    episodes = iter([None, None, None, None, None, {"score": 7}])

    helpers.record(
        tmp_path,
        [GOOD, GOOD],
        max_episodes_per_file=1,
        step_fn=lambda *_: next(steps),
        episode_fn=lambda *_: next(episodes),
    )

    assert [[s.custom_data for s in e] for e in helpers.read(tmp_path)] == [
        [{"a": 1}, None, {"a": 2}],
        [{"a": 3}, {"a": 4, "b": "x"}, None],
    ]
    assert helpers.read_metadata(tmp_path) == [None, {"score": 7}]
    for episodes in (helpers.data_source(tmp_path), helpers.tf_episodes(tmp_path)):
        first, second = list(episodes)
        assert not first["present"]["score"]
        assert (second["present"]["score"], second["score"]) == (True, 7)
        one, two = list(first["steps"]), list(second["steps"])
        assert [bool(s["present"]["a"]) for s in one + two] == [
            True,
            False,
            True,
            True,
            True,
            False,
        ]
        assert [bool(s["present"]["b"]) for s in one + two] == [False] * 4 + [True, False]
        assert [s["a"] for s in one + two] == [1, 0, 2, 3, 4, 0]
        assert [s["b"] for s in one + two] == [b""] * 4 + [b"x", b""]


def test_metadata_of_varying_length(tmp_path):
    words = iter([["a"], [], ["b", "c"], ["d"], ["e"], []])
    helpers.record(
        tmp_path, [GOOD, GOOD], step_fn=lambda *_: {"words": np.array(next(words), object)}
    )

    got = [list(s.custom_data["words"]) for e in helpers.read(tmp_path) for s in e]

    assert got == [["a"], [], ["b", "c"], ["d"], ["e"], []]


@pytest.mark.parametrize("helper", [True, False])
@pytest.mark.parametrize("size", [100, 30_000, 70_000])  # of which some fill a segment's heap
def test_large_metadata_beside_features_that_turn_up_later(tmp_path, size, helper):
    texts = [f"{number} " + "x" * size for number in range(12)]
    calls = itertools.count()

    def step_fn(*_):
        number = next(calls) // len(GOOD)
        return {f"new in {number}": number} if number % 3 == 2 else None

    current = iter(np.repeat(texts, len(GOOD)).tolist())
    helpers.record(
        tmp_path,
        [GOOD] * len(texts),
        helper=helper,
        step_fn=step_fn,
        episode_fn=lambda *_: {"text": next(current)},
    )

    assert helpers.read_metadata(tmp_path) == [{"text": text} for text in texts]


def test_dicts_that_have_an_answer_to_any_key(tmp_path):
    given = [
        collections.Counter(a=1),
        collections.Counter(b=3),
        collections.defaultdict(int, c=7),
        collections.defaultdict(int, a=2),
    ] * 2
    values = iter(given)
    helpers.record(tmp_path, [GOOD[:2]] * 4, step_fn=lambda *_: next(values))

    got = [s.custom_data for e in helpers.read(tmp_path) for s in e]
    assert got == [{"a": 1}, {"b": 3}, {"c": 7}, {"a": 2}] * 2
    assert given[2] == {"c": 7}


def test_episode_metadata_of_varying_length(tmp_path):
    history = []

    def collect(timestep, *_):
        if timestep.first():
            history.clear()
        history.append(len(history) + 0.5)
        return {"history": np.array(history)}

    episodes = [GOOD, GOOD[:2], [*GOOD[:2], *GOOD[1:]]]
    helpers.record(tmp_path, episodes, episode_fn=collect)

    expected = [{"history": np.arange(len(episode)) + 0.5} for episode in episodes]
    assert_same(helpers.read_metadata(tmp_path), expected)
    assert [e["history"].tolist() for e in helpers.tf_episodes(tmp_path)] == [
        e["history"].tolist() for e in expected
    ]


def test_what_callbacks_return_is_copied(tmp_path):
    value = np.zeros(3)

    def reuse(*_):
        value[:] += 1
        return {"v": value}

    helpers.record(tmp_path, [GOOD], step_fn=reuse)

    got = [step.custom_data["v"].tolist() for step in helpers.read(tmp_path)[0]]
    assert got == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
