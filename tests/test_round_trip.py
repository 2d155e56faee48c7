# SPDX-License-Identifier: Apache-2.0
"""Whatever is logged comes back bit by bit: from Reader, from tfds.data_source and from tf.data."""

from __future__ import annotations

import copy
from typing import Any

import dm_env
import helpers
import ml_dtypes
import nests
import numpy as np
import pytest
import repeatable
import stored
from hypothesis import given
from hypothesis import strategies as st

import envlogger
from envlogger.testing.comparison import assert_same


class Run:
    """A run that Hypothesis made up: templates for each place, and the episodes played from them."""

    def __init__(self, draw: Any) -> None:
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        numbers = nests.nests()
        observation = draw(numbers)
        action = draw(nests.nests(optional=False))
        reward = draw(st.just(nests.Leaf(float, is_array=False)) | numbers | st.none())
        discount = draw(st.just(nests.Leaf(float, is_array=False)) | numbers | st.none())
        step_data = draw(st.none() | nests.nests(optional=True))
        fixed = nests.leaves(can_vary=False)
        episode_data = draw(st.none() | nests.nests(optional=True, of=fixed))
        if isinstance(step_data, dict):
            step_data = {key: item for key, item in step_data.items() if _is_free(key)}
        if isinstance(episode_data, dict):
            episode_data = {key: item for key, item in episode_data.items() if _is_free(key)}

        self.episodes: list[list[dm_env.TimeStep]] = []
        self.actions: list[list[Any]] = []
        self.custom: list[list[Any]] = []
        self.metadata: list[Any] = []
        count = came = 0
        # That shapes vary must show in the first episode.
        shortest = 3 if nests.varies([observation, action, reward, discount, step_data]) else 1
        lengths = [draw(st.integers(shortest, 6)), *draw(st.lists(st.integers(1, 6), max_size=2))]
        for number, length in enumerate(lengths):
            ends = draw(st.booleans())
            steps, actions, custom = [], [], []
            for i in range(length):
                seen = nests.draw(observation, count, rng)
                if i == 0:
                    steps.append(dm_env.restart(seen))
                else:
                    kind = dm_env.StepType.LAST if ends and i == length - 1 else dm_env.StepType.MID
                    values = [nests.draw(t, came, rng) for t in (reward, discount, action)]
                    steps.append(dm_env.TimeStep(kind, values[0], values[1], seen))
                    actions.append(values[2])
                    came += 1
                custom.append(nests.draw(step_data, count, rng))
                count += 1
            self.episodes.append(steps)
            self.actions.append(actions)
            self.custom.append(custom)
            self.metadata.append(nests.draw(episode_data, number, rng))

    def __repr__(self) -> str:
        return f"Run(\n  {self.expected()},\n  metadata={self.metadata})"

    def record(self, path: str, **kwargs: Any) -> None:
        custom = iter([data for episode in self.custom for data in episode])
        lengths = iter([n for n, e in enumerate(self.episodes) for _ in e])
        first_action = next((a for actions in self.actions for a in actions), None)
        env = helpers.ScriptedEnv(copy.deepcopy(self.episodes), first_action)
        with envlogger.EnvLogger(
            env,
            step_fn=lambda *_: next(custom),
            episode_fn=lambda *_: self.metadata[next(lengths)],
            data_directory=path,
            helper=False,
            **kwargs,
        ) as logger:
            helpers.play(logger, self.actions)

    def expected(self) -> list[list[envlogger.StepData]]:
        return [
            helpers.expected_steps(*parts)
            for parts in zip(self.episodes, self.actions, self.custom, strict=True)
        ]


def _is_free(key: Any) -> bool:
    return str(key) not in ("steps", "episode_id", "invalid")


runs = st.composite(lambda draw: Run(draw))()


@repeatable.settings(100)
@given(run=runs)
def test_reader_returns_what_was_logged(run):
    with helpers.scratch() as path:
        run.record(path, max_episodes_per_file=2)
        with envlogger.Reader(path) as reader:
            assert_same([list(e) for e in reader.episodes], run.expected())
            assert_same(list(reader.steps), [s for e in run.expected() for s in e])
            assert_same(list(reader.episode_metadata()), run.metadata)


@repeatable.settings(40)
@given(run=runs)
def test_data_source_holds_it_in_the_alignment_of_rlds(run):
    with helpers.scratch() as path:
        run.record(path)
        stored.check(
            list(helpers.data_source(path)), run.expected(), run.metadata, is_numpy_path=True
        )


@repeatable.settings(15)
@given(run=runs)
def test_tf_data_holds_it_in_the_alignment_of_rlds(run):
    with helpers.scratch() as path:
        run.record(path)
        stored.check(helpers.tf_episodes(path), run.expected(), run.metadata, is_numpy_path=False)


@pytest.mark.parametrize("length", [1, 2, 5000])
def test_episodes_of_any_length(tmp_path, length):
    steps = [helpers.first(np.int32(0))]
    steps += [helpers.mid(np.int32(i), float(i)) for i in range(1, length)]
    helpers.record(tmp_path, [steps, steps])

    got = helpers.read(tmp_path)

    assert_same(got, helpers.expected_run(steps, steps))


@pytest.mark.parametrize(
    "layout",
    [
        lambda array: array,
        np.asfortranarray,
        lambda array: array[::-1],
        lambda array: array[:, ::2],
        lambda array: np.moveaxis(array, 0, -1),
        lambda array: np.broadcast_to(array[:1, :1], array.shape),
        lambda array: array.astype(ml_dtypes.bfloat16),
    ],
)
def test_arrays_however_they_lie_in_memory(tmp_path, layout):
    arrays = [layout(np.arange(i, i + 24, dtype=np.float32).reshape(4, 6)) for i in range(9)]
    steps = [helpers.first(arrays[0]), *(helpers.mid(array, 1.0) for array in arrays[1:])]
    helpers.record(tmp_path, [steps, steps])

    got = helpers.read(tmp_path)

    assert_same(got, helpers.expected_run(steps, steps))
