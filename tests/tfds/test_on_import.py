# SPDX-License-Identifier: Apache-2.0
"""What is called back when a module is imported, by whomever and whenever."""

from __future__ import annotations

import concurrent.futures
import importlib
import logging
import sys
import threading
import time

import pytest

from envlogger.tfds import _on_import


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

    def read(_):
        return importlib.import_module(module_name).extended

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == [True] * 4


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
