# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import concurrent.futures
import tracemalloc

import hypothesis
import numpy as np
import pytest
import zstandard
from hypothesis import strategies as st

from envlogger import zstd


def _compress(data, *, says_size=False):
    compressor = zstandard.ZstdCompressor(write_content_size=says_size)
    return memoryview(compressor.compress(data))


def _words(size, seed=0):
    return np.random.default_rng(seed).integers(0, 50, size, np.uint8).tobytes()


@pytest.mark.parametrize("says_size", [False, True])
@pytest.mark.parametrize("size", [0, 1, 1000, 300_000])
def test_a_block_gives_its_bytes(size, says_size):
    data = _words(size)
    block = _compress(data, says_size=says_size)

    assert zstd.decompress(block, size) == data
    assert zstd.LazyBytes(block, size).read(0, size) == data


def test_nothing_may_be_stored_as_nothing():
    assert zstd.decompress(memoryview(b""), 0) == b""


@pytest.mark.parametrize("size", [0, 999, 1001])
def test_another_size_is_refused(size):
    data = _words(1000)
    with pytest.raises(ValueError, match=f"holds {size} bytes says that they are 1000"):
        zstd.decompress(_compress(data, says_size=True), size)
    with pytest.raises(ValueError, match="a compressed block"):
        zstd.decompress(_compress(data), size)


def test_a_bomb_takes_no_memory():
    block = _compress(bytes(1 << 28), says_size=True)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="holds 1000 bytes says that they are 268435456"):
            zstd.decompress(block, 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("harm", ["cut", "nonsense", "empty"])
def test_a_damaged_block(harm):
    block = _compress(_words(200_000))
    broken = {"cut": block[:-3], "nonsense": memoryview(b"nonsense" * 9), "empty": block[:0]}[harm]

    with pytest.raises(ValueError, match="a compressed block"):
        zstd.decompress(broken, 200_000)
    with pytest.raises(ValueError, match="a compressed block"):
        zstd.LazyBytes(broken, 200_000).read(0, 200_000)


def test_what_lies_before_the_end_of_a_cut_block_can_be_read():
    data = _words(1_000_000)
    lazy = zstd.LazyBytes(_compress(data)[:-200], len(data))

    assert lazy.read(10, 300_000) == data[10:300_000]
    with pytest.raises(ValueError, match="a compressed block"):
        lazy.read(999_000, 1_000_000)


@hypothesis.given(
    st.integers(0, 400_000),
    st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 400_000)), max_size=6),
)
def test_any_part_in_any_order(size, places):
    data = _words(size)
    lazy = zstd.LazyBytes(_compress(data), size)
    for place in places:
        start, stop = sorted(min(end, size) for end in place)
        part = lazy.read(start, stop)
        assert part == data[start:stop]
        part[:] = bytes(len(part))  # it is the caller's


def test_threads_share_a_block():
    data = _words(2_000_000)
    lazy = zstd.LazyBytes(_compress(data), len(data))
    starts = np.random.default_rng(0).integers(0, len(data) - 5000, 64).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: lazy.read(start, start + 5000), starts))

    assert parts == [data[start : start + 5000] for start in starts]
