# SPDX-License-Identifier: Apache-2.0
"""Makes the golden dataset, which every later version has to read: `python tests/golden/make.py`.

Run it only to add a dataset of a new format beside those that are there; never to replace one.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import shutil
import sys

import dm_env
import ml_dtypes
import numpy as np


def _numbers(rng: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape))
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    native = dtype if dtype.kind == "V" else dtype.newbyteorder("=")
    array = np.frombuffer(rng.bytes(size * dtype.itemsize), native).reshape(shape)
    return array if dtype.isnative else array.byteswap().view(dtype)


_DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
    *("datetime64[ns]", "timedelta64[us]", ">i2", ">f4", ">c16", ">M8[s]"),
]


def _observation(rng: np.random.Generator, t: int) -> dict:
    dtypes = [np.dtype(name) for name in _DTYPES] + [np.dtype(ml_dtypes.bfloat16)]
    specials = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45]
    return {
        "scalars": [
            _numbers(rng, np.dtype(name), ())[()] for name in ("?", "i4", "u8", "f2", "f4")
        ],
        "arrays": {dtype.str + dtype.name: _numbers(rng, dtype, (2,)) for dtype in dtypes},
        "special": [np.array(specials, dtype) for dtype in ("f2", "f4", "f8")],
        "nan": np.array([0x7FC00123, 0xFF800001], np.uint32).view(np.float32),
        "large": rng.integers(-4, 5, 257, np.int32),
        "image": rng.integers(0, 256, (5, 7, 3), np.uint8),
        "grey": rng.integers(0, 256, (7, 5, 1), np.uint8),
        "stack": rng.integers(0, 256, (4, 4, 4), np.uint8),
        "python": (bool(t % 2), t, t / 3, complex(t, -1), f"text {t} ü\0", b"\0\xff"),
        "numpy text": [np.str_(f"{t}"), np.bytes_(b"a\0b")],
        "texts": [
            np.array([["a", "bc"], ["ü", ""]]),
            np.array([b"a", b"bcd"]),
            np.array(["x" * t, "🙂"], object),
            np.array([b"\0", b""], object),
            np.array(["a", "b"], ">U3"),
        ],
        "empty": (np.zeros((0, 3), "f4"), np.zeros((2, 0), "u4"), np.zeros((3, 0), "U2"), {}, []),
        "varying": {
            "f8": rng.random(t + 1),
            "u4": np.arange(t, dtype=np.uint32),
            "words": np.array(["w"] * t, object),
            "boxes": rng.integers(0, 9, (t + 2, 4)),
        },
        "with space/and slash": {0: np.int8(1), -1: np.int8(2), "ключ": np.int8(3)},
    }


def _plain(observation: dict) -> dict:
    """Returns the observation for JSON, which has no complex; the test undoes it."""
    *others, number, text, data = observation["python"]
    return {**observation, "python": (*others, [number.real, number.imag], text, data)}


def make() -> None:
    """Writes the dataset and what is to be read from it."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    import helpers
    import sample_datasets

    import envlogger
    from envlogger.converters import json_codec

    rng = np.random.default_rng(0)
    episodes, actions, custom, metadata = [], [], [], []
    for number, length in enumerate((3, 1, 2)):
        steps = [dm_env.restart(_observation(rng, 0))]
        for t in range(1, length):
            reward = {"a": np.float32(t), "b": -0.5 * t}
            steps.append(dm_env.transition(reward, _observation(rng, t), np.float32(0.9)))
        if number == 0:
            steps[-1] = dm_env.TimeStep(
                dm_env.StepType.LAST, steps[-1].reward, np.float32(0), steps[-1].observation
            )
        episodes.append(steps)
        actions.append([(np.int32(t), rng.random(2).astype("f4")) for t in range(length - 1)])
        later = {"added": "later"} if number == 2 else {}
        custom.append([{"clock": t, **later} if t != 1 else None for t in range(length)])
        metadata.append([None, {"score": 0.5, "tags": ["a"]}, "only a text"][number])

    shutil.rmtree(sample_datasets.GOLDEN.parent, ignore_errors=True)
    values = iter(itertools.chain(*custom))
    numbers = iter([n for n, steps in enumerate(episodes) for _ in steps])
    with envlogger.EnvLogger(
        helpers.ScriptedEnv(episodes, actions[0][0]),
        step_fn=lambda *_: next(values),
        episode_fn=lambda *_: metadata[next(numbers)],
        metadata={"agent": "golden", "nan": float("nan"), "array": np.arange(3, dtype=">i2")},
        data_directory=sample_datasets.GOLDEN,
        max_episodes_per_file=2,
        helper=False,
    ) as logger:
        helpers.play(logger, actions)

    expected = {
        "metadata": {"agent": "golden", "nan": float("nan"), "array": np.arange(3, dtype=">i2")},
        "episode_metadata": metadata,
        "episodes": [
            [
                {
                    "step_type": int(row.timestep.step_type),
                    "observation": _plain(row.timestep.observation),
                    "reward": row.timestep.reward,
                    "discount": row.timestep.discount,
                    "action": row.action,
                    "custom_data": row.custom_data,
                }
                for row in helpers.expected_steps(*parts)
            ]
            for parts in zip(episodes, actions, custom, strict=True)
        ],
    }
    text = json.dumps(json_codec.encode(expected), separators=(",", ":")) + "\n"
    sample_datasets.GOLDEN_EXPECTED.write_text(text)


if __name__ == "__main__":
    make()
