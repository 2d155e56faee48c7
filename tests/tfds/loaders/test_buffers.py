# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from envlogger.tfds.loaders import buffers

MEGABYTES = 1 << 20


def _address(array):
    return array.__array_interface__["data"][0]


def _large(lender, megabytes=2, dtype=np.uint8):
    return lender.empty((megabytes, MEGABYTES // np.dtype(dtype).itemsize), np.dtype(dtype))


@pytest.mark.parametrize("shape", [(), (3, 5), (300, 1000, 4)])
def test_arrays_are_aligned_and_writable(shape):
    lender = buffers.Buffers()
    for dtype in (np.uint8, np.float64):
        array = lender.empty(shape, np.dtype(dtype))
        array[...] = 1

        assert array.shape == shape
        assert array.dtype == dtype
        assert _address(array) % 64 == 0
        assert array.flags.c_contiguous


def test_memory_is_given_out_again():
    lender = buffers.Buffers()
    array = _large(lender)
    address = _address(array)
    del array

    assert _address(_large(lender, dtype=np.float32)) == address


def test_memory_that_a_view_refers_to_is_not():
    lender = buffers.Buffers()
    array = _large(lender)
    array[:] = 7
    view = array[1:, 5:10].view()
    del array
    gc.collect()
    other = _large(lender)
    other[:] = 9

    assert (view == 7).all()


def test_memory_of_another_size_is_left_for_others():
    lender = buffers.Buffers()
    array = _large(lender, 8)
    address = _address(array)
    del array
    small = _large(lender, 2)

    assert _address(small) != address
    assert _address(_large(lender, 7)) == address


def test_no_more_is_kept_than_256_megabytes():
    lender = buffers.Buffers()
    arrays = [_large(lender, 60) for _ in range(6)]
    del arrays

    assert 200 * MEGABYTES < sum(map(len, lender._free)) <= 256 * MEGABYTES


def test_threads_never_share_memory():
    lender = buffers.Buffers()
    wrong = []

    def work(number):
        for _ in range(300):
            array = _large(lender)
            array[:, ::4096] = number
            if (array[:, ::4096] != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong
