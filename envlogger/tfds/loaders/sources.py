# SPDX-License-Identifier: Apache-2.0
"""From what the caller names (a directory, a builder, a list of them) to serialized episodes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters
from tensorflow_datasets.core import reader as tfds_reader

from envlogger import errors
from envlogger.tfds import dataset_files
from envlogger.tfds.loaders.shuffling import Shuffle

# A version directory, a tfds.core.DatasetBuilder, or several of them.
Source: TypeAlias = Any
Dataset: TypeAlias = Any  # tf.data.Dataset
Features: TypeAlias = Any  # tfds.features.FeatureConnector

STEPS = "steps"
RECORD = "record"

# How many episodes are parsed by one call: as many as come to this size on disk, but at most 64. A
# call takes some 0.2 ms whatever it parses, and an episode of Catch (600 bytes) 0.01 ms more.
_CHUNK_BYTES = 128 << 10
_CHUNK_EPISODES = 64
_SAMPLED_FILES = 8


@dataclasses.dataclass(frozen=True)
class Part:
    """One dataset of a source, and which of its episodes are read.

    Attributes:
      builder: A `tfds.core.DatasetBuilder`.
      where: Its directory, for messages.
      split: A `tfds.core.SplitInfo`, or one of its kin that stand for slices.
    """

    builder: Any
    where: str
    split: Any

    @property
    def features(self) -> Features:
        """The features of an episode."""
        return self.builder.info.features

    @property
    def step_features(self) -> Features:
        """The features of a step."""
        return self.features[STEPS].feature


def open_source(source: Source, split: Any, loader: str) -> list[Part]:
    """Returns the datasets that `source` names.

    Args:
      source: As the loaders take it.
      split: A split, a slice of one, or several joined by `+`; as `tfds.load` takes them.
      loader: The function that asks, for messages.

    Raises:
      OptionError: The source is of no kind that is known, or there is no such split or it is empty.
      DatasetError: A directory is not a dataset, or one that is not in RLDS form.
      CorruptDatasetError: What describes the dataset is damaged.
    """
    if isinstance(source, list | tuple):
        if not source:
            raise errors.OptionError(
                f"{loader}: got an empty list of datasets, expected at least one."
            )
        return [part for item in source for part in open_source(item, split, loader)]
    builder = _builder(source, loader)
    where = os.fspath(builder.data_path)
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict) or STEPS not in features:
        raise errors.DatasetError(
            f"{where}: the dataset has no nested feature 'steps', so it is not in RLDS form. "
            "Read it with tfds.load or tfds.data_source."
        )
    steps = features[STEPS]
    if not isinstance(steps, tfds.features.Sequence) or not isinstance(
        steps.feature, tfds.features.FeaturesDict
    ):
        raise errors.DatasetError(
            f"{where}: got steps of {steps}, expected a tfds.features.Dataset of a dict, as RLDS "
            "has it. Read it with tfds.load or tfds.data_source."
        )
    return [Part(builder, where, _split(builder, split, where))]


def _builder(source: Source, loader: str) -> Any:
    if isinstance(source, tfds.core.DatasetBuilder):
        return source
    if not isinstance(source, str | os.PathLike):
        raise errors.OptionError(
            f"{loader}: got a {type(source).__name__}, expected the directory of a dataset, a "
            "tfds.core.DatasetBuilder, or a list of them."
        )
    path = os.path.expanduser(os.fspath(source))
    if not tf.io.gfile.exists(os.path.join(path, "dataset_info.json")):
        raise dataset_files.not_a_dataset(path)
    try:
        return tfds.builder_from_directory(path)
    except ImportError:  # of a feature's class
        raise
    except Exception as error:  # TFDS raises whatever its JSON parsers do
        raise errors.CorruptDatasetError(
            f"{path}: TFDS cannot read dataset_info.json or features.json: {error}. Restore them "
            "from a copy."
        ) from error


def _split(builder: Any, split: Any, where: str) -> Any:
    splits = builder.info.splits
    known = ", ".join(map(repr, sorted(splits))) or "none"
    try:
        if not isinstance(split, str | tfds.core.ReadInstruction):
            raise TypeError("neither a string nor a tfds.core.ReadInstruction")
        info = splits[split]
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise errors.OptionError(
            f"split: got {split!r}, expected one of the splits of {where} ({known}), or a slice "
            f"of one, such as 'train[:80%]': {reason}."
        ) from error
    if not info.num_examples:
        raise errors.OptionError(
            f"split: got {split!r}, which holds no episode of {where}. Make the slice larger."
        )
    return info


def read_records(
    parts: Sequence[Part], shuffle: Shuffle, read_config: Any, adapter: Any = None
) -> Dataset:
    """Returns the serialized episodes: a dataset of dicts of `record` (and `tfds_id`, if asked for).

    Args:
      parts: What to read.
      shuffle: Whether to shuffle files and episodes.
      read_config: A `tfds.ReadConfig`.
      adapter: What makes datasets of files, in place of TFDS's adapter of their format.
    """
    if shuffle.seed is not None and read_config.shuffle_seed is None:
        read_config = read_config.replace(shuffle_seed=shuffle.seed)
    datasets = [_read_part(part, shuffle.files, read_config, adapter) for part in parts]
    dataset = datasets[0]
    if len(datasets) > 1 and shuffle.files:
        counts = [float(part.split.num_examples) for part in parts]
        dataset = tf.data.Dataset.sample_from_datasets(
            datasets,
            [count / sum(counts) for count in counts],
            seed=read_config.shuffle_seed,
            rerandomize_each_iteration=True,
        )
    else:
        for other in datasets[1:]:
            dataset = dataset.concatenate(other)
    if shuffle.episodes:
        dataset = dataset.shuffle(shuffle.episodes, seed=shuffle.seed)
    return dataset


class _RecordReader(tfds_reader.Reader):  # type: ignore[misc]
    """TFDS's reader of files, without its parser: gives the records as they are.

    It is the reader that `as_dataset` uses, and so does all that `tfds.ReadConfig` can ask for.
    """

    def __init__(self, file_format: Any, adapter: Any) -> None:
        super().__init__(example_specs={}, file_format=file_format)
        self._parser = self
        self._adapter = adapter

    def parse_example(self, record: Any) -> dict[str, Any]:
        """Stands in for the parser."""
        return {RECORD: record}

    def read_files(self, *args: Any, **kwargs: Any) -> Dataset:
        """Returns the records of files, as TFDS's reader does."""
        if self._adapter is None:
            return super().read_files(*args, **kwargs)
        # TFDS looks it up while it makes the dataset, and not later.
        self._file_format = object()
        file_adapters.ADAPTER_FOR_FORMAT[self._file_format] = self._adapter
        try:
            return super().read_files(*args, **kwargs)
        finally:
            del file_adapters.ADAPTER_FOR_FORMAT[self._file_format]


def _read_part(part: Part, shuffle_files: bool, read_config: Any, adapter: Any) -> Dataset:
    info = part.builder.info
    # Without threads of its own for a map that does nothing: they cost 10 µs a record.
    read_config = read_config.replace()
    read_config.num_parallel_calls_for_decode = None
    reader = _RecordReader(read_config.file_format or info.file_format, adapter)
    return reader.read_files(
        part.split.file_instructions,
        read_config=read_config,
        shuffle_files=shuffle_files,
        disable_shuffling=info.disable_shuffling,
    )


def chunk_size(parts: Sequence[Part], interleave: int) -> int:
    """Returns how many episodes to parse at a time: a multiple of `interleave`.

    Raises:
      CorruptDatasetError: A shard is missing.
    """
    sizes = []
    for part in parts:
        for file in part.split.file_instructions[:_SAMPLED_FILES]:
            path = os.fspath(file.filename)
            try:
                size = tf.io.gfile.stat(path).length
            except tf.errors.NotFoundError as error:
                raise errors.CorruptDatasetError(
                    f"{path}: this shard is missing, so this copy of the dataset is not whole. Copy "
                    "it again."
                ) from error
            sizes.append(size / max(file.examples_in_shard, 1))
    mean = max(sum(sizes) / len(sizes), 1)
    count = max(min(_CHUNK_EPISODES, int(_CHUNK_BYTES / mean)), 1)
    return -(-count // interleave) * interleave


def map_in_parallel(dataset: Dataset, function: Callable[..., Any], read_config: Any) -> Dataset:
    """Maps, on as many cores as `read_config` says."""
    calls = read_config.num_parallel_calls_for_decode
    return dataset.map(as_is(function), num_parallel_calls=calls)


def as_is(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps AutoGraph from rewriting a function, and all that it calls: none here needs it."""
    plain: Callable[..., Any] = tf.autograph.experimental.do_not_convert(function)
    return plain


def prefetch(dataset: Dataset, read_config: Any) -> Dataset:
    """Lets the pipeline work ahead, unless `read_config` says that the caller sees to that."""
    return dataset if read_config.skip_prefetch else dataset.prefetch(tf.data.AUTOTUNE)


def unbatch(dataset: Dataset) -> Dataset:
    """Returns a dataset of batches as one of their elements."""
    specs = tf.nest.flatten(dataset.element_spec)
    if any(spec.shape.rank and 0 in spec.shape[1:].as_list() for spec in specs):
        # TensorFlow 2.21's unbatch dies of SIGSEGV if an element has no bytes.
        return dataset.flat_map(as_is(_slices))
    return dataset.unbatch()


def _slices(*elements: Any) -> Dataset:
    return tf.data.Dataset.from_tensor_slices(elements if len(elements) > 1 else elements[0])
