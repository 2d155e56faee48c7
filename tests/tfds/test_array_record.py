# SPDX-License-Identifier: Apache-2.0
"""TFDS's own TFRecord reader is the oracle for order, `tfds.data_source` for content."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import file_adapters

import envlogger
import envlogger.tfds
from envlogger.tfds import _on_import, array_record
from tests import processes

SHARD_LENGTHS = [7, 40, 1, 33, 19]
ADAPTER = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]

IN_ORDER = tfds.ReadConfig(interleave_cycle_length=1)

# TFDS itself passes TensorFlow what it warns of.
ONE_AT_A_TIME = pytest.mark.filterwarnings("ignore:The `deterministic` argument has no effect")


def _features(nested):
    features = {"index": np.int64, "text": tfds.features.Text()}
    if nested:
        step = {
            "observation": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "action": np.int64,
        }
        features["steps"] = tfds.features.Dataset(step)
    return tfds.features.FeaturesDict(features)


def _episode(index, nested):
    episode = {"index": index, "text": "x" * (index % 7 * 20)}
    if nested:
        episode["steps"] = [
            {"observation": np.full(2, index + t / 10, np.float32), "action": t}
            for t in range(index % 4)
        ]
    return episode


def _write(
    directory, file_format="array_record", shard_lengths=SHARD_LENGTHS, first=0, nested=False
):
    """Writes a dataset of the given number of episodes per shard; returns its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    features = _features(nested)
    template = tfds.core.ShardedFileTemplate(
        data_dir=directory, dataset_name="toy", split="train", filetype_suffix=file_format
    )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="toy", version=tfds.core.Version("1.0.0"), data_dir=directory, module_name=""
    )
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat(file_format)]
    index = itertools.count(first)
    for shard, length in enumerate(shard_lengths):
        path = template.sharded_filepath(shard_index=shard, num_shards=len(shard_lengths))
        episodes = [_episode(i, nested) for i in itertools.islice(index, length)]
        examples = [serializer.serialize_example(features.encode_example(e)) for e in episodes]
        adapter.write_examples(path, enumerate(examples))
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    info.set_file_format(file_format)
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=shard_lengths, num_bytes=0, filename_template=template
    )
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(directory)
    return directory


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    return {
        file_format: _write(root / file_format / "toy" / "1.0.0", file_format)
        for file_format in ("array_record", "tfrecord")
    }


@pytest.fixture(scope="module")
def builder(directories):
    return tfds.builder_from_directory(directories["array_record"])


@pytest.fixture(scope="module")
def oracle(directories):
    return tfds.builder_from_directory(directories["tfrecord"])


def _indices(dataset):
    return [int(index) for index in dataset.map(lambda episode: episode["index"])]


def _shards(directory):
    return sorted(pathlib.Path(directory).glob("*.array_record-*"))


def _write_records(path, records):
    writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return path


def _records(path, **kwargs):
    return list(ADAPTER.make_tf_data(path, **kwargs).as_numpy_iterator())


def _open_shards():
    targets = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # a thread has closed it meanwhile
            # Not os.path.realpath: a file that was unlinked meanwhile has no path.
            targets.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [target for target in targets if "array_record" in target]


@pytest.fixture
def records_read(monkeypatch):
    """A list that gets the size of each read of each shard from here on."""
    sizes = []
    real_open = array_record._open

    class CountingReader:
        def __init__(self, reader):
            self._reader = reader

        def read(self, *bounds):
            records = self._reader.read(*bounds)
            sizes.append(len(records) if bounds else 1)
            return records

        def __getattr__(self, name):
            return getattr(self._reader, name)

    monkeypatch.setattr(array_record, "_READERS", array_record._Readers(4))
    monkeypatch.setattr(array_record, "_open", lambda path: CountingReader(real_open(path)))
    return sizes


# Content and order


def test_nested_steps_equal_those_of_data_source(tmp_path):
    builder = tfds.builder_from_directory(_write(tmp_path, nested=True))
    dataset = builder.as_dataset(split="train", read_config=IN_ORDER)

    source = builder.as_data_source(split="train")

    assert len(source) == sum(SHARD_LENGTHS)
    for expected, got in zip(source, dataset, strict=True):
        assert got["index"].numpy() == expected["index"]
        assert got["text"].numpy() == expected["text"]
        for step, expected_step in zip(got["steps"], expected["steps"], strict=True):
            assert step["observation"].dtype == tf.float32
            np.testing.assert_array_equal(step["observation"], expected_step["observation"])
            assert step["action"].numpy() == expected_step["action"]


SPLITS = [
    "train",
    "all",
    "train[:10%]",
    "train[37%:81%]",
    "train[5:8]",
    "train[:1]",
    "train[-3:]",
    "train[7:47]",
    "train[:2shard]",
    "train[3shard:]",
    "train[60:]+train[:5]",
    tfds.core.ReadInstruction("train", from_=20, to=70, unit="abs"),
    tfds.core.ReadInstruction("train", from_=33, to=66, unit="%", rounding="pct1_dropremainder"),
    *tfds.even_splits("train", 3),
]


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_slices(builder, oracle, split):
    # Some batches have one record, others several.
    config = tfds.ReadConfig(override_buffer_size=60)

    dataset = builder.as_dataset(split=split, read_config=config)

    indices = _indices(dataset)
    assert indices == _indices(oracle.as_dataset(split=split, read_config=config))
    assert sorted(indices) == sorted(e["index"] for e in builder.as_data_source(split=split))
    assert dataset.cardinality() == len(indices)


def test_in_recorded_order_with_one_shard_at_a_time(builder):
    dataset = builder.as_dataset(split="train", read_config=IN_ORDER)

    assert _indices(dataset) == list(range(sum(SHARD_LENGTHS)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"interleave_cycle_length": 3, "interleave_block_length": 2},
        {"interleave_cycle_length": None, "interleave_block_length": 1},
        {"num_parallel_calls_for_interleave_files": 2, "override_buffer_size": 20},
        {"num_parallel_calls_for_interleave_files": None, "override_buffer_size": 300},
        {"experimental_interleave_sort_fn": lambda files: files[::-1]},
    ],
    ids=str,
)
@pytest.mark.parametrize("shuffle", [False, True])
@ONE_AT_A_TIME
def test_interleaving_and_shuffling(builder, oracle, options, shuffle):
    config = tfds.ReadConfig(shuffle_seed=3, **options)

    dataset = builder.as_dataset(split="train", read_config=config, shuffle_files=shuffle)
    expected = oracle.as_dataset(split="train", read_config=config, shuffle_files=shuffle)

    # Twice: the files are shuffled anew for each epoch.
    assert [_indices(dataset), _indices(dataset)] == [_indices(expected), _indices(expected)]


@pytest.mark.parametrize("split", ["train", "train[5:45]"])
def test_tfds_id(builder, split):
    config = tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=2)

    dataset = builder.as_dataset(split=split, read_config=config)

    starts = dict(
        zip(
            (path.name for path in _shards(builder.data_dir)),
            itertools.accumulate(SHARD_LENGTHS, initial=0),
            strict=False,
        )
    )
    for episode in dataset:
        shard, position = episode["tfds_id"].numpy().decode().split("__")
        assert episode["index"] == starts[shard] + int(position)


def test_input_context(builder, oracle):
    def read(builder, pipeline):
        context = tf.distribute.InputContext(num_input_pipelines=2, input_pipeline_id=pipeline)
        config = tfds.ReadConfig(input_context=context)
        return _indices(builder.as_dataset(split="train", read_config=config))

    assert [read(builder, 0), read(builder, 1)] == [read(oracle, 0), read(oracle, 1)]


def test_inside_tf_function(builder):
    @tf.function
    def total():
        result = tf.constant(0, tf.int64)
        for episode in builder.as_dataset(split="train[3:50]"):
            result += episode["index"]
        return result

    assert total() == total() == sum(range(3, 50))


@pytest.mark.parametrize(
    ("position", "batch_bytes"), [(0, 1), (50, 1), (1, 300), (50, 300), (99, 300), (8, None)]
)
def test_checkpointed_iterator_continues_where_it_was(builder, tmp_path, position, batch_bytes):
    def iterator():
        config = tfds.ReadConfig(override_buffer_size=batch_bytes, interleave_block_length=3)
        dataset = builder.as_dataset(split="train", read_config=config)
        return iter(dataset.map(lambda episode: episode["index"]))

    saved = iterator()
    for _ in range(position):
        next(saved)
    path = tf.train.Checkpoint(iterator=saved).write(os.fspath(tmp_path / "checkpoint"))
    restored = iterator()
    tf.train.Checkpoint(iterator=restored).read(path).assert_consumed()

    rest = [int(index) for index in restored]
    assert rest == [int(index) for index in saved]
    assert len(rest) == sum(SHARD_LENGTHS) - position


def test_load_and_builder_from_directories(directories, tmp_path):
    root = directories["array_record"].parent.parent
    other = _write(tmp_path / "other", shard_lengths=[5, 6], first=100)

    loaded = tfds.load("toy:1.0.0", split="train[98:]", data_dir=root)
    both = tfds.builder_from_directories([directories["array_record"], other])

    assert _indices(loaded) == [98, 99]
    dataset = both.as_dataset(split="train[97:104]", read_config=IN_ORDER)
    assert _indices(dataset) == list(range(97, 104))


def test_sequential_writer(tmp_path):
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name="toy",
            version=tfds.core.Version("1.0.0"),
            data_dir=os.fspath(tmp_path),
            module_name="",
        ),
        features=_features(nested=True),
    )
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=4, file_format="array_record")
    writer.initialize_splits(["train"])
    writer.add_examples({"train": [_episode(i, nested=True) for i in range(10)]})
    writer.close_all()

    dataset = tfds.builder_from_directory(tmp_path).as_dataset(split="train", read_config=IN_ORDER)

    assert _indices(dataset) == list(range(10))


def test_what_convert_format_does_with_a_shard(builder, tmp_path):
    path = _shards(builder.data_dir)[1]
    tfrecord = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.TFRECORD]

    rows = enumerate(row.numpy() for row in ADAPTER.make_tf_data(filename=path))
    tfrecord.write_examples(path=tmp_path / "converted", iterator=rows)
    rows = enumerate(row.numpy() for row in tfrecord.make_tf_data(tmp_path / "converted"))
    ADAPTER.write_examples(path=tmp_path / "back", iterator=rows)

    assert _records(tmp_path / "back") == _records(path)


# One shard


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    records = [b"%d" % i * (i % 5) for i in range(100)]
    return _write_records(tmp_path_factory.mktemp("shard") / "shard.array_record", records)


@pytest.mark.parametrize(
    "filename", [os.fspath, pathlib.Path, lambda path: tf.constant(os.fspath(path))]
)
def test_filename(shard, filename):
    assert len(_records(filename(shard))) == 100


@pytest.mark.parametrize("counts", [(0, 0), (3, 10), (99, 5), (100, 1), (200, 1), (-1, 3), (5, -1)])
def test_skip_and_take_are_those_of_tf_data(shard, counts):
    skip, take = counts
    dataset = ADAPTER.make_tf_data(shard, 20)
    expected = tf.data.Dataset.from_tensor_slices(_records(shard))

    for mine, plain in [
        (dataset.skip(skip).take(tf.constant(take)), expected.skip(skip).take(take)),
        (dataset.take(skip).skip(tf.constant(take)), expected.take(skip).skip(take)),
    ]:
        assert list(mine.as_numpy_iterator()) == list(plain.as_numpy_iterator())


def test_skip_and_take_of_more_than_there_is(shard):
    dataset = ADAPTER.make_tf_data(shard)

    assert list(dataset.skip(1).skip(2**63 - 1)) == []
    assert len(list(dataset.skip(3).take(2**63 - 1).skip(2))) == 95


@pytest.mark.parametrize(
    ("split", "count"), [("train[5:8]", 3), ("train[-3:]", 3), ("train[10:20]", 10), ("train", 100)]
)
def test_skipped_records_are_not_read(builder, records_read, split, count):
    dataset = builder.as_dataset(split=split)

    assert records_read == []
    assert len(_indices(dataset)) == count
    assert sum(records_read) == count


def test_batches_are_bounded_by_bytes(tmp_path):
    large = 200_000
    sizes = [10] * 300 + [large] * 20 + [0] * 50 + [9000] * 100 + [large] * 3 + [5] * 40
    records = [bytes([i % 256]) * size for i, size in enumerate(sizes)]
    path = os.fspath(_write_records(tmp_path / "shard", records))
    budget = 100_000

    start, got = 0, []
    while start < len(sizes):
        batch, (start, stop) = array_record._read_batch(path, start, 2**63 - 1, budget)
        assert stop == len(sizes)
        # Of the last read, only the first record had to fit.
        assert sum(map(len, batch[:-8])) < budget
        if len(batch) > 1 and len(batch[0]) == large:
            assert len(batch[1]) < large
        got += batch.tolist()

    assert got == records
    assert _records(path, buffer_size=budget) == records


def test_a_jump_in_size_makes_a_batch_larger_by_few_records(tmp_path):
    records = [b"x" * 10] * 1000 + [b"y" * 1_000_000] * 20
    path = os.fspath(_write_records(tmp_path / "shard", records))

    batch, _ = array_record._read_batch(path, 0, len(records), 100_000)

    assert len(batch) == 1001


def test_empty_shard(tmp_path):
    path = _write_records(tmp_path / "shard", [])

    assert ADAPTER.num_examples(path) == 0
    assert _records(path) == []


def test_num_examples_reads_no_record(shard, records_read):
    assert ADAPTER.num_examples(shard) == 100
    assert records_read == []


# Files


def test_files_are_closed(builder):
    before = _open_shards()
    config = tfds.ReadConfig(override_buffer_size=1)

    _indices(builder.as_dataset(split="train", read_config=config))
    _indices(builder.as_dataset(split="train[:90%]", read_config=config))

    assert _open_shards() == before


@ONE_AT_A_TIME
def test_open_files_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(array_record, "_READERS", array_record._Readers(10))
    builder = tfds.builder_from_directory(_write(tmp_path, shard_lengths=[3] * 60))
    before = len(_open_shards())

    # All shards are begun, and none is finished.
    config = tfds.ReadConfig(
        override_buffer_size=1,
        interleave_cycle_length=60,
        interleave_block_length=1,
        num_parallel_calls_for_interleave_files=None,
    )
    iterator = iter(builder.as_dataset(split="train", read_config=config))
    for _ in range(61):
        next(iterator)

    # A thread of tf.data that works ahead has one more in hand, till there is nothing left to do.
    processes.wait_for(lambda: 0 < len(_open_shards()) - before <= 10)


def test_large_shard_is_opened_once(shard, monkeypatch):
    opened = []
    real_open = array_record._open
    monkeypatch.setattr(array_record, "_open", lambda path: opened.append(path) or real_open(path))

    assert len(_records(shard, buffer_size=1)) == 100
    assert len(opened) == 1


def test_replaced_file_is_read_anew(tmp_path):
    path = _write_records(tmp_path / "shard", [b"old"] * 10)
    iterator = ADAPTER.make_tf_data(path, 1).as_numpy_iterator()
    assert next(iterator) == b"old"  # An idle reader of the old file is left.

    os.replace(_write_records(tmp_path / "new", [b"new"] * 10), path)

    assert _records(path, buffer_size=1) == [b"new"] * 10


def test_many_threads(builder):
    expected = _indices(builder.as_dataset(split="train"))
    config = tfds.ReadConfig(override_buffer_size=1)
    results = []

    def read():
        results.append(_indices(builder.as_dataset(split="train", read_config=config)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [expected] * 4


# Errors


@pytest.fixture
def small(tmp_path):
    return _write(tmp_path, shard_lengths=[4, 4])


def _unfinished(path):
    # A writer that is alive, or was killed: what it wrote so far has no footer.
    os.truncate(path, 0)
    with open(path, "ab") as file:
        file.write(os.urandom(65536 * 2))


def _cut_short(path):
    os.truncate(path, 65536)


def _emptied(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [_unfinished, _cut_short, _emptied])
def test_unfinished_shard(small, harm):
    path = _shards(small)[1]
    harm(path)
    builder = tfds.builder_from_directory(small)

    with pytest.raises(tf.errors.InvalidArgumentError, match="is not a finished") as error:
        list(builder.as_dataset(split="train"))

    assert os.fspath(path) in str(error.value)
    with pytest.raises(ValueError, match=r"not a finished.*Copy or write the shard again"):
        ADAPTER.num_examples(path)


def test_shard_of_a_writer_that_is_still_open(tmp_path):
    path = os.fspath(tmp_path / "shard")
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
    writer.write(b"x" * 1000)

    with pytest.raises(tf.errors.InvalidArgumentError, match="shard is not a finished"):
        _records(path)

    writer.close()
    assert len(_records(path)) == 1


def test_missing_shard(small):
    path = _shards(small)[1]
    path.unlink()
    builder = tfds.builder_from_directory(small)

    with pytest.raises(tf.errors.OpError, match=r"FileNotFoundError.*A shard is missing") as error:
        list(builder.as_dataset(split="train"))

    assert os.fspath(path) in str(error.value)
    with pytest.raises(FileNotFoundError, match="Copy it again"):
        ADAPTER.num_examples(path)


def test_damaged_shard(tmp_path):
    rng = np.random.default_rng(0)
    path = _write_records(tmp_path / "shard", [rng.bytes(50_000) for _ in range(40)])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"shard can't be read from record"):
        _records(path)
    assert not [name for name in _open_shards() if name == os.fspath(path)]


# Registration


def _run(code, *args):
    root = pathlib.Path(envlogger.__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-c", code, *map(os.fspath, args)],
        env={**os.environ, "PYTHONPATH": os.fspath(root)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


_IS_REGISTERED = """
assert file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD].SUPPORTS_TF_DATA
assert "tensorflow" not in sys.modules
"""


def test_import_loads_neither_tensorflow_nor_tfds():
    code = """
import sys, envlogger.tfds, envlogger.tfds.array_record
print([name for name in ("tensorflow", "tensorflow_datasets") if name in sys.modules])
"""
    assert _run(code) == "[]"


@pytest.mark.parametrize(
    "imports",
    [
        "import envlogger.tfds; import tensorflow_datasets as tfds",
        "import tensorflow_datasets as tfds; import envlogger.tfds",
        "import envlogger.tfds, importlib; importlib.reload(envlogger.tfds)",
    ],
)
def test_order_of_imports_does_not_matter(imports):
    code = f"import sys; {imports}; from tensorflow_datasets.core import file_adapters"

    _run(code + _IS_REGISTERED)


def test_reload_of_tfds_registers_again():
    code = """
import importlib, sys, envlogger.tfds
from tensorflow_datasets.core import file_adapters
importlib.reload(file_adapters)
"""
    _run(code + _IS_REGISTERED)


def test_load_right_after_import(directories):
    code = """
import sys
import envlogger.tfds
import tensorflow_datasets as tfds
print(len(list(tfds.load("toy:1.0.0", split="train[:20]", data_dir=sys.argv[1]))))
"""
    assert _run(code, directories["array_record"].parent.parent) == "20"


def test_without_tfds():
    code = """
import sys
sys.modules["tensorflow_datasets"] = None
import envlogger.tfds
try:
    import tensorflow_datasets
except ModuleNotFoundError as error:
    print(type(error).__name__)
"""
    assert _run(code) == "ModuleNotFoundError"


def test_without_tensorflow(builder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)

    with pytest.raises(ImportError, match=r"pip install 'envlogger\[tensorflow\]'"):
        ADAPTER.make_tf_data(_shards(builder.data_dir)[0])

    assert ADAPTER.num_examples(_shards(builder.data_dir)[0]) == SHARD_LENGTHS[0]


def test_register_twice_changes_nothing():
    array_record.register(file_adapters)
    importlib.reload(envlogger.tfds)

    array_record_format = file_adapters.FileFormat.ARRAY_RECORD
    assert file_adapters.ADAPTER_FOR_FORMAT[array_record_format] is ADAPTER
    finders = [f for f in sys.meta_path if isinstance(f, _on_import._Finder)]
    assert len(finders) == 1


def test_tfds_that_can_read_array_record_is_left_alone(monkeypatch):
    class Capable(file_adapters.ArrayRecordFileAdapter):
        SUPPORTS_TF_DATA = True

    array_record_format = file_adapters.FileFormat.ARRAY_RECORD
    monkeypatch.setitem(file_adapters.ADAPTER_FOR_FORMAT, array_record_format, Capable)

    array_record.register(file_adapters)

    assert file_adapters.ADAPTER_FOR_FORMAT[array_record_format] is Capable


def test_stock_adapter_is_extended():
    assert issubclass(ADAPTER, file_adapters.ArrayRecordFileAdapter)
    assert ADAPTER.FILE_SUFFIX == "array_record"
    assert ADAPTER.SUPPORTS_RANDOM_ACCESS


# on_import


@pytest.fixture
def module_name(tmp_path, monkeypatch):
    """The name of a module that is importable but not imported, and takes a moment to import."""
    name = "envlogger_test_module"
    (tmp_path / f"{name}.py").write_text("import time\ntime.sleep(0.2)\nvalue = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield name
    sys.modules.pop(name, None)


def test_on_import_calls_back_after_the_import_and_each_reload(module_name):
    values = []
    _on_import.on_import(module_name, lambda module: values.append(module.value))
    assert values == []

    module = importlib.import_module(module_name)
    assert values == [1]
    importlib.import_module(module_name)
    assert values == [1]
    importlib.reload(module)
    assert values == [1, 1]


def test_on_import_calls_back_at_once_if_imported(module_name):
    importlib.import_module(module_name)
    values = []

    _on_import.on_import(module_name, lambda module: values.append(module.value))

    assert values == [1]


def test_on_import_waits_for_an_import_in_another_thread(module_name):
    thread = threading.Thread(target=importlib.import_module, args=[module_name])
    thread.start()
    while module_name not in sys.modules:
        time.sleep(0.001)
    values = []

    _on_import.on_import(module_name, lambda module: values.append(module.value))

    thread.join()
    assert values == [1]


def test_on_import_comes_before_whoever_waits_for_the_import(module_name):
    _on_import.on_import(module_name, lambda module: setattr(module, "extended", True))
    seen = []

    def read():
        seen.append(importlib.import_module(module_name).extended)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [True] * 4


def test_on_import_leaves_the_module_its_own_loader(module_name):
    _on_import.on_import(module_name, lambda module: None)

    module = importlib.import_module(module_name)

    assert module.__loader__ is module.__spec__.loader
    assert "value = 1" in module.__spec__.loader.get_source(module_name)


def test_on_import_survives_a_callback_that_raises(module_name, caplog):
    _on_import.on_import(module_name, lambda module: module.missing)

    with caplog.at_level(logging.ERROR):
        assert importlib.import_module(module_name).value == 1

    assert f"Could not extend {module_name}" in caplog.text


def test_on_import_of_a_module_that_does_not_exist(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    _on_import.on_import("envlogger_no_such_module", lambda module: None)

    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("envlogger_no_such_module")
