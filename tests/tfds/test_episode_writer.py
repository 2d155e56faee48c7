# SPDX-License-Identifier: Apache-2.0
"""Episodes without an environment loop: what goes in comes out, as from the wrapper."""

from __future__ import annotations

import copy
import itertools
import json
import pathlib
from typing import Any

import dm_env
import helpers
import nests
import numpy as np
import pytest
import repeatable
import rlds_steps
import stored
from hypothesis import given
from hypothesis import strategies as st

import envlogger
from envlogger.testing.comparison import assert_same
from envlogger.tfds import EpisodeWriter

_RLDS = ("observation", "action", "reward", "discount")


def _as_logged(steps: list[dict[Any, Any]]) -> list[envlogger.StepData]:
    """Returns what the documents say that `Reader` makes of steps of RLDS, with flags."""
    logged = []
    for t, step in enumerate(steps):
        came = steps[t - 1] if t else {}
        first, last = step["is_first"], step["is_last"]
        kind = dm_env.StepType.FIRST if first else dm_env.StepType.LAST if last else None
        timestep = dm_env.TimeStep(
            dm_env.StepType.MID if kind is None else kind,
            came.get("reward"),
            came.get("discount"),
            step.get("observation"),
        )
        custom = {key: v for key, v in step.items() if key not in (*_RLDS, *rlds_steps.FLAGS)}
        logged.append(envlogger.StepData(timestep, came.get("action"), custom or None))
    return logged


_EPISODES = [rlds_steps.robot_steps(seed, 2 + seed) for seed in range(4)]
_METADATA = [rlds_steps.robot_metadata(seed) for seed in range(4)]


@pytest.fixture(scope="module", params=["whole", "by step", "mixed, with a helper"])
def robot(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "robot" / "1.0.0"
    with EpisodeWriter(
        path,
        helper="helper" in request.param,
        metadata={"robot": "arm", "rate": 5.0},
        max_episodes_per_file=3,
    ) as writer:
        for number, (steps, metadata) in enumerate(zip(_EPISODES, _METADATA, strict=True)):
            if request.param == "whole" or (request.param[0] == "m" and number % 2):
                writer.add_episode(steps, metadata)
                continue
            for step in steps:
                writer.add_step(step)
            writer.end_episode(metadata)
    return path


def test_reader_returns_what_was_added(robot):
    assert_same(helpers.read(robot), [_as_logged(steps) for steps in _EPISODES])
    with envlogger.Reader(robot) as reader:
        assert_same(list(reader.episode_metadata()), _METADATA)
        assert reader.metadata() == {"robot": "arm", "rate": 5.0}
        assert reader.observation_spec() is None
        assert_same(list(reader.steps), [s for e in _EPISODES for s in _as_logged(e)])
        assert_same(reader.episodes[2][3], _as_logged(_EPISODES[2])[3])
        columns = [episode.columns() for episode in reader.episodes]
    for found, steps in zip(columns, _EPISODES, strict=True):
        for field in (*rlds_steps.FLAGS, "action", "reward", "discount", "language_embedding"):
            assert_same(found[field], np.stack([step[field] for step in steps]))
        images = np.stack([step["observation"]["wrist_image"] for step in steps])
        assert_same(found["observation"]["wrist_image"], images)


def test_data_source_returns_what_was_added(robot):
    stored.check_steps(
        list(helpers.data_source(robot)),
        [
            [{**rlds_steps.values(s), **{f: s[f] for f in rlds_steps.FLAGS}} for s in e]
            for e in _EPISODES
        ],
        _METADATA,
        is_numpy_path=True,
    )


def test_tf_data_returns_what_was_added(robot):
    stored.check_steps(helpers.tf_episodes(robot), _EPISODES, _METADATA, is_numpy_path=False)


def test_the_features_are_those_of_such_datasets(robot):
    features = json.loads((robot / "features.json").read_text())["featuresDict"]["features"]
    assert set(features) == {
        *("steps", "episode_metadata"),
        *("episode_id", "invalid", "envlogger"),
    }
    steps = features["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    assert set(steps) == set(_EPISODES[0][0])


class _Run:
    """Episodes that Hypothesis made up: any field of RLDS may be missing, always or now and then."""

    def __init__(self, draw: Any) -> None:
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        templates = {
            name: draw(nests.nests() | st.just(nests.Leaf(float, is_array=False)))
            for name in _RLDS
            if draw(st.booleans())
        }
        others = draw(st.dictionaries(st.sampled_from(["a", "b", 3]), nests.leaves(), max_size=2))
        fixed = nests.leaves(can_vary=False)
        about = draw(st.none() | nests.nests(optional=True, of=fixed))
        if isinstance(about, dict):
            about = {k: v for k, v in about.items() if str(k) not in ("steps", "episode_id")}
        # That shapes vary must show in the first episode, anywhere in it.
        shortest = 3 if nests.varies([*templates.values(), *others.values()]) else 1
        lengths = [draw(st.integers(shortest, 6)), *draw(st.lists(st.integers(1, 6), max_size=2))]
        self.metadata = [nests.draw(about, number, rng) for number in range(len(lengths))]
        self.episodes: list[list[dict[Any, Any]]] = []
        numbers = itertools.count()
        for length in lengths:
            steps = []
            for _ in range(length):
                number = next(numbers)
                values = {k: nests.draw(v, number, rng) for k, v in (templates | others).items()}
                if templates and number >= 3 and draw(st.integers(0, 4)) == 0:
                    values.pop(draw(st.sampled_from(sorted(templates))))
                steps.append(values)
            begins, ends = draw(st.booleans()), draw(st.booleans())
            for t, step in enumerate(steps):
                step["is_first"] = t == 0 and begins
                step["is_last"] = t == length - 1 and ends
                step["is_terminal"] = step["is_last"] and draw(st.booleans())
            self.episodes.append(steps)

    def __repr__(self) -> str:
        return f"Run(\n  {self.episodes},\n  metadata={self.metadata})"


@repeatable.settings(30)
@given(run=st.composite(lambda draw: _Run(draw))(), is_read_by_tf=st.integers(0, 7))
def test_whatever_is_added_comes_back(run, is_read_by_tf):
    with helpers.scratch() as path:
        rlds_steps.write(path, copy.deepcopy(run.episodes), run.metadata, max_episodes_per_file=2)
        assert_same(helpers.read(path), [_as_logged(steps) for steps in run.episodes])
        assert_same(helpers.read_metadata(path), run.metadata)
        given = [
            [tuple(step[name] for name in rlds_steps.FLAGS) for step in e] for e in run.episodes
        ]
        assert rlds_steps.flags(path) == given
        values = [list(map(rlds_steps.values, steps)) for steps in run.episodes]
        stored.check_steps(
            list(helpers.data_source(path)), values, run.metadata, is_numpy_path=True
        )
        if is_read_by_tf == 0:
            stored.check_steps(helpers.tf_episodes(path), values, run.metadata, is_numpy_path=False)


def test_steps_may_share_a_buffer_and_come_from_an_iterator(tmp_path):
    buffer = np.zeros(3)

    def steps():
        for t in range(4):
            buffer[:] = t
            yield {"observation": buffer, "action": buffer}

    rlds_steps.write(tmp_path, [steps()])
    expected = np.repeat(np.arange(4.0), 3).reshape(4, 3)
    with envlogger.Reader(tmp_path) as reader:
        assert_same(reader.episodes[0].columns(["action"])["action"], expected)


def test_a_dimension_may_begin_to_vary_late_in_the_first_episode(tmp_path):
    lengths = [3, 3, 3, 5, 0]
    rlds_steps.write(
        tmp_path, [[{"observation": np.arange(n, dtype=np.int16)} for n in lengths]] * 2
    )
    found = [len(step.timestep.observation) for step in helpers.read(tmp_path)[1]]
    assert found == lengths


def test_a_reward_that_begins_as_an_int_is_a_float(tmp_path):
    rlds_steps.write(
        tmp_path, [[{"observation": 0, "reward": r, "discount": 1} for r in (0, 0, 0.5)]]
    )
    with envlogger.Reader(tmp_path) as reader:
        columns = reader.episodes[0].columns(["reward", "discount"])
        assert_same(columns["reward"], np.array([0, 0, 0.5]))
        assert reader.steps[1].timestep.reward == 0
        assert type(reader.steps[1].timestep.reward) is int


def test_the_caller_may_name_the_episodes(tmp_path):
    rlds_steps.write(tmp_path, [[{"observation": 1}]] * 2, [{"episode_id": "№ 7"}, None])
    ids = [episode["episode_id"].decode() for episode in helpers.data_source(tmp_path)]
    assert ids[0] == "№ 7"
    assert ids[1].endswith("-000000001")


def test_it_holds_what_the_writer_of_rlds_holds(tmp_path):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    rlds = envlogger.tfds.import_rlds()
    from rlds.tfds import episode_writer as peer

    assert rlds.ACTION == "action"
    config = tfds.rlds.rlds_base.DatasetConfig(
        name="arm",
        observation_info={"state": tfds.features.Tensor(shape=(3,), dtype=tf.float32)},
        action_info=tfds.features.Tensor(shape=(2,), dtype=tf.float32),
        reward_info=tf.float32,
        discount_info=tf.float32,
        step_metadata_info={"language_instruction": tfds.features.Text()},
        episode_metadata_info={"episode_id": tf.int64},
    )
    rng = np.random.default_rng(0)
    episodes = [
        {
            "steps": [
                {
                    "observation": {"state": rng.normal(size=3).astype(np.float32)},
                    "action": rng.normal(size=2).astype(np.float32),
                    "reward": float(t),
                    "discount": 1.0,
                    "is_first": t == 0,
                    "is_last": t == 4 and number > 0,
                    "is_terminal": t == 4 and number > 1,
                    "language_instruction": "push",
                }
                for t in range(5)
            ],
            "episode_id": number,
        }
        for number in range(3)
    ]
    found = []
    for place, kind in (("theirs", peer.EpisodeWriter), ("ours", EpisodeWriter)):
        directory = str(tmp_path / place)
        pathlib.Path(directory).mkdir()
        for split, part in (("train", episodes[:2]), ("test", episodes[2:])):
            writer = kind(directory, config, split_name=split, overwrite=False)
            for episode in part:
                writer.add_episode(episode)
            writer.close()
        found.append([helpers.tf_episodes(directory, split) for split in ("train", "test")])
    theirs, ours = found
    for split, other in zip(theirs, ours, strict=True):
        for episode, same in zip(split, other, strict=True):
            assert episode["episode_id"] == same["episode_id"]
            for step, twin in zip(episode["steps"], same["steps"], strict=True):
                assert_same(dict(sorted(twin.items())), dict(sorted(step.items())))
