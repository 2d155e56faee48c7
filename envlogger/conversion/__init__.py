# SPDX-License-Identifier: Apache-2.0
"""Turns logs and datasets of other kinds into datasets of this library's form: `envlogger.convert`.

converting        the function, and what it does from beginning to end
sources           what can be converted; one module for each kind
episode_encoder   the part that deals with one episode, on any machine
tasks, pool       ranges of episodes, done here or by processes
work              the directory in which a conversion is under way, and goes on after a kill
"""
