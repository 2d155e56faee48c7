# SPDX-License-Identifier: Apache-2.0
"""The spec of arrays whose first dimension varies."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dm_env import specs

from envlogger.converters import json_codec, spec_codec
from envlogger.converters.varying_array import VaryingArray


def test_what_conforms():
    spec = VaryingArray((-1, 2), np.float32)

    for length in (0, 1, 5):
        array = np.ones((length, 2), np.float32)
        assert spec.validate(array) is array
    for array in (np.ones((2, 3), np.float32), np.ones((1, 2)), np.float32(1), np.ones(2, "f4")):
        with pytest.raises(ValueError, match="Expected"):
            spec.validate(array)
    assert spec.generate_value().shape == (0, 2)


@pytest.mark.parametrize("shape", [(), (2,), (2, -1), (-1, -1), (-2,)])
def test_shapes_that_it_is_not_for(shape):
    with pytest.raises(ValueError, match="expected -1 and then"):
        VaryingArray(shape, np.int64)


def test_it_equals_its_like_only():
    spec = VaryingArray((-1, 2), np.int64, "x")

    assert spec == spec.replace(name="y") != VaryingArray((-1,), np.int64)
    assert spec != specs.Array((-1, 2), np.int64)
    assert repr(spec) == "VaryingArray(shape=(-1, 2), dtype=dtype('int64'), name='x')"


def test_it_is_stored():
    nest = {"a": VaryingArray((-1, 2), np.int8, "x"), "b": (VaryingArray((-1,), object),)}

    text = json.dumps(json_codec.encode(spec_codec.encode(nest)))

    assert repr(spec_codec.decode(json_codec.decode(json.loads(text)))) == repr(nest)
