# SPDX-License-Identifier: Apache-2.0
"""Reading into many buffers at once, against a slice of the file."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envlogger.tfds import partial_record

CONTENT = bytes(i * 7 % 251 for i in range(5000))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "content"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


class _Interrupted:
    """Stands for `os`: each call of preadv stops after so many bytes, as the kernel may."""

    def __init__(self, most):
        self._most = most

    def preadv(self, descriptor, buffers, position):
        left, cut = self._most, []
        for buffer in buffers:
            cut.append(buffer[:left])
            left -= len(cut[-1])
        return os.preadv(descriptor, cut, position)


@given(st.lists(st.integers(0, 900), max_size=8), st.integers(0, len(CONTENT)), st.integers(1, 700))
def test_fill(file, sizes, position, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partial_record, "os", _Interrupted(most))
        buffers = [memoryview(bytearray(b"\xff" * size)) for size in sizes]
        found = partial_record.fill(file, buffers, position)

    expected = CONTENT[position : position + sum(sizes)]
    assert found == len(expected)
    assert b"".join(buffers)[:found] == expected
    assert b"".join(buffers)[found:] == b"\xff" * (sum(sizes) - found)


def test_more_buffers_than_the_kernel_takes_at_once(file):
    buffers = [memoryview(bytearray(1)) for _ in range(2500)]

    assert partial_record.fill(file, buffers, 100) == 2500
    assert b"".join(buffers) == CONTENT[100:2600]


@given(st.lists(st.integers(0, 30), max_size=5), st.integers(0, 100))
def test_spread(sizes, length):
    buffers = [memoryview(bytearray(size)) for size in sizes]
    found = partial_record.spread(memoryview(CONTENT[:length]), buffers)

    assert found == min(sum(sizes), length)
    assert b"".join(buffers)[:found] == CONTENT[:found]
