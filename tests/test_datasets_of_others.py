# SPDX-License-Identifier: Apache-2.0
"""Datasets that other programs wrote, as Reader reads them; stock TFDS is the oracle."""

from __future__ import annotations

import itertools
import json
import shutil

import dm_env
import foreign
import helpers
import numpy as np
import pytest
import sample_datasets

import envlogger
from envlogger import errors
from envlogger.testing.comparison import assert_same

# --- the fields of RLDS ---------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", foreign.FORMATS)
@pytest.mark.parametrize("missing", [*foreign.RLDS, None])
def test_fields_that_are_not_there_are_none(tmp_path, missing, file_format):
    step = {key: value for key, value in foreign.RLDS.items() if key != missing}
    episodes = [
        {"steps": [{key: item[key] for key in step} for item in episode["steps"]]}
        for episode in foreign.rlds([3, 1])
    ]
    foreign.write(tmp_path, step, episodes, file_format)

    with envlogger.Reader(tmp_path) as reader:
        first, middle, last, single = reader.steps
        slots = [
            (s.timestep.observation, s.action, s.timestep.reward, s.timestep.discount)
            for s in (first, middle, last)
        ]
        assert missing not in reader.episodes[0].columns()
    kinds = [step.timestep.step_type for step in (first, middle, last, single)]
    assert kinds == [
        dm_env.StepType.FIRST,
        dm_env.StepType.MID,
        dm_env.StepType.LAST,
        dm_env.StepType.FIRST,
    ]
    expected = [
        (
            {"x": np.array([0, t], np.float32)},
            np.int32(t - 1),
            np.float32((t - 1) / 3),
            np.float32(1),
        )
        for t in range(3)
    ]
    expected[0] = (expected[0][0], None, None, None)
    names = ("observation", "action", "reward", "discount")
    assert_same(
        slots,
        [
            tuple(
                None if name == missing else value for name, value in zip(names, row, strict=True)
            )
            for row in expected
        ],
    )


def test_an_episode_that_goes_on_has_no_last_step(tmp_path):
    steps = [{"is_first": False, "is_last": False}] * 2
    foreign.write(
        tmp_path, {"is_first": np.bool_, "is_last": np.bool_}, [{"steps": steps}], "tfrecord"
    )

    with envlogger.Reader(tmp_path) as reader:
        assert [step.timestep.step_type for step in reader.steps] == [dm_env.StepType.MID] * 2


def test_a_dataset_without_steps(tmp_path):
    path = tmp_path / "1.0.0"
    foreign.write(path, foreign.RLDS, foreign.rlds([2]), "tfrecord")
    features = json.loads((path / "features.json").read_text())
    entries = features["featuresDict"]["features"]
    entries["frames"] = entries.pop("steps")
    (path / "features.json").write_text(json.dumps(features))

    with pytest.raises(errors.DatasetError) as raised:
        envlogger.Reader(path)

    helpers.check_message(raised, str(path / "features.json"), "'steps'", "not in RLDS form")


def test_episodes_without_steps(tmp_path):
    foreign.write(tmp_path, foreign.RLDS, [*foreign.rlds([2, 0, 3]), {"steps": []}], "tfrecord")

    with envlogger.Reader(tmp_path) as reader:
        assert [len(episode) for episode in reader.episodes] == [2, 0, 3, 0]
        assert len(list(reader.steps)) == 5
        assert reader.steps[2].timestep.observation["x"].tolist() == [2, 0]
        assert list(reader.episodes[1]) == []
        assert reader.episodes[1].columns()["observation"]["x"].shape == (0, 2)


# --- samples of other writers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "split"),
    [
        (sample_datasets.CATCH, "train"),
        (sample_datasets.OPENX, "train"),
        (sample_datasets.OPENX, "val"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.parent.name,
)
def test_what_other_programs_wrote(sample, split, tmp_path):
    path = shutil.copytree(sample, tmp_path / "copy")
    episodes = helpers.tf_episodes(path, split)

    with envlogger.Reader(path, split, cache_bytes=0) as reader:
        assert len(reader.episodes) == len(episodes)
        for number, episode in enumerate(episodes):
            columns, steps = reader.episodes[number].columns(), episode.pop("steps")
            if (
                "wrist_image" in columns["observation"]
            ):  # JPEG, which TensorFlow decodes less exactly
                found = columns["observation"].pop("wrist_image").astype(int)
                expected = [step["observation"].pop("wrist_image") for step in steps]
                assert np.abs(found - np.array(expected, int)).mean() < 2
            foreign.check_columns(columns, steps)
            found = helpers.flat(reader.episode_metadata()[number])
            assert found == helpers.flat(episode)


def test_a_tfds_log_of_envlogger_is_a_game_of_catch(tmp_path):
    path = shutil.copytree(sample_datasets.CATCH, tmp_path / "catch")

    with envlogger.Reader(path) as reader:
        assert (len(reader.episodes), len(reader.steps)) == (12, 120)
        for number, episode in enumerate(reader.episodes):
            kinds = [step.timestep.step_type for step in episode]
            assert kinds == [
                dm_env.StepType.FIRST,
                *[dm_env.StepType.MID] * 8,
                dm_env.StepType.LAST,
            ]
            assert episode[-1].timestep.reward in (-1.0, 1.0)
            assert episode[-1].timestep.discount == 0.0
            assert episode[0].action is None
            assert reader.episode_metadata()[number] == {"episode_id": number}
            # The paddle moves by the action beside it.
            for before, step in itertools.pairwise(episode[:-1]):
                paddles = [np.argmax(s.timestep.observation[-1]) for s in (before, step)]
                assert paddles[1] == np.clip(paddles[0] + step.action - 1, 0, 4)
