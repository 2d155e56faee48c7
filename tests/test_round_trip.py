# SPDX-License-Identifier: Apache-2.0
"""Whatever is logged comes back bit by bit: from Reader, from tfds.data_source and from tf.data."""

from __future__ import annotations

import copy
from typing import Any

import dm_env
import helpers
import nests
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envlogger
from envlogger.testing.comparison import assert_same



def _examples(count: int) -> settings:
    """Returns settings without anything that depends on the machine's speed or on luck."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


SHIFTED = ("action", "reward", "discount")


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
        for number, (length, ends) in enumerate(
            draw(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=3))
        ):
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


@_examples(150)
@given(run=runs)
def test_reader_returns_what_was_logged(run):
    with helpers.scratch() as path:
        run.record(path, max_episodes_per_file=2)
        with envlogger.Reader(path) as reader:
            assert_same([list(e) for e in reader.episodes], run.expected())
            assert_same(list(reader.steps), [s for e in run.expected() for s in e])
            assert_same(list(reader.episode_metadata()), run.metadata)


@_examples(60)
@given(run=runs)
def test_data_source_holds_it_in_the_alignment_of_rlds(run):
    with helpers.scratch() as path:
        run.record(path)
        _check_stored(list(helpers.data_source(path)), run, is_numpy_path=True)


@_examples(25)
@given(run=runs)
def test_tf_data_holds_it_in_the_alignment_of_rlds(run):
    with helpers.scratch() as path:
        run.record(path)
        _check_stored(helpers.tf_episodes(path), run, is_numpy_path=False)


def _check_stored(episodes: list[Any], run: Run, *, is_numpy_path: bool) -> None:
    assert len(episodes) == len(run.episodes)
    features: dict[tuple[str, ...], np.ndarray] = {}
    for logged in run.expected():
        for row in logged:
            features.update(_row_leaves(row))
    for episode, logged, metadata in zip(episodes, run.expected(), run.metadata, strict=True):
        steps = list(episode["steps"])
        assert len(steps) == len(logged)
        end = logged[-1].timestep
        for t, step in enumerate(steps):
            assert step["is_first"] == (t == 0)
            assert step["is_last"] == (t == len(logged) - 1)
            assert step["is_terminal"] == (t == len(logged) - 1 and _is_terminal(end))
            came = _row_leaves(logged[t + 1]) if t + 1 < len(logged) else {}
            here = _row_leaves(logged[t])
            for path, example in features.items():
                value = (came if path[0] in SHIFTED else here).get(path)
                _check_leaf(_at(step, path), value, example, is_numpy_path, path)
                if ("present", *path) in _paths(step):
                    assert bool(_at(step, ("present", *path))) == (value is not None)
                else:
                    assert value is not None or (t == len(logged) - 1 and path[0] in SHIFTED)
        assert not episode["invalid"]
        root = () if isinstance(metadata, dict) else ("custom_data",)
        for path, value in nests.stored_leaves(metadata, root).items():
            _check_leaf(_at(episode, path), value, value, is_numpy_path, path)


def _row_leaves(row: envlogger.StepData) -> dict[tuple[str, ...], np.ndarray]:
    custom = row.custom_data
    found = nests.stored_leaves(custom, () if isinstance(custom, dict) else ("custom_data",))
    for name in ("observation", "reward", "discount"):
        found.update(nests.stored_leaves(getattr(row.timestep, name), (name,)))
    found.update(nests.stored_leaves(row.action, ("action",)))
    return found


def _check_leaf(
    got: Any, value: np.ndarray | None, example: np.ndarray, is_numpy_path: bool, path: Any
) -> None:
    if is_numpy_path and type(got) in (bool, int, float):
        got = example.dtype.type(got)  # TFDS gives scalars of an episode as Python's
    got = np.asarray(got, object if example.dtype == object else None)
    if isinstance(value, np.ndarray):
        # TFDS gives a Sequence (strings, uint32 of varying length) as a list, and an empty one has
        # no shape beyond that.
        is_empty_list = is_numpy_path and got.shape == (0,) and value.shape[:1] == (0,)
        assert got.shape == value.shape or is_empty_list, path
        expected = value
    else:  # padding
        expected = np.full(got.shape, b"" if example.dtype == object else 0, example.dtype)
    if example.dtype == object:
        assert got.tolist() == expected.tolist(), path
        return
    if not got.size and got.dtype != example.dtype:
        return  # an empty list has no dtype
    assert got.dtype == example.dtype, path
    if is_numpy_path and got.dtype == np.float32:
        # TFDS passes single floats through Python's, which makes signalling NaNs quiet.
        expected = _quiet(expected)
        got = _quiet(got)
    assert got.tobytes() == np.ascontiguousarray(expected).tobytes(), path


def _quiet(array: np.ndarray) -> np.ndarray:
    bits = np.array(array, np.float32).view(np.uint32)
    return np.where(np.isnan(array), bits | np.uint32(1 << 22), bits)


def _is_terminal(end: dm_env.TimeStep) -> bool:
    leaves = nests.stored_leaves(end.discount)
    with np.errstate(invalid="ignore"):
        return bool(end.last() and leaves and not any(np.any(v != 0) for v in leaves.values()))


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _paths(tree: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    if not isinstance(tree, dict):
        return {path}
    return {p for key, item in tree.items() for p in _paths(item, (*path, key))}


@pytest.mark.parametrize("length", [1, 2, 5000])
def test_episodes_of_any_length(tmp_path, length):
    steps = [helpers.first(np.int32(0))]
    steps += [helpers.mid(np.int32(i), float(i)) for i in range(1, length)]
    helpers.record(tmp_path, [steps, steps])

    got = helpers.read(tmp_path)

    assert_same(got, [helpers.expected_steps(steps, list(range(length - 1)))] * 2)
