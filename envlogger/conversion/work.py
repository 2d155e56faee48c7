# SPDX-License-Identifier: Apache-2.0
"""The directory in which a conversion is under way, and from which another run of it goes on.

    <directory>/
      lock        locked (flock) while a process converts
      progress    JSON lines: what is converted, then what each task has made
      part-…      shards; those that `progress` does not name are left over from a kill

A shard is complete, and on disk, before the line that names it is written; a line without its end is not
there. So whatever is killed, a task counts wholly or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from envlogger import errors
from envlogger.conversion.tasks import Result, Task
from envlogger.tfds import session, shards

_LOCK = "lock"
_PROGRESS = "progress"


class WorkDirectory:
    """A conversion that is under way in this process. Close it.

    Args:
      path: The directory, which is made if it is missing.
      plan: What is converted, and how, as JSON: another run goes on only with the same.
      to_restart: What the error says one can do where the plan is another.

    Attributes:
      path: The directory.
      plan: What is converted, as the run that began it said.
      results: What has been made, by task.

    Raises:
      DatasetError: Another process is at it, or began something else.
    """

    def __init__(self, path: str, plan: Mapping[str, Any], to_restart: str) -> None:
        self.path = path
        os.makedirs(path, exist_ok=True)
        self._lock = session.Lock(path, _LOCK)
        if not self._lock.acquire(wait=False):
            raise errors.DatasetError(
                f"{path}: another process is converting there. Wait for its end, or stop it; what it "
                "has done is kept."
            )
        self.results: dict[Task, Result] = {}
        self._file = -1
        try:
            self.plan = self._read_plan(plan, to_restart)
            self._remove_leftovers()
        except BaseException:
            self.close()
            raise

    def part_path(self, name: str) -> str:
        """Returns where a shard of a task is."""
        return os.path.join(self.path, name)

    def add(self, task: Task, result: Result) -> None:
        """Notes what a task has made; from then on another run need not do it again."""
        self._append({"task": vars(task), "result": result.to_json()})
        self.results[task] = result

    def remove(self) -> None:
        """Removes the directory: the conversion is over."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Lets go of the directory."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._lock.release()

    def _read_plan(self, plan: Mapping[str, Any], to_restart: str) -> Mapping[str, Any]:
        path = os.path.join(self.path, _PROGRESS)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with open(path, "rb") as file:
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        os.ftruncate(self._file, len(whole))
        os.lseek(self._file, 0, os.SEEK_END)
        lines = [json.loads(line) for line in whole.splitlines()]
        if not lines:
            self._append({"plan": plan})
            return plan
        found: Mapping[str, Any] = lines[0]["plan"]
        if found["of"] != json.loads(json.dumps(plan["of"])):
            raise errors.DatasetError(
                f"{self.path}: a conversion was begun there of something else, or its source has "
                f"changed since. {to_restart}"
            )
        for line in lines[1:]:
            self.results[Task(**line["task"])] = Result.from_json(line["result"])
        return found

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        position = os.lseek(self._file, 0, os.SEEK_CUR)
        if os.write(self._file, line) != len(line):
            os.ftruncate(self._file, position)
            os.lseek(self._file, position, os.SEEK_SET)
            raise OSError(28, "No space left on device", self.path)
        os.fsync(self._file)
        shards.sync_file(self.path)

    def _remove_leftovers(self) -> None:
        named = {part.name for result in self.results.values() for part in result.parts}
        for name in os.listdir(self.path):
            if name.startswith("part-") and name not in named:
                os.unlink(self.part_path(name))
