# SPDX-License-Identifier: Apache-2.0
"""Specs and metadata to plain data and back."""
