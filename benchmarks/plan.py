# SPDX-License-Identifier: Apache-2.0
"""Which runs there are, and how long each is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

OURS = "ours-raw"
REFERENCE = "envlogger-1.2"

# Peer -> environment that it is installed in, label.
PEERS: dict[str, tuple[str, str]] = {
    "ours-raw": ("ours", "EnvLogger 2, raw"),
    "ours-png": ("ours", "EnvLogger 2, png"),
    "envlogger-1.2": ("envlogger-1.2", "EnvLogger 1.2 (Riegeli)"),
    "tfds": ("tfds", "TFDS SequentialWriter"),
    "rlds": ("rlds", "RLDS EpisodeWriter"),
    "minari": ("minari", "Minari (HDF5)"),
}

EPISODE_STEPS = 100

POOLED = ("catch", "control", "atari", "robot")
REAL = ("humanoid", "catch-100hz")
WORKLOADS = POOLED + REAL

REGIMES = ("paced", "saturated", "real")

# How long the environment itself is busy in a step of the paced regime, in µs.
BUSY_US = {"catch": 20, "control": 200, "atari": 300, "robot": 10_000}
_HUMANOID_US = 1000
_SLEEP_US = 10_150

# About what a step costs, in µs, when the environment costs nothing: only to choose how many steps
# fill the time of a run.
_COST_US = {
    "ours-raw": {"catch": 2.5, "control": 4, "atari": 60, "robot": 1500},
    "ours-png": {"robot": 6000},
    "envlogger-1.2": {"catch": 45, "control": 90, "atari": 150, "robot": 5000},
    "tfds": {"catch": 50, "control": 120, "atari": 350, "robot": 25_000},
    "rlds": {"catch": 50, "control": 120, "atari": 350, "robot": 25_000},
    "minari": {"catch": 200, "control": 220, "robot": 4000},
}
_PACED_S = 10.0  # of EnvLogger 1.2; ours takes as many steps
_SATURATED_S = 4.0  # of each
_HUMANOID_S = 5.0
_SLEEP_S = 10.0
_QUICKER = 8  # how much shorter runs are with --quick
_LEAST_EPISODES = 3  # of which the last may be written by close() only
_MORE_STEPS = {"robot": 2}  # so that p99.9 has some samples

# What is left out, and why.
SKIPPED = {
    **{
        ("ours-png", name): "no image of 1 or 3 channels, so it is as raw"
        for name in WORKLOADS
        if name != "robot"
    },
    ("minari", "atari"): "refuses images of 4 channels",
}
# With --quick, unless --peers says otherwise: TensorFlow takes longer to start than these to run.
QUICK_PEERS = ("ours-raw", "ours-png", "envlogger-1.2")
# Of the peers that take minutes to show little: one repetition is enough.
_REPEATED = QUICK_PEERS
# The original README's table compares with its own library alone.
_SLEEPERS = ("ours-raw", "envlogger-1.2")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of one peer on one workload.

    Attributes:
      regime: "paced", "saturated" or "real".
      busy_us: How long the pooled environment is busy in each step.
      steps: Steps and resets with the logger, after the first reset.
      timed_steps: How many of them, the first ones, are timed one by one: all, but in the saturated
        regime.
      baseline_steps: Those without it, before.
    """

    peer: str
    workload: str
    regime: str
    busy_us: int
    steps: int
    timed_steps: int
    baseline_steps: int
    repetition: int
    seed: int


def runs(
    names: Sequence[str],
    peers: Sequence[str],
    regimes: Sequence[str],
    repetitions: int,
    quick: bool,
) -> Iterator[Run]:
    """Yields the runs in order: the peers take turns within each repetition of a workload."""
    for regime in regimes:
        for name in names:
            if (name in REAL) != (regime == "real"):
                continue
            for repetition in range(repetitions):
                for peer in peers:
                    if (peer, name) in SKIPPED or (repetition and peer not in _REPEATED):
                        continue
                    if name == "catch-100hz" and (repetition or peer not in _SLEEPERS):
                        continue
                    yield _run(peer, name, regime, repetition, quick)


def _run(peer: str, name: str, regime: str, repetition: int, quick: bool) -> Run:
    if regime == "real":
        step_us, seconds = {
            "humanoid": (_HUMANOID_US, _HUMANOID_S),
            "catch-100hz": (_SLEEP_US, _SLEEP_S),
        }[name]
        busy = 0
    elif regime == "paced":
        busy = BUSY_US[name]
        as_many_as = peer if peer in ("tfds", "rlds", "minari") else REFERENCE
        step_us = busy + _COST_US[as_many_as][name]
        seconds = _PACED_S if as_many_as == REFERENCE else _PACED_S / 2
        seconds *= _MORE_STEPS.get(name, 1) if as_many_as == REFERENCE else 1
    else:
        busy, step_us, seconds = 0, _COST_US[peer][name], _SATURATED_S
    steps = _whole_episodes(seconds * 1e6 / step_us / (_QUICKER if quick else 1))
    baseline = steps if name == "catch-100hz" else _whole_episodes(steps / 5)
    steps -= 1  # the reset that opens the recording comes on top, so that the last episode is whole
    timed = steps
    if regime == "saturated":
        timed = baseline = min(baseline, 20_000)
    return Run(peer, name, regime, busy, steps, timed, baseline, repetition, seed=1000 + repetition)


def _whole_episodes(steps: float) -> int:
    return max(round(steps / EPISODE_STEPS), _LEAST_EPISODES) * EPISODE_STEPS
