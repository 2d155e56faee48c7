# SPDX-License-Identifier: Apache-2.0
"""Datasets as other programs write them, by TFDS's own writer; and columns as it reads them."""

from __future__ import annotations

import warnings

import numpy as np
from helpers import flat

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    import tensorflow_datasets as tfds

F = tfds.features
FORMATS = ("array_record", "tfrecord")

_FLAGS = {"is_first": np.bool_, "is_last": np.bool_, "is_terminal": np.bool_}
RLDS = {
    "observation": {"x": F.Tensor(shape=(2,), dtype=np.float32)},
    "action": np.int32,
    "reward": np.float32,
    "discount": np.float32,
    **_FLAGS,
}


def write(path, step, episodes, file_format, episode=None, per_shard=2, splits=("train",)):
    """Writes dicts with TFDS's own writer; returns the directory."""
    info = _info(path, F.FeaturesDict({"steps": F.Dataset(step), **(episode or {})}))
    writer = tfds.core.SequentialWriter(info, per_shard, file_format=file_format)
    writer.initialize_splits(list(splits))
    for item in episodes:
        writer.add_examples({split: [item] for split in splits})
    writer.close_all()
    return path


def describe(path, features, file_format="array_record", shard_lengths=(1,)):
    """Writes what describes a dataset, but none of its shards; returns where these belong."""
    info = _info(path, features)
    info.set_file_format(file_format)
    template = tfds.core.ShardedFileTemplate(
        data_dir=path, dataset_name=info.name, split="train", filetype_suffix=file_format
    )
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=list(shard_lengths), num_bytes=0, filename_template=template
    )
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(path)
    return list(split.filepaths)


def _info(path, features):
    path.mkdir(parents=True, exist_ok=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="toy", version=tfds.core.Version("1.0.0"), data_dir=str(path), module_name=""
    )
    return tfds.core.DatasetInfo(builder=identity, features=features)


def _rlds_step(number, t, count):
    return {
        "observation": {"x": np.array([number, t], np.float32)},
        "action": 10 * number + t,
        "reward": np.float32(t / 3),
        "discount": np.float32(1),
        "is_first": t == 0,
        "is_last": t == count - 1,
        "is_terminal": t == count - 1,
    }


def rlds(lengths):
    return [
        {"steps": [_rlds_step(number, t, count) for t in range(count)]}
        for number, count in enumerate(lengths)
    ]


def write_shards(path):
    """Writes five episodes of 3, 1, 4, 2 and 5 steps into three TFRecord shards."""
    return write(path, RLDS, rlds([3, 1, 4, 2, 5]), "tfrecord")


def check_columns(columns, steps):
    """Compares columns with the steps that TFDS gives."""
    columns = flat(columns)
    assert columns.keys() == flat(steps[0]).keys()
    for path, column in columns.items():
        assert isinstance(column, np.ndarray)
        assert len(column) == len(steps)
        for row, step in zip(column, steps, strict=True):
            expected, row = _array(flat(step)[path]), _array(row)
            if not expected.size:  # TFDS gives an empty list
                assert not row.size
                continue
            assert row.dtype.kind == expected.dtype.kind or row.dtype == object
            assert row.shape == expected.shape, path
            assert row.tolist() == expected.tolist(), path


def _array(value):
    """Returns a value as an array that keeps NULs at the end of strings."""
    is_text = isinstance(value, bytes) or (isinstance(value, list) and bytes in map(type, value))
    return np.asarray(value, object if is_text else None)
