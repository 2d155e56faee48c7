# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import multiprocessing
import threading
import time

import helpers
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from envlogger import errors
from envlogger.tfds import images, png


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


def test_our_decoder_leaves_the_pngs_of_others_to_opencv():
    for options in ({}, {"optimize": True}):
        file = io.BytesIO()
        Image.fromarray(_noise(5, 6, 3)).save(file, "png", **options)

        assert png.decode(memoryview(file.getvalue()), 3) is None


@pytest.mark.parametrize("count", [1, 5])
def test_many_are_decoded_at_once(count):
    pictures = np.stack([_noise(7, 9, 3) + np.uint8(i) for i in range(count)])
    files = [memoryview(images.encode(picture, "png")) for picture in pictures]
    decoded = np.empty_like(pictures)

    assert png.decode_into(decoded, files)
    assert decoded.tobytes() == pictures.tobytes()


def test_not_at_once_if_one_is_of_another_size_or_not_ours():
    ours = memoryview(images.encode(_noise(7, 9, 3), "png"))
    turned = memoryview(images.encode(_noise(9, 7, 3), "png"))
    gray = memoryview(images.encode(_noise(7, 9, 1), "png"))
    file = io.BytesIO()
    Image.fromarray(_noise(7, 9, 3)).save(file, "png")
    for other in (turned, gray, memoryview(file.getvalue()), ours[:-20], memoryview(b"")):
        assert not png.decode_into(np.empty((2, 7, 9, 3), np.uint8), [ours, other])


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


def test_others_read_our_png():
    image = _noise(9, 11, 3)
    image[4:] = image[3]

    with Image.open(io.BytesIO(images.encode(image, "png"))) as picture:
        picture.load()

        assert picture.format == "PNG"
        assert np.asarray(picture).tolist() == image.tolist()


@pytest.mark.parametrize("place", ["header", "data", "checksum", "end"])
def test_a_damaged_png_is_refused(place, capfd):
    data = bytearray(images.encode(_noise(40, 40, 3), "png"))
    data[{"header": 19, "data": 700, "checksum": -13, "end": -6}[place]] ^= 1

    with pytest.raises(errors.CorruptDatasetError, match="bytes are not a PNG or JPEG image"):
        images.decode(memoryview(bytes(data)), 3)
    capfd.readouterr()  # OpenCV says so, too


def test_opencv_is_used_by_threads_that_do_not_end(monkeypatch):
    jpeg = memoryview(images.encode(np.zeros((8, 8, 3), np.uint8), "jpeg"))
    users = helpers.spy(monkeypatch, images, "_decode_other", lambda *_: threading.current_thread())
    thread = threading.Thread(target=images.decode, args=(jpeg, 3))
    thread.start()
    thread.join(60)
    images.map_all(lambda _: images.decode(jpeg, 3), range(4), is_large=True)

    assert len(users) == 5
    assert thread not in users
    assert all(user.is_alive() for user in users)


@hypothesis.given(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])))
)
def test_png_as_pillow_and_opencv_read_it(image):
    data = images.encode(image, "png")

    with Image.open(io.BytesIO(data)) as picture:
        by_pillow = np.asarray(picture).reshape(image.shape)
    assert by_pillow.tobytes() == image.tobytes()
    assert images._decode_other(memoryview(data), image.shape[2]).tobytes() == image.tobytes()
    assert images.decode(memoryview(data), image.shape[2]).tobytes() == image.tobytes()


def test_nobody_works_on_once_an_error_is_raised(monkeypatch):
    monkeypatch.setattr(images, "_NUM_THREADS", 2)
    main, both, done = threading.get_ident(), threading.Barrier(2), []

    def work(start, stop):
        if not done:
            both.wait(30)
        if threading.get_ident() == main:
            raise ValueError("damaged")
        time.sleep(0.2)
        done.append((start, stop))

    with pytest.raises(ValueError, match="damaged"):
        images.in_runs(work, 8, is_large=True)

    assert done == [done[0], (4, 6), (6, 8)]
