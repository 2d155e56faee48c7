# SPDX-License-Identifier: Apache-2.0
"""Makes `helpers` importable from every test (pytest adds the directory of a conftest to the path)."""

import importlib.util

# They run in an environment of their own; see the Makefile.
collect_ignore = [] if importlib.util.find_spec("apache_beam") else ["beam"]
