# SPDX-License-Identifier: Apache-2.0
"""What recording costs: EnvLogger against its peers, by one command (`python -m benchmarks`)."""
