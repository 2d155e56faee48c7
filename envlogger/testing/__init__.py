# SPDX-License-Identifier: Apache-2.0
"""Environments for tests and examples."""
