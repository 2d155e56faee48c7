# SPDX-License-Identifier: Apache-2.0
"""Image codecs: uint8 arrays (height, width, 1 or 3 channels, RGB) to PNG or JPEG and back.

OpenCV was chosen by measurement (`benchmarks/image_codecs.py`): of the codecs that write both
formats it makes the smallest fast PNG, it is imported in 20 ms, and it lets go of the GIL.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from envlogger import errors

# Run-length matching with level 1 is the fastest of zlib's settings and, on camera-like frames, the
# smallest too; see the benchmark.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]


def encode(image: npt.NDArray[np.uint8], encoding: str) -> memoryview:
    """Returns `image` (height, width, 1 or 3) as a PNG (lossless) or JPEG file (lossy)."""
    if image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(f".{encoding}", image, _PNG if encoding == "png" else _JPEG)
    if not done:
        raise RuntimeError(f"OpenCV could not encode an image of shape {image.shape}.")
    return np.ascontiguousarray(data, np.uint8).reshape(-1).data


def encode_all(pictures: Sequence[npt.NDArray[np.uint8]], encoding: str) -> list[memoryview]:
    """Returns images as PNG or JPEG files; on as many cores as there are."""
    if len(pictures) < 2:
        return [encode(image, encoding) for image in pictures]
    return list(_threads().map(lambda image: encode(image, encoding), pictures))


@functools.cache
def _threads() -> futures.ThreadPoolExecutor:
    return futures.ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def decode(data: memoryview, channels: int) -> npt.NDArray[np.uint8]:
    """Returns the image in a PNG or JPEG file: uint8, (height, width, channels), RGB order.

    Raises:
      CorruptDatasetError: `data` is not an image that OpenCV can read.
    """
    flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR, 4: cv2.IMREAD_UNCHANGED}[channels]
    flags |= cv2.IMREAD_IGNORE_ORIENTATION  # a logged array has no EXIF orientation to obey
    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if len(data) else None
    except cv2.error:  # it says that it is larger than OpenCV takes
        image = None
    if image is None:
        raise errors.CorruptDatasetError(f"{len(data)} bytes are not a PNG or JPEG image.")
    if channels == 3:
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
    elif channels == 4:
        cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA, image)
    result: npt.NDArray[np.uint8] = image.reshape(*image.shape[:2], channels)
    return result
