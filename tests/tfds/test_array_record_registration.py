# SPDX-License-Identifier: Apache-2.0
"""How TFDS gets to read ArrayRecord by tf.data: whatever is imported first, and without TensorFlow."""

from __future__ import annotations

import importlib
import sys

import array_records
import processes
import pytest
from tensorflow_datasets.core import file_adapters

import envlogger
import envlogger.tfds
from envlogger.tfds import _on_import, array_record


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return array_records.write(tmp_path_factory.mktemp("datasets") / "toy" / "1.0.0")


def _run(code, *args):
    return processes.python(code, *args).stdout.strip()


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


def test_load_right_after_import(directory):
    code = """
import sys
import envlogger.tfds
import tensorflow_datasets as tfds
print(len(list(tfds.load("toy:1.0.0", split="train[:20]", data_dir=sys.argv[1]))))
"""
    assert _run(code, directory.parent.parent) == "20"


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


def test_without_tensorflow(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)

    with pytest.raises(ImportError, match=r"pip install 'envlogger\[tensorflow\]'"):
        array_records.ADAPTER.make_tf_data(array_records.shards(directory)[0])

    assert (
        array_records.ADAPTER.num_examples(array_records.shards(directory)[0])
        == array_records.SHARD_LENGTHS[0]
    )


def test_register_twice_changes_nothing():
    array_record.register(file_adapters)
    importlib.reload(envlogger.tfds)

    array_record_format = file_adapters.FileFormat.ARRAY_RECORD
    assert file_adapters.ADAPTER_FOR_FORMAT[array_record_format] is array_records.ADAPTER
    finders = [f for f in sys.meta_path if isinstance(f, _on_import._Finder)]
    assert len(finders) == len({f.waits_for for f in finders}) == 2


def test_tfds_that_can_read_array_record_is_left_alone(monkeypatch):
    class Capable(file_adapters.ArrayRecordFileAdapter):
        SUPPORTS_TF_DATA = True

    array_record_format = file_adapters.FileFormat.ARRAY_RECORD
    monkeypatch.setitem(file_adapters.ADAPTER_FOR_FORMAT, array_record_format, Capable)

    array_record.register(file_adapters)

    assert file_adapters.ADAPTER_FOR_FORMAT[array_record_format] is Capable


def test_stock_adapter_is_extended():
    assert issubclass(array_records.ADAPTER, file_adapters.ArrayRecordFileAdapter)
    assert array_records.ADAPTER.FILE_SUFFIX == "array_record"
    assert array_records.ADAPTER.SUPPORTS_RANDOM_ACCESS
