# SPDX-License-Identifier: Apache-2.0
"""Lossless images as PNG files that are quick to write and to read back.

A PNG may store each row of pixels in one of five ways ("filters"). Those that make the smallest files
have to be undone pixel by pixel. Here each row is stored as the difference to the row above it ("Up"),
which is done and undone for all pixels of many rows at once, and compressed by ISA-L, which is written
for speed. Every PNG reader reads these files; this one reads no others.

The format: https://www.w3.org/TR/png-3/. The figures: `python -m benchmarks.image_codecs`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Of 8 bits: gray, RGB, RGB and alpha.
COLOR_TYPES = {1: 0, 3: 2, 4: 6}

_UP = 2
_LEVEL = 1

# A chunk: the length of its data, its type, its data, their checksum. Of a file, the first one is
# _HEADER: width, height, bits, color type, compression, filters, interlacing. Then comes the data.
_NUMBER = struct.Struct(">I")
_BEFORE_DATA = _NUMBER.size + 4
_HEADER = struct.Struct(">II5B")
_HEADER_START = len(SIGNATURE) + _BEFORE_DATA
_DATA_START = _HEADER_START + _HEADER.size + _NUMBER.size + _BEFORE_DATA

# Deflate can't do better. A header that promises more lies, and is not believed.
_MOST_COMPRESSION = 1032


def _chunk(kind: bytes, data: bytes | memoryview) -> tuple[bytes, bytes, bytes | memoryview, bytes]:
    checksum = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return _NUMBER.pack(len(data)), kind, data, _NUMBER.pack(checksum)


_END = b"".join(_chunk(b"IEND", b""))


def encode(image: npt.NDArray[np.uint8]) -> bytes:
    """Returns an image (height, width, 1 or 3) as a file; neither height nor width may be 0."""
    height, width, channels = image.shape
    pixels = np.ascontiguousarray(image).reshape(height, width * channels)
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])  # modulo 256
    header = _HEADER.pack(width, height, 8, COLOR_TYPES[channels], 0, 0, 0)
    data = isal_zlib.compress(rows, _LEVEL)
    return b"".join((SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", data), _END))


def decode(file: memoryview, channels: int) -> npt.NDArray[np.uint8] | None:
    """Returns the image (height, width, channels) in a file; None if it is not as `encode` writes them.

    Others' files are not, and damaged ones are not: all their bytes are compared with what they must be.
    """
    unpacked = _unpack(file, channels)
    if unpacked is None:
        return None
    height, width, data = unpacked
    rows = np.frombuffer(data, np.uint8).reshape(height, -1)
    return _add_up(rows[:, 1:]).reshape(height, width, channels)


def decode_into(images: npt.NDArray[np.uint8], files: Sequence[memoryview]) -> bool:
    """Decodes files into images (N, height, width, channels), all at once: for many that are small.

    Returns:
      Whether `encode` wrote all of them, and they are of this size. If not, the images are undefined.
    """
    size = images.shape[1:3]
    unpacked = []
    for file in files:
        found = _unpack(file, images.shape[3])
        if found is None or found[:2] != size:
            return False
        unpacked.append(found[2])
    rows = np.frombuffer(b"".join(unpacked), np.uint8).reshape(*images.shape[:2], -1)
    images[:] = _add_up(rows[..., 1:]).reshape(images.shape)
    return True


def _unpack(file: memoryview, channels: int) -> tuple[int, int, bytes] | None:
    """Returns height, width and rows of an image in a file that `encode` wrote; otherwise None."""
    data_end = len(file) - len(_END) - _NUMBER.size
    if data_end < _DATA_START:
        return None
    start, data, end = file[:_DATA_START], file[_DATA_START:data_end], file[data_end:]
    width, height, *_ = _HEADER.unpack_from(start, _HEADER_START)
    header = _HEADER.pack(width, height, 8, COLOR_TYPES[channels], 0, 0, 0)
    length, kind, _, checksum = _chunk(b"IDAT", data)
    if start != b"".join((SIGNATURE, *_chunk(b"IHDR", header), length, kind)):
        return None
    if end != checksum + _END:
        return None
    row_bytes = 1 + width * channels
    size = height * row_bytes
    if not 0 < size <= _MOST_COMPRESSION * len(data):
        return None
    try:
        unpacked = isal_zlib.decompress(data, bufsize=size)
    except isal_zlib.error:  # type: ignore[misc]  # a class, whatever the package's stub says
        return None
    is_ours = len(unpacked) == size and unpacked[::row_bytes] == bytes((_UP,)) * height
    return (height, width, unpacked) if is_ours else None


def _add_up(differences: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Returns the sum of each row and all above it, modulo 256, in images (..., height, width).

    A row needs the one above it, but the sums of 2, 4, 8, … rows come from those of half as many, for
    all rows at once: eight additions of whole images of 256 rows, an eighth of the time of `np.cumsum`.
    """
    sums, spare = differences.copy(), np.empty(differences.shape, np.uint8)
    count, height = 1, differences.shape[-2]
    while count < height:
        np.add(sums[..., count:, :], sums[..., :-count, :], out=spare[..., count:, :])
        spare[..., :count, :] = sums[..., :count, :]
        sums, spare = spare, sums
        count *= 2
    return sums
