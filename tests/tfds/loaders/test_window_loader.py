# SPDX-License-Identifier: Apache-2.0
"""Windows, against their numbers by plain Python; and how they come."""

from __future__ import annotations

import warnings

import numbered
import numpy as np
import pytest
import tf_reading

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow as tf
    import tensorflow_datasets as tfds

import envlogger.tfds

F = tfds.features
Shuffle = envlogger.tfds.Shuffle


def _expected_windows(length, stride, pad):
    return [
        [100 * i + t for t in range(num_steps)[window]]
        for i, num_steps in enumerate(numbered.LENGTHS)
        for window in numbered.windows(num_steps, length, stride, pad)
    ]


@pytest.mark.parametrize(
    ("length", "stride", "pad", "batch_size"),
    [
        *[(1, None, False, None), (1, 4, True, 7), (20, None, False, 7), (20, 3, True, None)],
        *[(3, stride, pad, None) for stride in (None, 1) for pad in (False, True)],
        *[(3, stride, pad, 7) for stride in (2, 4) for pad in (False, True)],
    ],
)
def test_windows(directory, length, stride, pad, batch_size):
    dataset = envlogger.tfds.windows(
        directory,
        length=length,
        stride=stride,
        pad=pad,
        fields=["observation"],
        batch_size=batch_size,
        read_config=tf_reading.IN_ORDER,
    )

    if batch_size:
        dataset = dataset.unbatch()
    got = []
    for window in dataset:
        mask, ids = window["mask"].numpy(), window["observation"]["id"].numpy()
        assert mask.shape == ids.shape == (length,)
        assert not ids[~mask].any()
        assert not window["observation"]["x"].numpy()[~mask].any()
        got.append(ids[mask].tolist())
    assert got == _expected_windows(length, stride or length, pad)


@pytest.mark.parametrize("options", [{"interleave": 4}, {"shuffle": Shuffle(steps=50)}], ids=str)
@pytest.mark.parametrize("stride", [1, 5])
def test_windows_in_another_order(directory, stride, options):
    dataset = envlogger.tfds.windows(directory, length=3, stride=stride, pad=True, **options)

    got = [window["observation"]["id"].numpy()[window["mask"].numpy()] for window in dataset]

    expected = _expected_windows(3, stride, pad=True)
    got = [ids.tolist() for ids in got]
    assert sorted(got) == expected
    assert got != expected


def test_windows_of_long_episodes_come_in_blocks(tmp_path, monkeypatch):
    from envlogger.tfds.loaders import blocks

    monkeypatch.setattr(blocks, "_BLOCK_ELEMENTS", 7)
    path = numbered.write(tmp_path, [100])

    for stride in (1, 9):
        dataset = envlogger.tfds.windows(path, length=5, stride=stride, fields=["observation/id"])
        starts = [int(window["observation"]["id"][0]) for window in dataset]
        assert starts == list(range(0, 96, stride))


def test_only_images_of_windows_are_decoded(tmp_path):
    # All other images are none, so that it would show.
    step = {"image": F.Image(shape=(2, 2, 3))}
    image = np.full((2, 2, 3), 9, np.uint8)

    def make(item):
        return {"image": image if numbered.number_of(item) % 10 < 2 else b"no image"}

    path = numbered.write(tmp_path, [40], step=step, make=make)

    for shuffle in (None, Shuffle(steps=3)):
        windows = envlogger.tfds.windows(path, length=2, stride=10, shuffle=shuffle)
        assert [int(window["image"].numpy().min()) for window in windows] == [9] * 4
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(envlogger.tfds.steps(path))
