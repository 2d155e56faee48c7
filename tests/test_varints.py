# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envlogger import varints

_INT64S = st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300)


def _array(data):
    return np.frombuffer(data, np.uint8)


@given(st.lists(_INT64S, max_size=50))
def test_arrays_and_single_numbers_are_of_one_form(values):
    data = bytes(varints.encode_array(np.array(values, np.int64)))

    assert data == b"".join(varints.encode(value % 2**64) for value in values)
    assert varints.decode_array(_array(data)).view(np.int64).tolist() == values
    position = 0
    for value in values:
        found, position = varints.read(data, position)
        assert found == value % 2**64
    assert position == len(data)


@given(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 300), max_size=50), st.integers(0, 50))
def test_so_many_are_read(values, count):
    data = b"ab" + b"".join(map(varints.encode, values))
    if count > len(values):
        with pytest.raises(ValueError, match="varint"):
            varints.read_array(_array(data), 2, count)
        return

    found, stop = varints.read_array(_array(data), 2, count)

    assert found.tolist() == values[:count]
    assert stop == 2 + sum(map(len, map(varints.encode, values[:count])))
    assert varints.lengths_of(found).sum() == stop - 2


@pytest.mark.parametrize("data", [b"\x80", b"\x01\x80", b"\xff" * 11])
def test_what_does_not_end(data):
    with pytest.raises(ValueError, match=r"does not end|bytes"):
        varints.decode_array(_array(data))
    with pytest.raises(ValueError, match="does not end"):
        varints.read(data, data.rfind(b"\x01") + 1)
