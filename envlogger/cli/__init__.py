# SPDX-License-Identifier: Apache-2.0
"""The command `envlogger`: one module per subcommand."""
