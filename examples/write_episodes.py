# SPDX-License-Identifier: Apache-2.0
"""Makes a dataset in the form of Open X-Embodiment, and reads it as training code for such data does.

    python examples/write_episodes.py --num_episodes=20 --data_dir=data

Two cameras, proprioception, a language instruction, and nested metadata of the episode. The raw episodes
are made up here; put your own in the place of `raw_episodes`. Run it again and it appends.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

import envlogger
import envlogger.tfds

NAME, VERSION = "pick_and_place", "1.0.0"
SPLITS = ("train", "val")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes and reads as the command line says."""
    parser = argparse.ArgumentParser(description="Makes a dataset of robot demonstrations.")
    parser.add_argument(
        "--num_episodes", type=int, default=10, help="how many to make per split (%(default)s)"
    )
    parser.add_argument(
        "--encoding", choices=["jpeg", "png"], default="jpeg", help="of the images (%(default)s)"
    )
    parser.add_argument("--data_dir", default="data", help="where datasets are (%(default)s)")
    args = parser.parse_args(argv)
    if args.num_episodes < 1:
        parser.error(f"--num_episodes: got {args.num_episodes}, expected at least 1")

    directory = pathlib.Path(args.data_dir) / NAME / VERSION
    try:
        write(directory, args.num_episodes, args.encoding)
    except envlogger.errors.EnvLoggerError as error:
        sys.exit(f"error: {error}")
    print(f"Wrote {args.num_episodes} episodes per split to {directory}")
    for split in SPLITS:
        num_steps = 0
        for trajectory in load(args.data_dir, split).as_numpy_iterator():
            num_steps += len(trajectory["action"])
        image = trajectory["observation"]["image"]
        print(f"Read {num_steps} steps of {split}, the last images {image.dtype}{image.shape}")


def features(encoding: str) -> tfds.features.FeaturesDict:
    """Returns what a dataset builder has in its `_info`.

    Args:
      encoding: How images are stored: "jpeg", as most such datasets have them, or "png" (lossless).
    """
    f = tfds.features
    step = {
        "observation": f.FeaturesDict(
            {
                "image": f.Image(shape=(96, 128, 3), dtype=np.uint8, encoding_format=encoding),
                "wrist_image": f.Image(shape=(64, 64, 3), dtype=np.uint8, encoding_format=encoding),
                "state": f.Tensor(shape=(8,), dtype=np.float32, doc="7 joints, 1 gripper."),
            }
        ),
        "action": f.Tensor(
            shape=(7,), dtype=np.float32, doc="End effector: 6 velocities, gripper."
        ),
        "reward": f.Scalar(dtype=np.float32, doc="1 at the end of a success."),
        "discount": f.Scalar(dtype=np.float32),
        "is_first": f.Scalar(dtype=np.bool_),
        "is_last": f.Scalar(dtype=np.bool_),
        "is_terminal": f.Scalar(dtype=np.bool_),
        "language_instruction": f.Text(),
    }
    about = f.FeaturesDict({"file_path": f.Text(doc="Where the raw data was.")})
    return f.FeaturesDict({"steps": f.Dataset(step), "episode_metadata": about})


def write(directory: pathlib.Path, num_episodes: int, encoding: str) -> None:
    """Writes the raw episodes of all splits."""
    for split in SPLITS:
        with envlogger.tfds.EpisodeWriter(
            directory, split_name=split, features=features(encoding), metadata={"robot": "made up"}
        ) as writer:
            for path in tqdm.tqdm(raw_episodes(split, num_episodes), split, disable=None):
                writer.add_episode(parse(path), {"episode_metadata": {"file_path": path}})


def raw_episodes(split: str, num_episodes: int) -> list[str]:
    """Returns the names of the raw episodes of a split."""
    return [f"raw/{split}/episode_{number}.npy" for number in range(num_episodes)]


def parse(path: str) -> Iterator[dict[str, Any]]:
    """Yields the steps of a raw episode; a step is stored before the next one is asked for."""
    rng = np.random.default_rng(list(path.encode()))
    length = int(rng.integers(10, 20))
    scene, hand = (rng.integers(0, 256, shape, np.uint8) for shape in ((6, 8, 3), (4, 4, 3)))
    for t in range(length):
        is_last = t == length - 1
        yield {
            "observation": {
                "image": np.roll(scene, t, axis=1).repeat(16, axis=0).repeat(16, axis=1),
                "wrist_image": np.roll(hand, t, axis=0).repeat(16, axis=0).repeat(16, axis=1),
                "state": rng.normal(size=8).astype(np.float32),
            },
            "action": rng.normal(size=7).astype(np.float32),
            "reward": float(is_last),
            "discount": 1.0,
            "is_first": t == 0,
            "is_last": is_last,
            "is_terminal": is_last,
            "language_instruction": "put the cup on the plate",
        }


def load(data_dir: str, split: str) -> Any:
    """Returns the trajectories of a split as a `tf.data.Dataset`.

    Images are decoded last, by `tf.io.decode_image`, so that whatever drops or shuffles steps before
    deals with small strings.
    """
    import tensorflow as tf

    def with_images(episode: Any) -> Any:
        steps = episode["steps"]
        observation = dict(steps["observation"])
        for name in ("image", "wrist_image"):
            observation[name] = tf.map_fn(
                lambda data: tf.io.decode_image(data, channels=3, expand_animations=False),
                observation[name],
                fn_output_signature=tf.TensorSpec((None, None, 3), tf.uint8),
            )
        return {**steps, "observation": observation, "metadata": episode["episode_metadata"]}

    builder = tfds.builder(f"{NAME}:{VERSION}", data_dir=data_dir)
    raw = builder.as_dataset(split=split, decoders={"steps": tfds.decode.SkipDecoding()})
    return raw.map(with_images, num_parallel_calls=tf.data.AUTOTUNE)


if __name__ == "__main__":
    main()
