# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from envlogger.converters import dtype_names

NAMES = [
    "bool",
    "int8",
    "uint64",
    "float16",
    "float64",
    "complex64",
    ">f4",
    ">i8",
    "<U5",
    ">U5",
    "|S3",
    "|V8",
    "datetime64[ns]",
    "timedelta64[D]",
    "object",
    "bfloat16",
    "float8_e4m3fn",
    "int4",
]


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name):
    dtype = dtype_names.from_name(name)

    assert dtype_names.name_of(dtype) == name
    assert dtype_names.from_name(dtype_names.name_of(dtype)) == dtype


def test_bfloat16_is_known_before_anything_imported_ml_dtypes():
    code = (
        "import sys; from envlogger.converters import dtype_names;"
        "assert 'ml_dtypes' not in sys.modules;"
        "print(dtype_names.from_name('bfloat16'))"
    )

    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )

    assert output.stdout == "bfloat16\n"


def test_without_ml_dtypes_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)

    with pytest.raises(TypeError, match="pip install ml_dtypes"):
        dtype_names.from_name("not_a_dtype")


@pytest.mark.parametrize("name", ["not_a_dtype", "finfo", "__name__"])
def test_unknown_name(name):
    with pytest.raises(TypeError, match=name):
        dtype_names.from_name(name)


@pytest.mark.parametrize("dtype", [np.dtype([("a", "f4")]), np.dtype("2f4")])
def test_dtype_without_a_name(dtype):
    with pytest.raises(TypeError, match="without fields"):
        dtype_names.name_of(dtype)
