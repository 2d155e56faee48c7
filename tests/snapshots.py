# SPDX-License-Identifier: Apache-2.0
"""What lies below a directory, to see that it stays as it was."""

from __future__ import annotations

import os
import pathlib


def contents(directory: str | os.PathLike[str]) -> dict[str, bytes | None]:
    """Returns what each file below a directory holds, by path; None for directories."""
    return {
        os.path.relpath(path, directory): path.read_bytes() if path.is_file() else None
        for path in sorted(pathlib.Path(directory).rglob("*"))
    }


def stamps(directory: pathlib.Path) -> dict[pathlib.Path, tuple[int, int]]:
    """Returns when each thing below a directory was changed last, and its size."""
    found = {path: path.stat() for path in directory.rglob("*")}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}
