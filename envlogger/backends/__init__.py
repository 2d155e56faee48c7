# SPDX-License-Identifier: Apache-2.0
"""Where steps go and where they come from: the extension point of `EnvLogger` and `Reader`."""
