# SPDX-License-Identifier: Apache-2.0
"""The command `envlogger` and what its subcommands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from envlogger import errors
from envlogger.cli import convert, recover, repair

_COMMANDS = (convert, recover, repair)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
      arguments: The command line without the program; None for this process's.

    Returns:
      The exit code: 0 if all went well, 1 if something failed. (argparse ends with 2.)
    """
    parser = argparse.ArgumentParser(
        prog="envlogger", description="Looks after datasets that EnvLogger recorded."
    )
    subparsers = parser.add_subparsers(title="commands", required=True)
    for command in _COMMANDS:
        command.add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except (errors.EnvLoggerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code
