# SPDX-License-Identifier: Apache-2.0
"""Image codecs: uint8 arrays (height, width, 1 or 3 channels, RGB) to PNG or JPEG and back.

Our own PNG files are the matter of `png`. All others are OpenCV's: `python -m benchmarks.image_codecs`
compares it with others. Either is imported with the first image, since many environments have none.
"""

from __future__ import annotations

import functools
import os
import threading
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from envlogger import errors

if TYPE_CHECKING:
    from concurrent import futures

# From this size on threads pay: to have one do something takes as long as to decode half of it.
LARGE_BYTES = 1 << 15
# Into how many runs the images of each core are cut: some take longer than others, and some threads.
_RUNS = 2
_JPEG_QUALITY = 95

T = TypeVar("T")
U = TypeVar("U")


def encode(image: npt.NDArray[np.uint8], encoding: str) -> bytes:
    """Returns `image` (height, width, 1 or 3) as a PNG (lossless) or JPEG file (lossy)."""
    return _png().encode(image) if encoding == "png" else _by_opencv(_encode_jpeg, image)


def encode_all(pictures: Sequence[npt.NDArray[np.uint8]], encoding: str) -> list[bytes]:
    """Returns images of one size as PNG or JPEG files; on as many cores as there are."""
    is_large = bool(pictures) and pictures[0].nbytes >= LARGE_BYTES
    return map_all(lambda image: encode(image, encoding), pictures, is_large=is_large)


def map_all(function: Callable[[T], U], items: Sequence[T], *, is_large: bool) -> list[U]:
    """Returns what a function that encodes or decodes makes of items.

    Args:
      function: The function.
      items: The items.
      is_large: As in `in_runs`.
    """
    made: list[Any] = [None] * len(items)

    def fill(start: int, stop: int) -> None:
        made[start:stop] = map(function, items[start:stop])

    in_runs(fill, len(items), is_large=is_large)
    return made


def in_runs(work: Callable[[int, int], None], count: int, *, is_large: bool) -> None:
    """Has all of a number of images encoded or decoded.

    Args:
      work: Does those from one number to another. What it raises is raised.
      count: How many there are.
      is_large: Whether they are images of `LARGE_BYTES`, which go to as many cores as there are.
    """
    if count < 2 or not is_large:
        work(0, count)
        return
    from concurrent import futures

    # Not one by one: each time that a thread gets something to do it has to wait for the GIL.
    size = -(-count // (_RUNS * _NUM_THREADS))
    starts = iter(range(0, count, size))

    def work_on() -> None:
        for start in starts:
            work(start, min(start + size, count))

    others = [_threads().submit(work_on) for _ in range(min(_NUM_THREADS, count) - 1)]
    try:
        work_on()
    finally:
        futures.wait(others)  # what they read from may be closed after this
    for other in others:
        other.result()


def decode(data: memoryview, channels: int) -> npt.NDArray[np.uint8]:
    """Returns the image in a PNG or JPEG file: uint8, (height, width, channels), RGB order.

    Raises:
      CorruptDatasetError: `data` is not an image.
    """
    image = _png().decode(data, channels)
    return _by_opencv(_decode_other, data, channels) if image is None else image


def _by_opencv(function: Callable[..., U], *arguments: Any) -> U:
    # OpenCV takes a lock when a thread that used it ends, and a fork at that moment has the lock for
    # ever. So it is used by threads that do not end.
    if _thread.does_not_end or threading.current_thread() is threading.main_thread():
        return _guarded(function, *arguments)
    return _threads().submit(_guarded, function, *arguments).result()


def _guarded(function: Callable[..., U], *arguments: Any) -> U:
    # Until it returns nobody can fork: in the fork, OpenCV would be as it was in the middle of that.
    with _permits:
        return function(*arguments)


def _encode_jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    cv2 = _cv2()
    if image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpeg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise RuntimeError(f"OpenCV could not encode an image of shape {image.shape}.")
    encoded: bytes = data.tobytes()
    return encoded


def _decode_other(data: memoryview, channels: int) -> npt.NDArray[np.uint8]:
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
def _png() -> types.ModuleType:
    with _permits:  # a fork would have a lock of the import for ever
        from envlogger.tfds import png

    return png


@functools.cache
def _cv2() -> Any:
    import cv2

    return cv2


_NUM_THREADS = len(os.sched_getaffinity(0))
# Whoever is in OpenCV has one of these, the main thread included; whoever forks takes them all.
_permits = threading.Semaphore(_NUM_THREADS + 1)


class _Thread(threading.local):
    does_not_end = False


_thread = _Thread()


def _begin_thread() -> None:
    _thread.does_not_end = True


@functools.cache
def _threads() -> futures.ThreadPoolExecutor:
    from concurrent import futures

    return futures.ThreadPoolExecutor(_NUM_THREADS, initializer=_begin_thread)


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
