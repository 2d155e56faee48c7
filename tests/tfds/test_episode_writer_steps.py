# SPDX-License-Identifier: Apache-2.0
"""How EpisodeWriter takes episodes: their flags, step by step and whole ones; and what it refuses."""

from __future__ import annotations

from unittest import mock

import helpers
import numpy as np
import pytest
import rlds_steps

import envlogger
from envlogger import errors
from envlogger.testing.comparison import assert_same
from envlogger.tfds import EpisodeWriter, step_log


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
        assert rlds_steps.flags(tmp_path) == [of_three, of_three, [(True, True, False)]]

    @pytest.mark.parametrize("true", [True, np.True_, np.array(True), 1, np.uint8(1)])
    def test_they_are_kept_as_given(self, tmp_path, true):
        only = {"observation": 1, "is_first": true, "is_last": true, "is_terminal": true}
        parts = [{**step, "is_first": not true, "is_last": False} for step in self.STEPS]
        rlds_steps.write(tmp_path, [[only], parts])
        assert rlds_steps.flags(tmp_path) == [[(True, True, True)], [(False, False, False)] * 3]

    def test_a_terminal_step_is_the_last(self, tmp_path):
        end = {**self.STEPS[2], "is_terminal": True}
        with EpisodeWriter(tmp_path, helper=False) as writer:
            writer.add_episode([*self.STEPS[:2], end])
            for step in [*self.STEPS[:2], end, *self.STEPS[:2]]:
                writer.add_step(step)
        assert [episode[-1] for episode in rlds_steps.flags(tmp_path)] == [
            *[(False, True, True)] * 2,
            (False, True, False),
        ]

    def test_is_first_begins_an_episode(self, tmp_path):
        with EpisodeWriter(tmp_path, helper=False) as writer:
            for number in range(5):
                writer.add_step({"observation": number, "is_first": number in (0, 3)})
        assert [len(episode) for episode in helpers.read(tmp_path)] == [3, 2]
        assert [episode[-1] for episode in rlds_steps.flags(tmp_path)] == [(False, True, False)] * 2


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
        assert rlds_steps.flags(tmp_path) == [[(True, False, False), (False, True, False)]]

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
        steps = rlds_steps.robot_steps(3, 40)
        with (
            mock.patch.object(step_log, "EPISODE_BYTES", 8 << 10),
            EpisodeWriter(tmp_path, helper=False) as writer,
        ):
            for step in steps:
                writer.add_step(step)
            writer.end_episode()
            writer.add_episode([rlds_steps.values(step) for step in steps])
        with envlogger.Reader(tmp_path) as reader:
            parts = [episode.columns(["action", *rlds_steps.FLAGS]) for episode in reader.episodes]
        actions = np.stack([step["action"] for step in steps])
        assert_same(np.concatenate([p["action"] for p in parts]), np.concatenate([actions] * 2))
        assert len(parts) > 4
        assert sum(int(part["is_first"].sum()) for part in parts) == 2
        assert sum(int(part["is_terminal"].sum()) for part in parts) == 1
        assert all(part["is_last"].tolist()[-1] for part in parts)


class TestSteps:
    """What may be given as steps, and what may not."""

    GOOD = [{"observation": {"x": np.zeros(3)}, "action": 1, "text": "a"}] * 2

    def test_an_episode_of_rlds(self, tmp_path):
        rlds_steps.write(tmp_path, [{"steps": self.GOOD, "episode_metadata": {"file_path": "a"}}])
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
        rlds_steps.write(tmp_path, [{"steps": steps}])
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
