# SPDX-License-Identifier: Apache-2.0
"""Image codecs: uint8 arrays (height, width, 1 or 3 channels, RGB) to PNG or JPEG and back.

OpenCV was chosen by measurement (`benchmarks/image_codecs.py`): of the codecs that write both
formats it makes the smallest fast PNG, and it lets go of the GIL. It is imported with the first
image, since many environments have none.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from envlogger import errors

if TYPE_CHECKING:
    from concurrent import futures

T = TypeVar("T")
U = TypeVar("U")


def encode(image: npt.NDArray[np.uint8], encoding: str) -> memoryview:
    """Returns `image` (height, width, 1 or 3) as a PNG (lossless) or JPEG file (lossy)."""
    cv2 = _cv2()
    if image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(f".{encoding}", image, _settings(encoding))
    if not done:
        raise RuntimeError(f"OpenCV could not encode an image of shape {image.shape}.")
    return np.ascontiguousarray(data, np.uint8).reshape(-1).data


def encode_all(pictures: Sequence[npt.NDArray[np.uint8]], encoding: str) -> list[memoryview]:
    """Returns images as PNG or JPEG files; on as many cores as there are."""
    return map_in_threads(lambda image: encode(image, encoding), pictures)


def map_in_threads(function: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """Returns what a function that calls OpenCV makes of items, on as many cores as there are."""
    # OpenCV takes a lock when a thread that used it ends, and a fork at that moment has the lock for
    # ever. So it is used by threads that do not end.
    guarded = functools.partial(call, function)
    if len(items) < 2 and threading.current_thread() is threading.main_thread():
        return list(map(guarded, items))
    return list(_threads().map(guarded, items))


def call(function: Callable[[T], U], item: T) -> U:
    """Returns what a function that calls OpenCV makes of an item, in this thread; it may not end.

    Until then nobody can fork: in the fork, OpenCV would be as it was in the middle of that.
    """
    with _permits:
        return function(item)


def decode(data: memoryview, channels: int) -> npt.NDArray[np.uint8]:
    """Returns the image in a PNG or JPEG file: uint8, (height, width, channels), RGB order.

    Raises:
      CorruptDatasetError: `data` is not an image that OpenCV can read.
    """
    cv2 = _cv2()
    flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR, 4: cv2.IMREAD_UNCHANGED}[channels]
    flags |= cv2.IMREAD_IGNORE_ORIENTATION  # a logged array has no EXIF orientation to obey
    image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if len(data) else None
    if image is None:
        raise errors.CorruptDatasetError(f"{len(data)} bytes are not a PNG or JPEG image.")
    if channels == 3:
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
    elif channels == 4:
        cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA, image)
    result: npt.NDArray[np.uint8] = image.reshape(*image.shape[:2], channels)
    return result


@functools.cache
def _cv2() -> Any:
    import cv2

    return cv2


@functools.cache
def _settings(encoding: str) -> list[int]:
    cv2 = _cv2()
    if encoding == "jpeg":
        return [cv2.IMWRITE_JPEG_QUALITY, 95]
    # Run-length matching with level 1 is the fastest of zlib's settings and, on camera-like frames,
    # the smallest too; see the benchmark.
    strategy = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    return [cv2.IMWRITE_PNG_COMPRESSION, 1, *strategy]


_NUM_THREADS = len(os.sched_getaffinity(0))
# Whoever is in OpenCV has one of these, the main thread included; whoever forks takes them all.
_permits = threading.Semaphore(_NUM_THREADS + 1)


@functools.cache
def _threads() -> futures.ThreadPoolExecutor:
    from concurrent import futures

    return futures.ThreadPoolExecutor(_NUM_THREADS)


def _before_fork() -> None:
    for _ in range(_NUM_THREADS + 1):
        _permits.acquire()


def _after_fork_in_parent() -> None:
    _permits.release(_NUM_THREADS + 1)


def _after_fork_in_child() -> None:
    global _permits
    _permits = threading.Semaphore(_NUM_THREADS + 1)
    _threads.cache_clear()  # a fork has the executor, but none of its threads


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
