# SPDX-License-Identifier: Apache-2.0
"""PNG and JPEG by us, OpenCV, Pillow and imagecodecs: `python -m benchmarks.image_codecs`.

What `envlogger/tfds/images.py` and `png.py` were chosen by. Installs them into an environment of its own, prints
a table and saves it with its numbers.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

from benchmarks import installs, machine, report

_RESULTS = installs.ROOT / "benchmarks" / "results"
_CALLS = 100
_HEADERS = (
    "image",
    "codec",
    "encode ms",
    "decode ms",
    "ratio",
    "exact",
    "2 threads",
)

Codec = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]


def main() -> None:
    """Measures all codecs on all images."""
    installs.run_inside("codecs", "image_codecs")
    import numpy as np
    import tqdm

    from benchmarks import images

    rng = np.random.default_rng(0)
    screens = images.arcade_frames(rng, _CALLS)
    samples = {
        "natural 256x256x3": images.natural_frames(rng, _CALLS, 256),
        "arcade 84x84x3": np.ascontiguousarray(np.stack([screens] * 3, axis=-1)),
    }
    rows = [
        _measure(name, codec, frames)
        for name, frames in samples.items()
        for codec in tqdm.tqdm(_codecs().items(), desc=name, unit="codec")
    ]
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(tempfile.gettempdir()),
        "versions": {
            name: metadata.version(name)
            for name in ("imagecodecs", "isal", "numpy", "opencv-python-headless", "pillow")
        },
        "import_ms": {
            name: _import_ms(name) for name in ("isal.isal_zlib", "cv2", "PIL.Image", "imagecodecs")
        },
        "results": rows,
    }
    text = _markdown(document)
    _RESULTS.mkdir(exist_ok=True)
    stem = _RESULTS / f"{document['date']}-image-codecs"
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(text)
    print(f"Saved as {stem}.json, {stem}.md")


def _codecs() -> dict[str, Codec]:
    """Returns what is compared; every codec takes and gives RGB."""
    import cv2
    import imagecodecs
    import numpy as np
    from PIL import Image

    from envlogger.tfds import png

    def opencv(extension: str, *options: int) -> Codec:
        return (
            lambda image: cv2.imencode(
                extension, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), list(options)
            )[1].tobytes(),
            lambda data: cv2.cvtColor(
                cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
            ),
        )

    def pillow(kind: str, **options: int) -> Codec:
        def encode(image: Any) -> bytes:
            file = io.BytesIO()
            Image.fromarray(image).save(file, kind, **options)
            return file.getvalue()

        return encode, lambda data: np.asarray(Image.open(io.BytesIO(data)))

    level, strategy = cv2.IMWRITE_PNG_COMPRESSION, cv2.IMWRITE_PNG_STRATEGY
    rle = cv2.IMWRITE_PNG_STRATEGY_RLE
    return {
        "ours: PNG, up, ISA-L 1": (png.encode, lambda data: png.decode(memoryview(data), 3)),
        "OpenCV PNG 1, run-length": opencv(".png", level, 1, strategy, rle),
        "OpenCV PNG 1": opencv(".png", level, 1),
        "OpenCV PNG 6": opencv(".png", level, 6),
        "Pillow PNG 1": pillow("png", compress_level=1),
        "Pillow PNG 6": pillow("png", compress_level=6),
        "imagecodecs PNG 1": (
            lambda image: bytes(imagecodecs.png_encode(image, level=1)),
            imagecodecs.png_decode,
        ),
        "imagecodecs PNG 6": (
            lambda image: bytes(imagecodecs.png_encode(image, level=6)),
            imagecodecs.png_decode,
        ),
        "OpenCV JPEG 95": opencv(".jpg", cv2.IMWRITE_JPEG_QUALITY, 95),
        "Pillow JPEG 95": pillow("jpeg", quality=95),
        "imagecodecs JPEG 95": (
            lambda image: bytes(imagecodecs.jpeg8_encode(image, level=95)),
            imagecodecs.jpeg8_decode,
        ),
    }


def _measure(name: str, codec: tuple[str, Codec], frames: Any) -> dict[str, Any]:
    label, (encode, decode) = codec
    encoded = [encode(frame) for frame in frames]
    return {
        "image": name,
        "codec": label,
        "encode_ms": _median_ms(encode, frames),
        "decode_ms": _median_ms(decode, encoded),
        "ratio": sum(map(len, encoded)) / frames.nbytes,
        "is_exact": all((decode(e) == f).all() for e, f in zip(encoded, frames, strict=True)),
        "two_threads": _in_threads_s(encode, frames, 1) / _in_threads_s(encode, frames, 2),
    }


def _median_ms(call: Callable[[Any], Any], values: Any) -> float:
    times = []
    for value in values:
        begin = time.perf_counter()
        call(value)
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def _in_threads_s(call: Callable[[Any], Any], values: Any, threads: int) -> float:
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        begin = time.perf_counter()
        list(pool.map(call, values))
        return time.perf_counter() - begin


def _import_ms(module: str) -> float:
    """Returns what the import takes beyond NumPy's, median of five processes."""
    code = f"import numpy, time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(5)
    ]
    return statistics.median(times) * 1e3


def _markdown(document: dict[str, Any]) -> str:
    lines = [
        [
            row["image"],
            row["codec"],
            f"{row['encode_ms']:.3f}",
            f"{row['decode_ms']:.3f}",
            f"{row['ratio']:.3f}",
            "yes" if row["is_exact"] else "no",
            f"{row['two_threads']:.1f}",
        ]
        for row in document["results"]
    ]
    imports = ", ".join(f"{name} {ms:.0f} ms" for name, ms in document["import_ms"].items())
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return (
        f"# Image codecs, {document['date']}\n\n{report.machine_line(document['machine'])}\n\n"
        f"{report.table(_HEADERS, lines)}\n\n"
        "Medians; *ratio*: bytes to the array's bytes; *2 threads*: how many times faster two "
        "threads encode than one (2 where the codec lets go of the GIL and there are two cores).\n\n"
        f"Import, NumPy's apart: {imports}. {versions}.\n"
    )


if __name__ == "__main__":
    main()
