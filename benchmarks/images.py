# SPDX-License-Identifier: Apache-2.0
"""Synthetic frames that compress as camera images and as arcade screens do."""

from __future__ import annotations

import numpy as np

# Chosen so that PNG (OpenCV, level 1) keeps 0.55 of the bytes, and JPEG 95 0.14.
_SLOPE = 1.5  # amplitudes fall as 1 / frequency ** _SLOPE
_NOISE = 1.5  # of the sensor, in grey levels
_BALL_SPEED = (2, 3)
_BRICK_GREYS = (200, 180, 160, 130, 100, 80)


def natural_frames(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Returns what a camera sees that pans over a scene: uint8 (count, size, size, 3).

    The scene has the falling spectrum of natural images and colours that go with its brightness; each
    frame has noise of its own.
    """
    world = 2 * size
    luma = _texture(rng, world)
    scene = np.stack([0.85 * luma + 0.25 * _texture(rng, world) for _ in range(3)], axis=-1)
    scene = (118 + 48 * scene / scene.std()).astype(np.float32)
    frames = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        angle = 2 * np.pi * i / 300
        y = int(size / 2 * (1 + np.sin(angle)))
        x = int(size / 2 * (1 + np.cos(angle)))
        noise = rng.standard_normal((size, size, 3), np.float32) * _NOISE
        frames[i] = np.clip(scene[y : y + size, x : x + size] + noise, 0, 255)
    return frames


def arcade_frames(rng: np.random.Generator, count: int, size: int = 84) -> np.ndarray:
    """Returns the screens of a game of bricks, ball and paddle: uint8 (count, size, size)."""
    screen = np.zeros((size, size), np.uint8)
    screen[:8] = 142
    screen[:, :4] = screen[:, -4:] = 142
    for row, grey in enumerate(_BRICK_GREYS):
        screen[18 + 3 * row : 21 + 3 * row, 4:-4] = grey
    frames = np.empty((count, size, size), np.uint8)
    ball = np.array([size // 2, int(rng.integers(10, size - 10))])
    speed = np.array(_BALL_SPEED)
    for i in range(count):
        ball = ball + speed
        if ball[0] >= size - 6 or ball[0] <= 10:
            speed[0] = -speed[0]
        if ball[1] >= size - 6 or ball[1] <= 5:
            speed[1] = -speed[1]
        ball = np.clip(ball, 8, size - 6)
        if 16 <= ball[0] < 36 and rng.random() < 0.3:  # a brick goes
            column = 4 + (ball[1] - 4) // 6 * 6
            screen[18 + (ball[0] - 18) // 3 * 3 :, column : min(column + 6, size - 4)][:3] = 0
        frames[i] = screen
        frames[i, ball[0] : ball[0] + 2, ball[1] : ball[1] + 2] = 236
        paddle = int(np.clip(ball[1] + rng.integers(-4, 5), 4, size - 16))
        frames[i, size - 4 : size - 2, paddle : paddle + 12] = 220
        frames[i, 2:6, 10 + 4 * (i // 40 % 10) :][:, :3] = 255  # the score
    return frames


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns float64 (size, size), mean 0 and deviation 1, with amplitudes that fall with frequency."""
    frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequencies[0, 0] = np.inf
    phases = np.exp(2j * np.pi * rng.random(frequencies.shape))
    texture = np.fft.irfft2(phases / frequencies**_SLOPE, s=(size, size))
    return (texture - texture.mean()) / texture.std()
