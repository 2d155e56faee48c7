# SPDX-License-Identifier: Apache-2.0
"""HighwayHash-64 with the key of Riegeli's files, in plain Python: 30 µs a header, 5 MB/s."""

from __future__ import annotations

import struct

_KEY = (0x2F696C6567656952, 0x0A7364726F636572) * 2  # "Riegeli/records\n", twice
_MUL_0 = (0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3)
_MUL_1 = (0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377)
_64 = 0xFFFFFFFFFFFFFFFF
_32 = 0xFFFFFFFF
_PACKET = struct.Struct("<4Q")


def highway_hash(data: bytes | memoryview) -> int:
    """Returns the hash of `data`, 64 bits."""
    state = _State()
    whole = len(data) & ~31
    for packet in _PACKET.iter_unpack(memoryview(data)[:whole]):
        state.update(*packet)
    if len(data) > whole:
        state.update_last(bytes(data[whole:]))
    return state.finish()


class _State:
    __slots__ = ("_m0", "_m1", "_v0", "_v1")

    def __init__(self) -> None:
        self._m0 = list(_MUL_0)
        self._m1 = list(_MUL_1)
        self._v0 = [m ^ k for m, k in zip(_MUL_0, _KEY, strict=True)]
        self._v1 = [m ^ _swap(k) for m, k in zip(_MUL_1, _KEY, strict=True)]

    def update(self, *packet: int) -> None:
        m0, m1, v0, v1 = self._m0, self._m1, self._v0, self._v1
        for i in (0, 1, 2, 3):
            b = v1[i] = (v1[i] + m0[i] + packet[i]) & _64
            a = v0[i]
            m0[i] ^= (b & _32) * (a >> 32)
            a = v0[i] = (a + m1[i]) & _64
            m1[i] ^= (a & _32) * (b >> 32)
        for i in (0, 2):
            low, high = _zip(v1[i], v1[i + 1])
            v0[i] = (v0[i] + low) & _64
            v0[i + 1] = (v0[i + 1] + high) & _64
        for i in (0, 2):
            low, high = _zip(v0[i], v0[i + 1])
            v1[i] = (v1[i] + low) & _64
            v1[i + 1] = (v1[i + 1] + high) & _64

    def update_last(self, rest: bytes) -> None:
        """Takes the last 1 to 31 bytes."""
        size = len(rest)
        self._v0 = [(v + (size << 32) + size) & _64 for v in self._v0]
        self._v1 = [_rotate(v >> 32, size) << 32 | _rotate(v & _32, size) for v in self._v1]
        packet = bytearray(32)
        whole = size & ~3
        packet[:whole] = rest[:whole]
        if size & 16:
            packet[28:] = rest[-4:]
        elif size & 3:
            left = rest[whole:]
            packet[16] = left[0]
            packet[17] = left[len(left) >> 1]
            packet[18] = left[-1]
        self.update(*_PACKET.unpack(packet))

    def finish(self) -> int:
        for _ in range(4):
            v0 = self._v0
            self.update(_swap(v0[2]), _swap(v0[3]), _swap(v0[0]), _swap(v0[1]))
        return (self._v0[0] + self._v1[0] + self._m0[0] + self._m1[0]) & _64


def _swap(value: int) -> int:
    return value >> 32 | (value & _32) << 32


def _rotate(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & _32


def _zip(a: int, b: int) -> tuple[int, int]:
    """Shuffles the bytes of two words."""
    low = (
        a >> 24 & 0xFF
        | b >> 24 & 0xFF00
        | a & 0xFF0000
        | a >> 16 & 0xFF000000
        | b >> 16 & 0xFF00000000
        | a << 32 & 0xFF0000000000
        | b >> 8 & 0xFF000000000000
        | a << 56 & 0xFF00000000000000
    )
    high = (
        b >> 24 & 0xFF
        | a >> 24 & 0xFF00
        | b & 0xFF0000
        | b >> 16 & 0xFF000000
        | b << 24 & 0xFF00000000
        | a >> 8 & 0xFF0000000000
        | b << 48 & 0xFF000000000000
        | a & 0xFF00000000000000
    )
    return low, high
