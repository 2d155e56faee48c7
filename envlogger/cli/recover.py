# SPDX-License-Identifier: Apache-2.0
"""`envlogger recover DIR`: publishes what recording processes that died have left behind."""

from __future__ import annotations

import argparse
from typing import Any

from envlogger.tfds import recovery


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to a parser."""
    parser = subparsers.add_parser(
        "recover",
        help="publish what recording processes that died have left behind",
        description="Publishes the steps that recording processes left behind when they died. The "
        "next process that records into the directory does the same by itself. It is safe to run "
        "twice, and beside processes that record: it leaves their sessions alone.",
    )
    parser.add_argument("directory", metavar="DIR", help="the data_directory that was logged into")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    report = recovery.recover(arguments.directory)
    print(report)
    return 1 if report.failed else 0
