# SPDX-License-Identifier: Apache-2.0
"""The process that records, acknowledges, and is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import struct
import time
import warnings
from typing import Any
from unittest import mock

import envlogger
from envlogger import errors
from envlogger.tfds import recovery, step_log

from . import scripts

_CLOSING, _CLOSED = -1, -2  # what is noted besides the numbers of calls
_open, _write = os.open, os.write  # as they are before anybody puts faults into them


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a session records, and how.

    Attributes:
      kind: Of `scripts.KINDS`.
      seed: Of the script, and the session's name.
      num_calls: After how many calls it closes.
      options: Of `EnvLogger`.
      segment_bytes: The size of the step log's segments.
      flush_every: The number of calls after which it flushes; 0 for never.
      pause: Seconds between calls, so that a slow machine gets to kill in between.
    """

    kind: str
    seed: int
    num_calls: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    segment_bytes: int = 4 << 20
    flush_every: int = 0
    pause: float = 0.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a session has acknowledged.

    Attributes:
      plan: Its plan.
      acknowledged: The numbers of the calls that returned, in order.
      is_closing: Whether it began to close.
      is_closed: Whether it was closed.
    """

    plan: Plan
    acknowledged: tuple[int, ...]
    is_closing: bool
    is_closed: bool


def record(directory: str, notes: str, plan: Plan) -> None:
    """Records a session. Where the disk is full, it goes on with the next call."""
    warnings.simplefilter("ignore")
    descriptor = _open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    script = scripts.script(plan.kind, plan.seed)
    try:
        with mock.patch.object(step_log, "_SEGMENT_BYTES", plan.segment_bytes):
            env = _make_logger(directory, plan)
            for number in range(plan.num_calls):
                call = script[number]
                with contextlib.suppress(OSError):
                    env.reset() if call.is_reset else env.step(call.data.action)
                    _note(descriptor, number)
                    if plan.flush_every and number % plan.flush_every == plan.flush_every - 1:
                        env.flush()
                time.sleep(plan.pause)
            _note(descriptor, _CLOSING)
            env.close()
            _note(descriptor, _CLOSED)
    except OSError:
        # The session could not be opened or closed; what it has is for the next one.
        os._exit(0)


def _make_logger(directory: str, plan: Plan) -> envlogger.EnvLogger:
    return envlogger.EnvLogger(
        scripts.ScriptEnv(plan.kind, plan.seed),
        scripts.step_fn,
        scripts.episode_fn,
        data_directory=directory,
        **plan.options,
    )


def _note(descriptor: int, number: int) -> None:
    _write(descriptor, struct.pack("<q", number))


def recover(directory: str, report: str) -> None:
    """Recovers a dataset, and writes down what that found."""
    with contextlib.suppress(errors.DatasetError):  # nothing was ever logged there
        found = recovery.recover(directory)
        descriptor = _open(report, os.O_WRONLY | os.O_CREAT, 0o666)
        _write(descriptor, json.dumps(dataclasses.asdict(found)).encode())


def outcome(notes: str, plan: Plan) -> Outcome:
    """Returns what a session noted before it ended."""
    data = b""
    with contextlib.suppress(FileNotFoundError), open(notes, "rb") as file:
        data = file.read()
    numbers = [number for (number,) in struct.iter_unpack("<q", data)]
    return Outcome(
        plan,
        tuple(number for number in numbers if number >= 0),
        _CLOSING in numbers,
        _CLOSED in numbers,
    )
