# SPDX-License-Identifier: Apache-2.0
"""The bar that commands show while they work."""

from __future__ import annotations

import shutil
from typing import Any

import tqdm


def show(total: int, unit: str, is_shown: bool | None = None, **options: Any) -> Any:
    """Returns a bar of tqdm on stderr, with what is done, the rate and the time left.

    Args:
      total: How much there is to do.
      unit: Of what.
      is_shown: Whether to show the bar; None for where stderr is a terminal.
      **options: As tqdm takes them.
    """
    # tqdm would believe a terminal that says it has no columns and no lines.
    columns, lines = shutil.get_terminal_size()
    disable = None if is_shown is None else not is_shown
    return tqdm.tqdm(total=total, unit=unit, ncols=columns, nrows=lines, disable=disable, **options)
