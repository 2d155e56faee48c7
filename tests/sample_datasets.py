# SPDX-License-Identifier: Apache-2.0
"""Where the datasets lie that earlier versions and other programs wrote.

`Reader` keeps how many steps a dataset of others has beside it: whoever needs that reads a copy.
"""

from __future__ import annotations

import pathlib

_TESTS = pathlib.Path(__file__).parent

# By an earlier version of this library; `golden/make.py` made it.
GOLDEN = _TESTS / "golden" / "everything" / "1.0.0"
# What must come out of it, as JSON.
GOLDEN_EXPECTED = _TESTS / "golden" / "expected.json"

# By other programs; see `data/tfds_legacy/README.md`.
OTHERS = _TESTS / "data" / "tfds_legacy"
CATCH = OTHERS / "envlogger12_catch" / "0.0.1"
OPENX = OTHERS / "openx_style" / "1.0.0"
