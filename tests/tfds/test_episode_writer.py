# SPDX-License-Identifier: Apache-2.0
"""Episodes without an environment loop: what goes in comes out, as from the wrapper."""

from __future__ import annotations

import copy
import itertools
import json
import pathlib
from typing import Any
from unittest import mock

import dm_env
import helpers
import nests
import numpy as np
import pytest
import stored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envlogger
from envlogger import errors
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same
from envlogger.tfds import EpisodeWriter, sealer

_RLDS = ("observation", "action", "reward", "discount")
_FLAGS = ("is_first", "is_last", "is_terminal")


def _robot_steps(seed: int, count: int) -> list[dict[str, Any]]:
    """Returns steps in the form of Open X-Embodiment data; their last ones hold data as well."""
    rng = np.random.default_rng(seed)
    return [
        {
            "observation": {
                "image": rng.integers(0, 256, (12, 16, 3), np.uint8),
                "wrist_image": rng.integers(0, 256, (8, 8, 3), np.uint8),
                "proprio": {"joints": rng.normal(size=7), "gripper": np.float32(rng.normal())},
            },
            "action": rng.normal(size=7).astype(np.float32),
            "reward": np.float32(rng.normal()),
            "discount": np.float32(rng.normal()),
            "is_first": t == 0,
            "is_last": t == count - 1,
            "is_terminal": t == count - 1 and bool(seed % 2),
            "language_instruction": f"lift the № {seed}",
            "language_embedding": rng.normal(size=8).astype(np.float32),
        }
        for t in range(count)
    ]


def _robot_metadata(seed: int) -> dict[str, Any]:
    return {"episode_metadata": {"file_path": f"raw/{seed}.npy", "operator": {"id": seed}}}


def _write(path: Any, episodes: Any, metadata: Any = None, **kwargs: Any) -> None:
    """Writes episodes; this process seals them: starting another takes longer than most tests."""
    with EpisodeWriter(path, **{"helper": False, **kwargs}) as writer:
        for number, steps in enumerate(episodes):
            writer.add_episode(steps, None if metadata is None else metadata[number])


def _values(step: dict[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in step.items() if key not in _FLAGS}


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
        custom = {key: v for key, v in step.items() if key not in (*_RLDS, *_FLAGS)}
        logged.append(envlogger.StepData(timestep, came.get("action"), custom or None))
    return logged


def _flags(path: Any) -> list[list[tuple[bool, ...]]]:
    """Returns is_first, is_last and is_terminal of each step of each episode."""
    with envlogger.Reader(path) as reader:
        columns = [episode.columns(_FLAGS) for episode in reader.episodes]
    return [
        list(zip(*(column[name].tolist() for name in _FLAGS), strict=True)) for column in columns
    ]


_EPISODES = [_robot_steps(seed, 2 + seed) for seed in range(4)]
_METADATA = [_robot_metadata(seed) for seed in range(4)]


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
        for field in (*_FLAGS, "action", "reward", "discount", "language_embedding"):
            assert_same(found[field], np.stack([step[field] for step in steps]))
        images = np.stack([step["observation"]["wrist_image"] for step in steps])
        assert_same(found["observation"]["wrist_image"], images)


def test_data_source_returns_what_was_added(robot):
    stored.check_steps(
        list(helpers.data_source(robot)),
        [[{**_values(s), **{f: s[f] for f in _FLAGS}} for s in e] for e in _EPISODES],
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


def _examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


@_examples(30)
@given(run=st.composite(lambda draw: _Run(draw))(), is_read_by_tf=st.integers(0, 7))
def test_whatever_is_added_comes_back(run, is_read_by_tf):
    with helpers.scratch() as path:
        _write(path, copy.deepcopy(run.episodes), run.metadata, max_episodes_per_file=2)
        assert_same(helpers.read(path), [_as_logged(steps) for steps in run.episodes])
        assert_same(helpers.read_metadata(path), run.metadata)
        given = [[tuple(step[name] for name in _FLAGS) for step in e] for e in run.episodes]
        assert _flags(path) == given
        values = [list(map(_values, steps)) for steps in run.episodes]
        stored.check_steps(
            list(helpers.data_source(path)), values, run.metadata, is_numpy_path=True
        )
        if is_read_by_tf == 0:
            stored.check_steps(helpers.tf_episodes(path), values, run.metadata, is_numpy_path=False)


class TestFlags:
    STEPS = tuple({"observation": t, "action": t + 10} for t in range(3))

    def test_what_is_left_out_follows_from_the_place(self, tmp_path):
        with EpisodeWriter(tmp_path, helper=False) as writer:
            writer.add_episode(self.STEPS)
            for step in self.STEPS:
                writer.add_step(step)
            writer.end_episode()
            writer.add_episode(self.STEPS[:1])
        of_three = [(True, False, False), (False, False, False), (False, True, False)]
        assert _flags(tmp_path) == [of_three, of_three, [(True, True, False)]]

    @pytest.mark.parametrize("true", [True, np.True_, np.array(True), 1, np.uint8(1)])
    def test_they_are_kept_as_given(self, tmp_path, true):
        only = {"observation": 1, "is_first": true, "is_last": true, "is_terminal": true}
        parts = [{**step, "is_first": not true, "is_last": False} for step in self.STEPS]
        _write(tmp_path, [[only], parts])
        assert _flags(tmp_path) == [[(True, True, True)], [(False, False, False)] * 3]

    def test_a_terminal_step_is_the_last(self, tmp_path):
        end = {**self.STEPS[2], "is_terminal": True}
        with EpisodeWriter(tmp_path, helper=False) as writer:
            writer.add_episode([*self.STEPS[:2], end])
            for step in [*self.STEPS[:2], end, *self.STEPS[:2]]:
                writer.add_step(step)
        assert [episode[-1] for episode in _flags(tmp_path)] == [
            *[(False, True, True)] * 2,
            (False, True, False),
        ]

    def test_is_first_begins_an_episode(self, tmp_path):
        with EpisodeWriter(tmp_path, helper=False) as writer:
            for number in range(5):
                writer.add_step({"observation": number, "is_first": number in (0, 3)})
        assert [len(episode) for episode in helpers.read(tmp_path)] == [3, 2]
        assert [episode[-1] for episode in _flags(tmp_path)] == [(False, True, False)] * 2


class TestLive:
    def test_metadata_may_come_with_the_steps(self, tmp_path):
        with EpisodeWriter(tmp_path, helper=False) as writer:
            writer.add_step({"observation": 1}, {"task": "lift", "success": False})
            writer.add_step({"observation": 2})
            writer.add_step({"observation": 3, "is_last": True}, {"task": "lift", "success": True})
            writer.add_step({"observation": 4, "is_last": True})
            writer.end_episode({"task": "drop", "success": False})
            writer.add_step({"observation": 5})
        assert helpers.read_metadata(tmp_path) == [
            {"task": "lift", "success": True},
            {"task": "drop", "success": False},
            None,
        ]

    def test_what_was_refused_does_not_end_the_episode(self, tmp_path):
        with EpisodeWriter(tmp_path, helper=False) as writer:
            writer.add_step({"observation": {"state": np.zeros(2)}})
            with pytest.raises(errors.ValueMismatchError) as raised:
                writer.add_step({"observation": {"state": np.zeros(2, np.float32)}})
            writer.add_step({"observation": {"state": np.ones(2)}})
            writer.end_episode()
        helpers.check_message(raised, "observation/state: got float32 of shape (2,)", "float64")
        assert [len(episode) for episode in helpers.read(tmp_path)] == [2]
        assert _flags(tmp_path) == [[(True, False, False), (False, True, False)]]

    def test_flush_publishes_what_has_ended(self, tmp_path):
        with EpisodeWriter(tmp_path, helper=False) as writer:
            writer.add_step({"observation": 1, "is_last": True})
            writer.flush()
            assert len(helpers.read(tmp_path)) == 1
            with pytest.raises(errors.OptionError, match=r"no step has been added.*flush"):
                writer.end_episode({"success": True})
            writer.add_episode([{"observation": 2, "is_last": False}])
            writer.flush()
            assert len(helpers.read(tmp_path)) == 2
            writer.add_step({"observation": 3})
            writer.flush()
            assert len(helpers.read(tmp_path)) == 2
        assert [len(episode) for episode in helpers.read(tmp_path)] == [1, 1, 1]

    def test_an_episode_that_is_too_large_is_split(self, tmp_path):
        steps = _robot_steps(3, 40)
        with (
            mock.patch.object(sealer, "EPISODE_BYTES", 8 << 10),
            EpisodeWriter(tmp_path, helper=False) as writer,
        ):
            for step in steps:
                writer.add_step(step)
            writer.end_episode()
            writer.add_episode([_values(step) for step in steps])
        with envlogger.Reader(tmp_path) as reader:
            parts = [episode.columns(["action", *_FLAGS]) for episode in reader.episodes]
        actions = np.stack([step["action"] for step in steps])
        assert_same(np.concatenate([p["action"] for p in parts]), np.concatenate([actions] * 2))
        assert len(parts) > 4
        assert sum(int(part["is_first"].sum()) for part in parts) == 2
        assert sum(int(part["is_terminal"].sum()) for part in parts) == 1
        assert all(part["is_last"].tolist()[-1] for part in parts)


def test_steps_may_share_a_buffer_and_come_from_an_iterator(tmp_path):
    buffer = np.zeros(3)

    def steps():
        for t in range(4):
            buffer[:] = t
            yield {"observation": buffer, "action": buffer}

    _write(tmp_path, [steps()])
    expected = np.repeat(np.arange(4.0), 3).reshape(4, 3)
    with envlogger.Reader(tmp_path) as reader:
        assert_same(reader.episodes[0].columns(["action"])["action"], expected)


def test_a_dimension_may_begin_to_vary_late_in_the_first_episode(tmp_path):
    lengths = [3, 3, 3, 5, 0]
    _write(tmp_path, [[{"observation": np.arange(n, dtype=np.int16)} for n in lengths]] * 2)
    found = [len(step.timestep.observation) for step in helpers.read(tmp_path)[1]]
    assert found == lengths


def test_a_reward_that_begins_as_an_int_is_a_float(tmp_path):
    _write(tmp_path, [[{"observation": 0, "reward": r, "discount": 1} for r in (0, 0, 0.5)]])
    with envlogger.Reader(tmp_path) as reader:
        columns = reader.episodes[0].columns(["reward", "discount"])
        assert_same(columns["reward"], np.array([0, 0, 0.5]))
        assert reader.steps[1].timestep.reward == 0
        assert type(reader.steps[1].timestep.reward) is int


def test_the_caller_may_name_the_episodes(tmp_path):
    _write(tmp_path, [[{"observation": 1}]] * 2, [{"episode_id": "№ 7"}, None])
    ids = [episode["episode_id"].decode() for episode in helpers.data_source(tmp_path)]
    assert ids[0] == "№ 7"
    assert ids[1].endswith("-000000001")


class TestSteps:
    """What may be given as steps, and what may not."""

    GOOD = [{"observation": {"x": np.zeros(3)}, "action": 1, "text": "a"}] * 2

    def test_an_episode_of_rlds(self, tmp_path):
        _write(tmp_path, [{"steps": self.GOOD, "episode_metadata": {"file_path": "a"}}])
        assert len(helpers.read(tmp_path)[0]) == 2
        assert helpers.read_metadata(tmp_path) == [{"episode_metadata": {"file_path": "a"}}]

    def test_a_dataset_of_tensors(self, tmp_path):
        import tensorflow as tf

        steps = tf.data.Dataset.from_tensor_slices(
            {
                "observation": tf.range(4.0),
                "is_first": [True, False, False, False],
                "t": list("abcd"),
            }
        )
        _write(tmp_path, [{"steps": steps}])
        with envlogger.Reader(tmp_path) as reader:
            columns = reader.episodes[0].columns()
        assert_same(columns["observation"], np.arange(4, dtype=np.float32))
        assert columns["t"].tolist() == [b"a", b"b", b"c", b"d"]

    @pytest.mark.parametrize(
        ("steps", "metadata", "error", "parts"),
        [
            ([], None, errors.OptionError, ["steps: got none"]),
            ([1], None, errors.UnsupportedValueError, ["got a step of type int", "step 0"]),
            ({"step": []}, None, errors.OptionError, ["a dict without 'steps' (step)"]),
            ({"steps": GOOD, "a": 1}, {"b": 1}, errors.OptionError, ["metadata", "one place"]),
            (
                [*GOOD, {**GOOD[0], "action": 0.5}],
                None,
                errors.ValueMismatchError,
                ["action: got float64", "expected int64", "step 2 of the episode"],
            ),
            (
                [{**GOOD[0], "observation": {"x": np.zeros(4)}}],
                None,
                errors.ValueMismatchError,
                ["observation/x: got float64 of shape (4,)", "expected float64 of shape (3,)"],
            ),
            (
                [*GOOD, {**GOOD[0], "observation": {}}],
                None,
                errors.ValueMismatchError,
                ["observation", "missing: observation/x"],
            ),
            (
                [*GOOD, {**GOOD[0], "deep": {"odd": object()}}],
                None,
                errors.UnsupportedValueError,
                ["deep/odd: got builtins.object", "step 2"],
            ),
            ([{**GOOD[0], "present": 1}], None, errors.NameConflictError, ["present", "a step"]),
            (GOOD, {"steps": 1}, errors.NameConflictError, ["steps", "an episode"]),
            (GOOD, {"odd": {1.5: 2}}, errors.NameConflictError, ["odd", "1.5", "metadata"]),
            (GOOD, {"episode_id": 7}, errors.ValueMismatchError, ["episode_id: got int64"]),
            (
                [{**GOOD[0], "is_last": True}, GOOD[0]],
                None,
                errors.ValueMismatchError,
                ["is_last", "last step alone", "step 1"],
            ),
            (
                [GOOD[0], {**GOOD[0], "is_first": True}],
                None,
                errors.ValueMismatchError,
                ["is_first", "first step alone", "step 1"],
            ),
            (
                [{**GOOD[0], "is_terminal": True, "is_last": False}],
                None,
                errors.ValueMismatchError,
                ["is_terminal: got True in a step whose is_last is False"],
            ),
            (
                [{**GOOD[0], "is_first": 0.5}],
                None,
                errors.ValueMismatchError,
                ["is_first: got float64 of shape ()", "expected a bool"],
            ),
        ],
    )
    def test_bad_ones_are_refused_and_leave_no_trace(self, tmp_path, steps, metadata, error, parts):
        with EpisodeWriter(tmp_path, helper=False) as writer:
            writer.add_episode(self.GOOD, {"ok": True})
            before = writer._session._recorder.schema.copy()
            with pytest.raises(error) as raised:
                writer.add_episode(steps, metadata)
            assert writer._session._recorder.schema == before
            writer.add_episode(self.GOOD, {"ok": True})
        helpers.check_message(raised, *parts)
        assert [len(episode) for episode in helpers.read(tmp_path)] == [2, 2]
        assert helpers.read_metadata(tmp_path) == [{"ok": True}] * 2

    def test_what_was_refused_says_nothing_of_the_features(self, tmp_path):
        with EpisodeWriter(tmp_path, helper=False) as writer:
            with pytest.raises(errors.UnsupportedValueError):
                writer.add_episode([{"observation": np.zeros(3), "a": 1, "b": object()}], {"m": 1})
            writer.add_episode([{"observation": {"x": np.zeros(4)}}])
        features = (tmp_path / "features.json").read_text()
        assert not {'"a"', '"b"', '"m"'} & set(features.split())
        assert len(helpers.read(tmp_path)) == 1

    def test_an_episode_within_an_episode_is_refused(self, tmp_path):
        with EpisodeWriter(tmp_path, helper=False) as writer:
            writer.add_step(self.GOOD[0])
            with pytest.raises(errors.OptionError, match=r"under way.*1 steps.*end_episode"):
                writer.add_episode(self.GOOD)
            with pytest.raises(errors.OptionError, match="no step has been added"):
                writer.end_episode() or writer.end_episode()
        assert [len(episode) for episode in helpers.read(tmp_path)] == [1]

    def test_nothing_goes_into_a_closed_writer(self, tmp_path):
        writer = EpisodeWriter(tmp_path, helper=False)
        writer.add_episode(self.GOOD)
        writer.close()
        writer.close()
        for add in (lambda: writer.add_episode(self.GOOD), lambda: writer.add_step(self.GOOD[0])):
            with pytest.raises(errors.EnvLoggerError, match="closed"):
                add()
        assert len(helpers.read(tmp_path)) == 1


class TestOneDirectory:
    STEPS = tuple({"observation": np.arange(3.0) + t, "action": t, "reward": 1.0} for t in range(3))

    def test_splits_versions_and_names(self, tmp_path):
        with (
            EpisodeWriter(tmp_path, split_name="train", version="1.2.0", dataset_name="my") as one,
            EpisodeWriter(tmp_path, split_name="val", version="1.2.0", dataset_name="my") as other,
        ):
            for writer in (one, other, one):
                writer.add_episode(self.STEPS)
        assert [len(helpers.read(tmp_path, split)) for split in ("train", "val")] == [2, 1]
        info = json.loads((tmp_path / "dataset_info.json").read_text())
        assert (info["name"], info["version"]) == ("my", "1.2.0")

    def test_it_appends_unless_it_is_to_overwrite(self, tmp_path):
        _write(tmp_path, [self.STEPS], overwrite=True)
        _write(tmp_path, [self.STEPS], overwrite=False)
        with pytest.raises(errors.OptionError, match=r"overwrite: got True.*nothing is ever"):
            EpisodeWriter(tmp_path, overwrite=True)
        with (
            EpisodeWriter(tmp_path, helper=False) as writer,
            pytest.raises(errors.ValueMismatchError, match=r"observation: got float64 of shape"),
        ):
            writer.add_episode([{"observation": np.zeros(4)}])
        assert len(helpers.read(tmp_path)) == 2

    def test_beside_the_wrapper_and_with_features_that_come_late(self, tmp_path):
        def play(step_fn):
            with envlogger.EnvLogger(
                catch_env.Catch(rows=3, columns=2),
                step_fn=step_fn,
                data_directory=tmp_path,
                helper=False,
            ) as env:
                env.reset()
                return [env.step(1), env.step(1)]

        board = np.ones((3, 2), np.float32)
        steps = [
            {"observation": board, "action": 7, "reward": 0.5, "discount": 1.0, "at": t}
            for t in range(2)
        ]
        bare = [{"observation": board, "action": 3}]
        _write(tmp_path, [bare])
        play(None)
        _write(tmp_path, [steps], [{"late": "x"}])
        play(lambda *_: {"later": 1})
        with envlogger.Reader(tmp_path) as reader:
            columns = [episode.columns() for episode in reader.episodes]
            assert reader.episode_metadata()[2] == {"late": "x"}
            assert_same(list(reader.episodes[2])[1].timestep.reward, 0.5)
        present = [column["present"] for column in columns]
        assert [column["action"].tolist() for column in columns] == [
            [3],
            [1, 1, 0],
            [7, 7],
            [1, 1, 0],
        ]
        assert present[0]["reward"].tolist() == [False]
        assert present[0]["later"].tolist() == [False]
        assert present[1]["reward"].tolist() == [True, True, False]
        assert present[2]["reward"].tolist() == [True, True]
        assert present[3]["at"].tolist() == [False] * 3

    def test_an_action_that_comes_late_is_there_to_the_end(self, tmp_path):
        """The masks that earlier shards get say of each record how it is aligned."""
        _write(tmp_path, [[{"observation": 1, "reward": 1.0}] * 2], max_episodes_per_file=1)
        _write(tmp_path, [[{"observation": 1, "action": 2}] * 2])
        with envlogger.Reader(tmp_path) as reader:
            present = [episode.columns(["present"])["present"] for episode in reader.episodes]
        assert [p["reward"].tolist() for p in present] == [[True, True], [False, False]]
        assert [p["action"].tolist() for p in present] == [[False, False], [True, True]]


class TestGivenFeatures:
    STEPS = _robot_steps(5, 3)

    def _features(self, **extra: Any) -> Any:
        import tensorflow_datasets as tfds

        f = tfds.features
        step = {
            "observation": f.FeaturesDict(
                {
                    "image": f.Image(shape=(12, 16, 3), dtype=np.uint8, encoding_format="jpeg"),
                    "wrist_image": f.Image(shape=(8, 8, 3), dtype=np.uint8, encoding_format="png"),
                    "proprio": {
                        "joints": f.Tensor(shape=(7,), dtype=np.float64),
                        "gripper": f.Scalar(dtype=np.float32),
                    },
                }
            ),
            "action": f.Tensor(shape=(7,), dtype=np.float32, doc="Joint velocities."),
            "reward": f.Scalar(dtype=np.float32),
            "discount": f.Scalar(dtype=np.float32),
            "is_first": f.Scalar(dtype=np.bool_),
            "is_last": f.Scalar(dtype=np.bool_),
            "is_terminal": f.Scalar(dtype=np.bool_),
            "language_instruction": f.Text(),
            "language_embedding": f.Tensor(shape=(8,), dtype=np.float32),
            **extra,
        }
        about = f.FeaturesDict({"file_path": f.Text(), "operator": {"id": f.Scalar(np.int64)}})
        return f.FeaturesDict({"steps": f.Dataset(step), "episode_metadata": about})

    def test_those_of_a_builder(self, tmp_path):
        _write(tmp_path, [self.STEPS], [_robot_metadata(5)], features=self._features())
        (episode,) = helpers.tf_episodes(tmp_path)
        for step, values in zip(episode["steps"], self.STEPS, strict=True):
            assert step["observation"]["image"].shape == (12, 16, 3)  # JPEG: not the same bits
            wrist = values["observation"]["wrist_image"]
            assert_same(step["observation"]["wrist_image"], wrist)
            joints = values["observation"]["proprio"]["joints"]
            assert_same(step["observation"]["proprio"]["joints"], joints)
            assert_same(step["action"], values["action"])
        text = (tmp_path / "features.json").read_text()
        assert "Joint velocities." in text
        assert '"encodingFormat": "jpeg"' in text

    def test_what_they_lack_is_refused(self, tmp_path):
        with EpisodeWriter(tmp_path, features=self._features(), helper=False) as writer:
            with pytest.raises(errors.ValueMismatchError) as raised:
                writer.add_episode([{**self.STEPS[0], "more": 1}])
            writer.add_episode(self.STEPS, _robot_metadata(5))
        helpers.check_message(raised, "more: got a value", "features", "step 0")
        assert [len(episode) for episode in helpers.read(tmp_path)] == [3]

    def test_those_that_are_none_are_refused(self, tmp_path):
        import tensorflow_datasets as tfds

        for features, message in (
            ({"steps": {}}, "features: got dict"),
            (tfds.features.FeaturesDict({"a": np.int64}), "features: got FeaturesDict"),
            (self._features(is_first=tfds.features.Scalar(np.int64)), "steps/is_first: got int64"),
        ):
            with pytest.raises(errors.OptionError, match=message):
                EpisodeWriter(tmp_path / "new", features=features)
        with pytest.raises(errors.OptionError, match="one of the two"):
            EpisodeWriter(tmp_path / "new", ds_config=object(), features=self._features())
        with pytest.raises(errors.NameConflictError, match="present"):
            EpisodeWriter(tmp_path / "new", features=self._features(present=np.bool_))
        assert not (tmp_path / "new").exists()


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
