# SPDX-License-Identifier: Apache-2.0
"""Damage to files, as a disk or a program may do it."""

from __future__ import annotations

import pathlib


def flip(path: pathlib.Path, *places: int, bits: int = 1) -> None:
    """Flips bits of the bytes at some places, which count from the end where they are negative."""
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= bits
    path.write_bytes(data)


def resize_row(path: pathlib.Path, row: bytes) -> None:
    """Has a shard say of a row that it is of another size; the row takes 16 KiB or more."""
    data = path.read_bytes()
    place = data.index(row[:100])
    assert data[place - 4] == 0x0A  # the row's tag, and three bytes of its size
    flip(path, place - 1)
