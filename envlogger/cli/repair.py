# SPDX-License-Identifier: Apache-2.0
"""`envlogger repair PATH`: finishes ArrayRecord files whose writer died."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from envlogger import errors, progress_bar
from envlogger.riegeli import array_record


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to a parser."""
    parser = subparsers.add_parser(
        "repair",
        help="save the records of ArrayRecord files whose writer died",
        description="An ArrayRecord file whose writer died reads as empty, without an error. This "
        "writes its whole records to a finished file. It changes neither the original nor a file that is "
        "there already.",
    )
    parser.add_argument(
        "path",
        metavar="FILE-or-DIR",
        type=Path,
        help="the file; or a directory to look for them in",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="the file, or the directory, to write to; else each is written beside the original, "
        f"with {array_record.SUFFIX} behind its name",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    path: Path = arguments.path
    targets = {path: arguments.output or _beside(path)}
    if path.is_dir():
        targets = {source: _beside(source) for source in array_record.find_unfinished(path)}
        if arguments.output:
            targets = {source: arguments.output / source.relative_to(path) for source in targets}
    if not targets:
        print("Nothing to repair.")
        return 0
    code = 0
    size = sum(source.stat().st_size for source, target in targets.items() if not target.exists())
    is_shown = None if size else False
    with progress_bar.show(size, "B", is_shown, unit_scale=True) as bar:
        for source, target in targets.items():
            try:
                if path.is_dir():
                    target.parent.mkdir(parents=True, exist_ok=True)
                bar.write(_repair(source, target, bar.update))
            except (errors.EnvLoggerError, OSError) as error:
                bar.write(f"error: {error}", file=sys.stderr)
                code = 1
    return code


def _repair(source: Path, target: Path, advance: Callable[[int], object]) -> str:
    """Repairs a file, once; returns what to say of it."""
    if array_record.is_repaired(source, target):
        return f"{source}: was repaired before; what was saved is in {target}"
    return str(array_record.repair(source, target, advance))


def _beside(path: Path) -> Path:
    return path.with_name(path.name + array_record.SUFFIX)
