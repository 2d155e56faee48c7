# SPDX-License-Identifier: Apache-2.0
"""Behaviour cloning with PyTorch, and without TensorFlow, from the log of `offline_dqn.py`.

    python examples/behaviour_cloning_torch.py

The log is of a random agent in Catch, which is not worth imitating; but now and then it catches the ball.
A network learns to do what it did in those episodes, and only then it plays. Records the log if it is not
there yet. Needs `pip install 'envlogger[torch]'`; takes ten seconds on two cores.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import catch_play
import numpy as np
import torch
import tqdm
from torch.utils import data

import envlogger

_BATCH_SIZE = 128
_LEARNING_RATE = 1e-3


def main(argv: Sequence[str] | None = None) -> None:
    """Records, trains and plays as the command line says."""
    parser = argparse.ArgumentParser(description="Clones what a random agent did when it won.")
    parser.add_argument("--directory", default="offline_dqn", help="of the log (%(default)s)")
    parser.add_argument(
        "--episodes", type=int, default=1000, help="how many to record (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=15, help="of training (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes that load (%(default)s)")
    parser.add_argument(
        "--test_episodes", type=int, default=500, help="that the agents play (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (%(default)s)")
    args = parser.parse_args(argv)
    for name, least in (("episodes", 1), ("epochs", 1), ("workers", 0), ("test_episodes", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name}: got {getattr(args, name)}, expected at least {least}")

    log = pathlib.Path(args.directory) / "catch" / "1.0.0"
    try:
        catch_play.record(log, args.episodes, args.seed)
        with envlogger.Reader(log) as reader:
            examples = won_steps(reader)
            network = train(examples, args.epochs, args.workers, args.seed)
    except envlogger.errors.EnvLoggerError as error:
        sys.exit(f"error: {error}")

    print(f"Mean return over {args.test_episodes} episodes")
    for name, policy in (
        ("random", catch_play.random_policy(args.seed)),
        ("cloned", greedy_policy(network)),
    ):
        print(f"  {name} agent  {catch_play.play(policy, args.test_episodes, args.seed):5.2f}")


def won_steps(reader: envlogger.Reader) -> data.Dataset[Any]:
    """Returns the steps of the episodes in which the ball was caught."""
    transitions = envlogger.Transitions(reader)
    returns = [episode.columns(["reward"])["reward"].sum() for episode in reader.episodes]
    is_won = np.array(returns) > 0
    if not is_won.any():
        sys.exit("error: the ball was caught in no episode. Record more: --episodes=1000")
    print(f"Cloning {is_won.sum()} of {len(is_won)} episodes, those with a return above 0")
    # An episode of T steps has T - 1 transitions.
    places = np.flatnonzero(np.repeat(is_won, reader.episode_lengths() - 1))
    return data.Subset(transitions, places.tolist())


def train(examples: data.Dataset[Any], num_epochs: int, num_workers: int, seed: int) -> Any:
    """Returns a network that was trained to tell the action from the observation."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(50, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, catch_play.NUM_ACTIONS),
    )
    optimizer = torch.optim.Adam(network.parameters(), _LEARNING_RATE, weight_decay=1e-4)
    loss_of = torch.nn.CrossEntropyLoss()
    loader = data.DataLoader(
        examples,
        batch_size=_BATCH_SIZE,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    bar = tqdm.trange(num_epochs, desc="Training", unit="epoch", disable=None)
    for _ in bar:
        for batch in loader:
            loss = loss_of(network(batch["observation"]), batch["action"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        bar.set_postfix_str(f"loss {loss.item():.4f}")
    return network


def greedy_policy(network: Any) -> catch_play.Policy:
    """Returns a policy that takes the likeliest action."""

    def policy(observation: Any) -> int:
        with torch.no_grad():
            return int(network(torch.as_tensor(observation)[None]).argmax())

    return policy


if __name__ == "__main__":
    main()
