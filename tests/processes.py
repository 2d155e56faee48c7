# SPDX-License-Identifier: Apache-2.0
"""Programs in processes of their own; and recording ones, for tests that kill, stop and interrupt them.

A recording program numbers its calls of `reset()` and `step()` from 0, records the number with the
step, and notes it in a file once the call has returned. So whatever happens to the process, the
numbers in the file must be in the dataset; the one behind the last may be there, too.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import helpers

# Only something that hangs takes so long.
PATIENCE = 120.0

_ROOT = str(pathlib.Path(__file__).parents[1])

_PRELUDE = """
import itertools, os, signal, sys, time
import envlogger
from envlogger.testing import catch_env

# As at a terminal: what a shell runs in the background begins with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
directory, notes = sys.argv[1:3]
notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
numbers = itertools.count()

def make(env=None, **options):
    return envlogger.EnvLogger(
        env or catch_env.Catch(rows=5, columns=3),
        step_fn=lambda timestep, action, env: next(numbers),
        data_directory=directory,
        **options,
    )

def play(env, num_calls=None):
    calls = itertools.count() if num_calls is None else range(num_calls)
    for _ in calls:
        env.step(1)
        os.write(notes, b".")
"""


def python(
    program: str,
    *arguments: Any,
    status: int = 0,
    cwd: Any = None,
    env: Mapping[str, str] = os.environ,
    timeout: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Runs Python code, which finds this package wherever it runs; fails unless it ends with a status."""
    path = os.pathsep.join(filter(None, [_ROOT, env.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        cwd=cwd,
        env={**env, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result


class Program:
    """A process that runs a program with `make` and `play`.

    Args:
      program: Its source.
      directory: Where it records.
      place: A directory for the files of the test.
      name: Which one it is, if there are several.
      before: The beginning of the command that runs it.
    """

    def __init__(
        self,
        program: str,
        directory: Any,
        place: pathlib.Path,
        name: str = "program",
        before: Sequence[str] = (),
    ) -> None:
        self._notes = place / f"{name}.notes"
        self._errors = place / f"{name}.stderr"
        source = _PRELUDE + textwrap.dedent(program)
        with open(self._errors, "wb") as file:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-c", source, str(directory), str(self._notes)],
                stdin=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )

    @property
    def num_acknowledged(self) -> int:
        """How many calls have returned."""
        return self._notes.stat().st_size if self._notes.exists() else 0

    @property
    def stderr(self) -> str:
        """What it and its helper have printed."""
        return self._errors.read_text(errors="replace")

    def wait(self) -> int:
        """Waits for its end; returns the exit code, negative for a signal."""
        return self.process.wait(PATIENCE)

    def wait_for_calls(self, count: int) -> None:
        """Waits until so many calls have returned."""
        self._wait_for(lambda: self.num_acknowledged >= count)

    def wait_for_helper(self) -> int:
        """Waits until it has a helper; returns its process id."""
        self._wait_for(lambda: helpers_of(self.process.pid))
        return helpers_of(self.process.pid)[0]

    def wait_for_child(self) -> int:
        """Waits until it has a child; returns its process id."""
        self._wait_for(lambda: children(self.process.pid))
        return children(self.process.pid)[0]

    def kill(self) -> None:
        """Kills it, and waits until that is done."""
        self.process.kill()
        self.wait()

    def _wait_for(self, condition: Callable[[], object]) -> None:
        def condition_or_end() -> object:
            return condition() or self.process.poll() is not None

        wait_for(condition_or_end)
        assert condition(), f"the process ended with {self.process.returncode}:\n{self.stderr}"


def run(program: str, directory: Any, place: pathlib.Path) -> Program:
    """Runs a program to its end, which must be a good one."""
    finished = Program(program, directory, place)
    assert finished.wait() == 0, finished.stderr
    return finished


def wait_for(condition: Callable[[], object]) -> None:
    """Waits until something is so."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, "what was waited for has not come"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Returns the children of a process that are not dead."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                _, _, rest = (entry / "stat").read_text().rpartition(")")
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, parent = rest.split()[:2]
            if int(parent) == pid and state not in "ZX":
                found.append(int(entry.name))
    return found


def helpers_of(pid: int) -> list[int]:
    """Returns the helpers of a process that are not dead."""
    found = []
    for child in children(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (
                b"envlogger.tfds import helper"
                in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
            ):
                found.append(child)
    return found


def helper_of_this_process() -> int:
    """Returns the helper of the only logger that this process has open."""
    wait_for(lambda: helpers_of(os.getpid()))
    return helpers_of(os.getpid())[0]


def kill(pid: int) -> None:
    """Kills a process and waits until it is dead; its parent may not have noticed."""
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not _is_alive(pid))


def _is_alive(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def numbers(directory: Any) -> list[list[int]]:
    """Returns the numbers of the calls in each episode."""
    if not os.path.exists(os.path.join(directory, "dataset_info.json")):
        return []
    return [[step.custom_data for step in episode] for episode in helpers.read(directory)]


def assert_complete(directory: Any, program: Program, *, may_have_more: bool = False) -> None:
    """Raises unless all acknowledged calls are there once, and in order."""
    found = [number for episode in numbers(directory) for number in episode]
    expected = list(range(program.num_acknowledged))
    if may_have_more and len(found) == len(expected) + 1:
        expected.append(len(expected))
    assert found == expected


def sessions(directory: pathlib.Path) -> list[str]:
    """Returns the sessions that have something left, live or dead."""
    staged = directory.parent / f"incomplete.envlogger_{directory.name}"
    places = [path / ".envlogger" / "sessions" for path in (directory, staged)]
    return [name for place in places if place.is_dir() for name in os.listdir(place)]
