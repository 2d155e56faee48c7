# SPDX-License-Identifier: Apache-2.0
"""EpisodeWriter beside other writers of a directory, and with features that it is given."""

from __future__ import annotations

import json
from typing import Any

import helpers
import numpy as np
import pytest
import rlds_steps

import envlogger
from envlogger import errors
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same
from envlogger.tfds import EpisodeWriter


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
        rlds_steps.write(tmp_path, [self.STEPS], overwrite=True)
        rlds_steps.write(tmp_path, [self.STEPS], overwrite=False)
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
        rlds_steps.write(tmp_path, [bare])
        play(None)
        rlds_steps.write(tmp_path, [steps], [{"late": "x"}])
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
        rlds_steps.write(
            tmp_path, [[{"observation": 1, "reward": 1.0}] * 2], max_episodes_per_file=1
        )
        rlds_steps.write(tmp_path, [[{"observation": 1, "action": 2}] * 2])
        with envlogger.Reader(tmp_path) as reader:
            present = [episode.columns(["present"])["present"] for episode in reader.episodes]
        assert [p["reward"].tolist() for p in present] == [[True, True], [False, False]]
        assert [p["action"].tolist() for p in present] == [[False, False], [True, True]]


class TestGivenFeatures:
    STEPS = rlds_steps.robot_steps(5, 3)

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
        rlds_steps.write(
            tmp_path, [self.STEPS], [rlds_steps.robot_metadata(5)], features=self._features()
        )
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
            writer.add_episode(self.STEPS, rlds_steps.robot_metadata(5))
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
