# SPDX-License-Identifier: Apache-2.0
"""Steps in the form of RLDS, as a robot's may be, and short ways to write them by EpisodeWriter."""

from __future__ import annotations

from typing import Any

import numpy as np

import envlogger
from envlogger.tfds import EpisodeWriter

FLAGS = ("is_first", "is_last", "is_terminal")


def robot_steps(seed: int, count: int) -> list[dict[str, Any]]:
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


def robot_metadata(seed: int) -> dict[str, Any]:
    """Returns the metadata of an episode of theirs."""
    return {"episode_metadata": {"file_path": f"raw/{seed}.npy", "operator": {"id": seed}}}


def write(path: Any, episodes: Any, metadata: Any = None, **kwargs: Any) -> None:
    """Writes episodes; this process seals them: starting another takes longer than most tests."""
    with EpisodeWriter(path, **{"helper": False, **kwargs}) as writer:
        for number, steps in enumerate(episodes):
            writer.add_episode(steps, None if metadata is None else metadata[number])


def values(step: dict[Any, Any]) -> dict[Any, Any]:
    """Returns a step without its flags."""
    return {key: value for key, value in step.items() if key not in FLAGS}


def flags(path: Any) -> list[list[tuple[bool, ...]]]:
    """Returns is_first, is_last and is_terminal of each step of each episode."""
    with envlogger.Reader(path) as reader:
        columns = [episode.columns(FLAGS) for episode in reader.episodes]
    return [
        list(zip(*(column[name].tolist() for name in FLAGS), strict=True)) for column in columns
    ]
