# SPDX-License-Identifier: Apache-2.0
"""The version of the package, and nothing else: `pyproject.toml` reads it from here."""

__version__ = "2.0.0a1"
