# SPDX-License-Identifier: Apache-2.0
"""The same dataset in ArrayRecord and in TFRecord, of which TFDS's own reader is the oracle for order."""

from __future__ import annotations

import array_records
import pytest
import tensorflow_datasets as tfds


@pytest.fixture(scope="module")
def shard_lengths():
    """How many episodes each shard has; a module may say it anew."""
    return array_records.SHARD_LENGTHS


@pytest.fixture(scope="module")
def directories(tmp_path_factory, shard_lengths):
    root = tmp_path_factory.mktemp("datasets")
    return {
        file_format: array_records.write(
            root / file_format / "toy" / "1.0.0", file_format, shard_lengths
        )
        for file_format in ("array_record", "tfrecord")
    }


@pytest.fixture(scope="module")
def builder(directories):
    return tfds.builder_from_directory(directories["array_record"])


@pytest.fixture(scope="module")
def oracle(directories):
    return tfds.builder_from_directory(directories["tfrecord"])
