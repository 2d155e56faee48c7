# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import multiprocessing

import numpy as np
import pytest
from PIL import Image

from envlogger import errors
from envlogger.tfds import images


def _noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (84, 84, 3), (7, 300, 1), (300, 1, 3)])
def test_png_is_lossless(shape):
    image = _noise(*shape)

    decoded = images.decode(images.encode(image, "png"), shape[2])

    assert decoded.dtype == np.uint8
    assert decoded.shape == shape
    assert decoded.tobytes() == image.tobytes()
    assert decoded.flags.writeable


def test_png_of_a_view_that_may_not_be_written_to():
    image = _noise(20, 30, 3).transpose(1, 0, 2)[::2]
    image.flags.writeable = False

    assert images.decode(images.encode(image, "png"), 3).tolist() == image.tolist()


def test_channels_are_in_the_order_that_others_expect():
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255

    for encoding in ("png", "jpeg"):
        with Image.open(io.BytesIO(images.encode(red, encoding))) as picture:
            pixel = picture.convert("RGB").getpixel((0, 0))
        assert np.allclose(pixel, (255, 0, 0), atol=2)
        assert np.allclose(images.decode(images.encode(red, encoding), 3)[0, 0], pixel, atol=2)


def test_jpeg_is_near():
    image = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None], (64, 64, 3))

    decoded = images.decode(images.encode(image, "jpeg"), 3)

    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image).max() < 8


def test_pngs_of_others_are_read():
    image = _noise(5, 6, 4)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")

    assert images.decode(memoryview(file.getvalue()), 4).tolist() == image.tolist()


def test_many_images_keep_their_order():
    pictures = [np.full((8, 8, 1), i, np.uint8) for i in range(50)]

    encoded = images.encode_all(pictures, "png")

    assert [int(images.decode(data, 1)[0, 0, 0]) for data in encoded] == list(range(50))


def _encode_some():
    images.encode_all([np.zeros((8, 8, 1), np.uint8)] * 4, "png")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_fork_has_threads_of_its_own():
    _encode_some()
    child = multiprocessing.get_context("fork").Process(target=_encode_some)
    child.start()
    child.join(60)
    is_alive = child.is_alive()
    child.kill()

    assert not is_alive
    assert child.exitcode == 0


def test_what_is_cut_off_or_no_image_is_refused(capfd):
    data = images.encode(_noise(8, 8, 3), "png")

    for broken in (b"", b"nonsense", bytes(data[:40]), bytes(data[:-30])):
        with pytest.raises(errors.CorruptDatasetError, match="bytes are not a PNG or JPEG image"):
            images.decode(memoryview(broken), 3)
    capfd.readouterr()  # OpenCV says so, too
