# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from envlogger.riegeli import compression

# Blocks of logs that EnvLogger 1.2 wrote with `brotli:9,window_log:25` and `transpose,brotli:6,window_log:28`
# and 30, and what is in them.
_SHAPES = bytes.fromhex(
    "0a08120208021202080212182216" + "00" + "ff" * 9 + "01" + "08" + "ff" * 9 + "01"
)
_NODES = bytes.fromhex(
    "01010f0a0d03021608080e2602100202161600" + "0d031717181512161401031" + "30b0c09000c"
)
LARGE_WINDOWS = {
    25: ("11598c000010c8c56da3bf30e8e288a49cc115684a0081a243da1bfd19", _SHAPES),
    28: ("115c8c0000105b677d4b281c946112220580308fea8250ed1f13882097cc77571c96ddac9001", _NODES),
    30: ("115e8c0000105b677d4b281c946112220580308fea8250ed1f13882097cc77571c96ddac9001", _NODES),
}


def _decompress(block, size):
    """Decompresses a block as it lies in a chunk, behind its size."""
    assert size < 128
    return compression.Decompressor(compression.BROTLI, size)(memoryview(bytes([size]) + block))


@pytest.mark.parametrize("window", LARGE_WINDOWS)
def test_brotli_with_a_large_window(window):
    block, content = LARGE_WINDOWS[window]

    assert _decompress(bytes.fromhex(block), len(content)).tobytes() == content


@pytest.mark.parametrize("window", LARGE_WINDOWS)
@pytest.mark.parametrize("harm", ["cut", "size"])
def test_brotli_with_a_large_window_and_damage(window, harm):
    block, content = LARGE_WINDOWS[window]
    data = bytes.fromhex(block)
    with pytest.raises(ValueError, match="compressed block"):
        _decompress(data[:-4] if harm == "cut" else data, len(content) - (harm == "size"))


@pytest.mark.parametrize("kind", [compression.ZSTD, compression.SNAPPY, compression.BROTLI])
def test_nonsense_is_refused(kind):
    block = memoryview(bytes([100]) + np.random.default_rng(0).bytes(60))
    with pytest.raises(ValueError, match="compressed block"):
        compression.Decompressor(kind, 1000)(block)
