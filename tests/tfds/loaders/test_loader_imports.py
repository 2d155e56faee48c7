# SPDX-License-Identifier: Apache-2.0
"""The names that `envlogger.tfds` has of the loaders, with TensorFlow and without."""

from __future__ import annotations

import warnings

import processes
import pytest

import envlogger.tfds

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what TensorFlow's imports say is not ours
    from envlogger.tfds import loaders


def test_the_package_tells_what_it_has():
    names = set(loaders.__all__) | {"import_rlds"}

    assert names <= set(dir(envlogger.tfds))
    with pytest.raises(AttributeError, match=r"'envlogger.tfds' has no attribute 'nothing'"):
        _ = envlogger.tfds.nothing


def test_without_tensorflow_the_extra_is_named():
    program = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import envlogger.tfds\n"
        "try: envlogger.tfds.steps\n"
        "except envlogger.errors.MissingExtraError as e: print(e)\n"
    )

    assert "pip install 'envlogger[tensorflow]'" in processes.python(program).stdout
