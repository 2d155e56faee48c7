# SPDX-License-Identifier: Apache-2.0
"""Runs the example, and reads what it wrote as projects read Open X-Embodiment data."""

from __future__ import annotations

import importlib.util
import json

import cv2
import numpy as np
import programs
import pytest

import envlogger
from envlogger.testing.comparison import assert_same


@pytest.fixture(scope="module")
def example():
    path = programs.EXAMPLES / "write_episodes.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    place = tmp_path_factory.mktemp("robot")
    result = programs.run("write_episodes.py", "--num_episodes=2", "--encoding=png", cwd=place)
    lines = result.stdout.splitlines()
    assert lines[0] == "Wrote 2 episodes per split to data/pick_and_place/1.0.0"
    assert lines[1].startswith("Read ")
    assert lines[2].endswith(", 96, 128, 3)")
    return place / "data"


@pytest.mark.parametrize("split", ["train", "val"])
def test_trajectories_are_what_was_parsed(example, data_dir, split):
    found = list(example.load(str(data_dir), split).as_numpy_iterator())
    paths = example.raw_episodes(split, 2)
    assert len(found) == len(paths)
    for trajectory, path in zip(found, paths, strict=True):
        steps = list(example.parse(path))
        assert trajectory["metadata"]["file_path"] == path.encode()
        for name in ("image", "wrist_image", "state"):
            expected = np.stack([step["observation"][name] for step in steps])
            assert_same(trajectory["observation"][name], expected)
        assert_same(trajectory["action"], np.stack([step["action"] for step in steps]))
        for name, dtype in (("reward", "f4"), ("discount", "f4"), ("is_last", "?")):
            assert_same(trajectory[name], np.array([step[name] for step in steps], dtype))
        texts = [step["language_instruction"].encode() for step in steps]
        assert trajectory["language_instruction"].tolist() == texts


def test_the_features_are_what_the_builder_says(example, data_dir):
    from google.protobuf import json_format

    path = data_dir / "pick_and_place" / "1.0.0" / "features.json"
    written = json.loads(path.read_text())["featuresDict"]["features"]
    given = json_format.MessageToDict(example.features("png").to_proto())
    given = given["featuresDict"]["features"]

    def leaves(node):
        """Returns class, dtype and shape of each leaf; not how it is described or encoded."""
        if "sequence" in node:
            return leaves(node["sequence"]["feature"])
        if "featuresDict" in node:
            return {k: leaves(item) for k, item in node["featuresDict"]["features"].items()}
        detail = node.get("image") or node.get("tensor") or {"dtype": "string"}
        return node.get("image"), detail["dtype"], detail.get("shape", {}).get("dimensions", [])

    for name in ("steps", "episode_metadata"):
        assert leaves(written[name]) == leaves(given[name])
    assert "7 joints, 1 gripper." in path.read_text()


def test_jpeg_and_metadata_for_each_step(example, tmp_path):
    """As dlimp has it, by which Octo and OpenVLA read: metadata is repeated for each step."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    directory = tmp_path / "pick_and_place" / "1.0.0"
    example.write(directory, 1, "jpeg")
    example.write(directory, 1, "jpeg")

    def broadcast(episode):
        steps = episode.pop("steps")
        count = tf.shape(tf.nest.flatten(steps)[0])[0]
        return {**steps, "about": tf.nest.map_structure(lambda x: tf.repeat(x, count), episode)}

    builder = tfds.builder("pick_and_place", data_dir=str(tmp_path))
    raw = builder.as_dataset(split="train", decoders={"steps": tfds.decode.SkipDecoding()})
    found = list(raw.map(broadcast).as_numpy_iterator())
    decoded = list(example.load(str(tmp_path), "train").as_numpy_iterator())
    assert len(found) == len(decoded) == 2
    steps = list(example.parse(example.raw_episodes("train", 1)[0]))
    for trajectory, images in zip(found, decoded, strict=True):
        assert trajectory["about"]["episode_metadata"]["file_path"].shape == (len(steps),)
        encoded = trajectory["observation"]["image"]
        assert all(data.startswith(b"\xff\xd8") for data in encoded)
        for data, image, step in zip(encoded, images["observation"]["image"], steps, strict=True):
            bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            assert np.abs(bgr[..., ::-1].astype(int) - image).max() <= 2  # another decoder
            error = np.abs(step["observation"]["image"].astype(int) - image).mean()
            assert 0 < error < 40
    with envlogger.Reader(directory, "val") as reader:
        assert reader.metadata() == {"robot": "made up"}
        assert len(reader.episodes) == 2


def test_no_episodes_are_refused(tmp_path):
    result = programs.run("write_episodes.py", "--num_episodes=0", cwd=tmp_path, status=2)
    assert "--num_episodes: got 0, expected at least 1" in result.stderr
    assert result.stdout == ""
