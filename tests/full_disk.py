# SPDX-License-Identifier: Apache-2.0
"""Fills a small disk while recording; `test_full_disk.py` runs this where the disk is small.

    python full_disk.py DIRECTORY HELPER [LIMIT]

With LIMIT, no disk is small, but this process and its helpers may not make files larger than so many
bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import shutil
import sys
import warnings

import numpy as np
from dm_env import restart, specs, transition

import envlogger
from envlogger import environment_wrapper
from envlogger.testing import catch_env

_ROWS = 50


class _Noise(environment_wrapper.EnvironmentWrapper):
    """Catch with 20 kB of noise in each step, which no codec makes smaller."""

    def __init__(self) -> None:
        super().__init__(catch_env.Catch(rows=_ROWS))
        self._rng = np.random.default_rng(0)

    def reset(self):
        self._environment.reset()
        return restart(self._noise())

    def step(self, action):
        timestep = self._environment.step(action)
        if timestep.last():
            return timestep._replace(observation=self._noise())
        return transition(0.0, self._noise())

    def observation_spec(self):
        return specs.Array((20_000,), np.uint8)

    def _noise(self):
        return self._rng.integers(0, 256, 20_000, np.uint8)


class _Recording:
    """Records until the disk is full, and notes what was acknowledged."""

    def __init__(self, directory: str, helper: bool) -> None:
        self._directory = directory
        self._helper = helper
        self._numbers = itertools.count()
        self._number = -1
        self.acknowledged: list[int] = []
        self.num_errors = 0

    def open(self) -> envlogger.EnvLogger:
        return envlogger.EnvLogger(
            _Noise(),
            step_fn=self._step_fn,
            data_directory=self._directory,
            max_episodes_per_file=3,
            helper=self._helper,
        )

    def _step_fn(self, timestep, action, env):
        self._number = next(self._numbers)
        return self._number

    def play(self, env: envlogger.EnvLogger, num_calls: int) -> None:
        """Takes steps; whatever cannot be stored is left out."""
        for _ in range(num_calls):
            try:
                env.step(1)
                self.acknowledged.append(self._number)
            except OSError:
                self.num_errors += 1

    def play_until_full(self, env: envlogger.EnvLogger) -> None:
        before = self.num_errors
        while self.num_errors < before + 5:
            self.play(env, 1)

    def check(self) -> None:
        """Raises unless what was acknowledged is there, once and in order."""
        with envlogger.Reader(self._directory) as reader:
            found = [step.custom_data for step in reader.steps]
        assert all(a < b for a, b in itertools.pairwise(found)), "out of order, or twice"
        lost = set(self.acknowledged) - set(found)
        assert not lost, f"lost: {sorted(lost)[:20]}"
        extra = set(found) - set(self.acknowledged)
        assert len(extra) <= self.num_errors, f"never acknowledged: {sorted(extra)[:20]}"


def main(directory: str, helper: bool, limit: int | None) -> None:
    warnings.simplefilter("ignore")
    place = os.path.join(directory, "noise")
    ballast = os.path.join(directory, "ballast")
    recording = _Recording(os.path.join(place, "1.0.0"), helper)

    def allow_files_of(size: int) -> None:
        for pid in (os.getpid(), *_children()):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def fill() -> None:
        if limit is not None:
            allow_files_of(limit)
            return
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def make_space() -> None:
        if limit is not None:
            allow_files_of(resource.RLIM_INFINITY)
            return
        os.unlink(ballast)

    # The disk is full in the middle of a run, which goes on when there is space again.
    env = recording.open()
    recording.play(env, 3 * _ROWS)
    fill()
    recording.play_until_full(env)
    make_space()
    errors = recording.num_errors
    recording.play(env, 7 * _ROWS)
    assert recording.num_errors < errors + 7 * _ROWS / 2, "it does not go on"
    env.close()
    recording.check()

    # It is full when the run ends, and the next run finds what is left.
    shutil.rmtree(place)
    recording.acknowledged.clear()
    env = recording.open()
    recording.play(env, 2 * _ROWS)
    fill()
    recording.play_until_full(env)
    with contextlib.suppress(OSError):
        env.close()
    make_space()
    with recording.open() as env:
        recording.play(env, 2 * _ROWS)
    recording.check()
    assert os.listdir(os.path.join(place, "1.0.0", ".envlogger", "sessions")) == []


def _children() -> list[int]:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import processes

    return processes.children(os.getpid())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "helper", int(sys.argv[3]) if len(sys.argv) > 3 else None)
    print("all is there")
