# SPDX-License-Identifier: Apache-2.0
"""Makes `helpers` importable from every test (pytest adds the directory of a conftest to the path)."""
