# SPDX-License-Identifier: Apache-2.0
"""The index of steps per episode, against a list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from envlogger.tfds import index_file

_COUNTS = st.lists(st.integers(0, 2**40 - 1))


@given(_COUNTS, _COUNTS)
def test_an_index_is_read_as_it_was_written(tmp_path_factory, first, second):
    state = str(tmp_path_factory.mktemp("state"))
    index_file.write(state, "train", len(first), second)
    assert (index_file.read(state, "train", len(first + second)) is None) == bool(first)
    index_file.write(state, "train", 0, first)

    assert index_file.read(state, "train", len(first + second)).tolist() == first + second
    assert index_file.read(state, "train", len(first)).tolist() == first
    assert index_file.read(state, "train", len(first + second) + 1) is None
