# SPDX-License-Identifier: Apache-2.0
"""`envlogger repair PATH`: finishes ArrayRecord files whose writer died."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from envlogger import errors
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
    if not path.is_dir():
        print(_repair(path, arguments.output or _beside(path)))
        return 0
    code = 0
    found = array_record.find_unfinished(path)
    for source in found:
        target = _beside(source)
        if arguments.output:
            target = arguments.output / source.relative_to(path)
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            print(_repair(source, target))
        except (errors.EnvLoggerError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            code = 1
    if not found:
        print("Nothing to repair.")
    return code


def _repair(source: Path, target: Path) -> str:
    """Repairs a file, once; returns what to say of it."""
    if array_record.is_repaired(source, target):
        return f"{source}: was repaired before; what was saved is in {target}"
    return str(array_record.repair(source, target))


def _beside(path: Path) -> Path:
    return path.with_name(path.name + array_record.SUFFIX)
