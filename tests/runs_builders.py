# SPDX-License-Identifier: Apache-2.0
"""Runs, builders over them as users write them, and what is in the files that they make."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import helpers
import numpy as np
import tensorflow_datasets as tfds

import envlogger.tfds
from envlogger.testing import catch_env
from envlogger.tfds import dataset, dataset_files, shard_files
from envlogger.tfds.building import episodes


def record_catch(
    path: pathlib.Path, seed: int, num_episodes: int = 10, **options: Any
) -> pathlib.Path:
    """Records Catch, with float64, strings and numbers of episodes in the metadata; returns the path."""
    rng = np.random.default_rng(seed)
    with envlogger.EnvLogger(
        catch_env.Catch(rows=5, columns=3, seed=seed),
        step_fn=lambda timestep, action, env: {"noise": rng.normal(), "text": f"{seed}"},
        episode_fn=lambda timestep, action, env: {"number": number},
        metadata={"agent": "random", "seed": seed},
        data_directory=str(path),
        max_episodes_per_file=4,
        session_id=f"run-{seed}",
        helper=False,
        **options,
    ) as env:
        for number in range(num_episodes):  # noqa: B007 (episode_fn reads it)
            helpers.play_whole(env, 1, lambda _: int(rng.integers(3)))
    return path


def record_runs(root: pathlib.Path) -> list[pathlib.Path]:
    """Records three runs, each as `record_catch` does; returns their paths."""
    paths = [root / f"robot_{seed}" / "catch" / "1.0.0" for seed in range(3)]
    return [record_catch(path, seed) for seed, path in enumerate(paths)]


@dataclasses.dataclass(eq=False, kw_only=True)
class RunsConfig(tfds.core.BuilderConfig):
    """Which runs."""

    name: str = "all"
    paths: tuple[str, ...]


class Runs(envlogger.tfds.LoggedRunsBuilder):
    """The least there is: sources."""

    VERSION = tfds.core.Version("1.0.0")

    def sources(self, dl_manager, scratch):
        return self.builder_config.paths


class SplitRuns(Runs):
    """Splits by fraction."""

    SPLITS = {"train": 0.6, "test": 0.4}  # noqa: RUF012 (as TFDS has it)


def halved(step: envlogger.StepData) -> envlogger.StepData:
    """Returns a step with half the reward."""
    timestep = step.timestep
    if timestep.reward is not None:
        timestep = timestep._replace(reward=np.float64(timestep.reward / 2))
    return step._replace(timestep=timestep)


class ChangedRuns(Runs):
    """All hooks but the one for splits: halves the rewards, leaves out each step with action 1."""

    def filter_episode(self, episode):
        return episode.metadata is None or episode.metadata.get("number") != 2

    def filter_step(self, step):
        return step.action is None or step.action != 1

    def map_step(self, step):
        return halved(step)

    def map_episode(self, episode):
        return dataclasses.replace(episode, metadata={"length": len(episode.steps)})


class MappedRuns(Runs):
    """Encodes all episodes, as they are."""

    def map_step(self, step):
        return step


class NothingRuns(Runs):
    """For hooks to be put in."""


class RuledRuns(Runs):
    """Leaves out the first episode of each run; a split for each run, by its metadata."""

    def filter_episode(self, episode):
        return episode.metadata["number"] > 0 and not episode.invalid

    def split_of(self, episode):
        assert len(episode.steps) == 5
        assert episode.steps[0].custom_data["text"] == str(episode.run_metadata["seed"])
        return f"seed_{episode.run_metadata['seed']}"


def build(
    kind: type[Runs], data_dir: pathlib.Path, paths: Iterable[Any], **options: Any
) -> pathlib.Path:
    """Builds the dataset of runs; returns its directory."""
    config = RunsConfig(paths=tuple(map(str, paths)))
    builder = kind(data_dir=str(data_dir), config=config)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**options))
    return pathlib.Path(builder.data_dir)


def records(directory: Any, split: str) -> list[bytes]:
    """Returns the records of a split, in order."""
    info = dataset.load(str(directory)).info
    return [
        record
        for index, length in enumerate(info.shard_lengths[split])
        for record in shard_files.read_all(
            str(pathlib.Path(directory, info.shard_name(split, index))), info.file_format, length
        )
    ]


def bare_features(directory: Any) -> Any:
    """Returns `features.json` without descriptions."""
    return json.loads(
        pathlib.Path(directory, dataset_files.FEATURES).read_text(), object_hook=_without_text
    )


def _without_text(node: dict[str, Any]) -> dict[str, Any]:
    return {
        key: item for key, item in node.items() if key != "description" or isinstance(item, dict)
    }


def by_id(directory: Any) -> dict[str, list[envlogger.StepData]]:
    """Returns the steps of all episodes by id."""
    with envlogger.Reader(str(directory)) as reader:
        logged = [list(episode) for episode in reader.episodes]
    splits = sorted(dataset.load(str(directory)).info.shard_lengths)
    ids = [episodes.identity(record) for split in splits for record in records(directory, split)]
    return dict(zip(ids, logged, strict=True))
