# SPDX-License-Identifier: Apache-2.0
"""An agent that learns from a log alone: a DQN trained on what a random agent did in Catch.

    python examples/offline_dqn.py

It records a random agent, reads the log with `envlogger.tfds.transitions`, and trains a Q-network with
Keras, without an environment in the loop. Only then it plays, with the weights of different times. Needs
`pip install 'envlogger[demo]'`; takes half a minute on two cores.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import catch_play
import matplotlib as mpl
import numpy as np
import tqdm

import envlogger
import envlogger.tfds

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets otherwise
import tensorflow as tf

mpl.use("Agg")  # no display
from matplotlib import pyplot as plt

_BATCH_SIZE = 128
_LEARNING_RATE = 1e-3
_GAMMA = 0.99
_TARGET_PERIOD = 50  # updates until the target network gets the weights of the trained one
_CURVE_POINTS = 20
_CURVE_EPISODES = 20


def main(argv: Sequence[str] | None = None) -> None:
    """Records, trains and plays as the command line says."""
    parser = argparse.ArgumentParser(description="Trains a DQN on the log of a random agent.")
    parser.add_argument(
        "--directory", default="offline_dqn", help="for the log and the picture (%(default)s)"
    )
    parser.add_argument(
        "--episodes", type=int, default=1000, help="how many to record (%(default)s)"
    )
    parser.add_argument("--updates", type=int, default=1000, help="of the network (%(default)s)")
    parser.add_argument(
        "--test_episodes", type=int, default=500, help="that the agents play (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (%(default)s)")
    args = parser.parse_args(argv)
    for name in ("episodes", "updates", "test_episodes"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}: got {getattr(args, name)}, expected at least 1")

    log = pathlib.Path(args.directory) / "catch" / "1.0.0"
    picture = pathlib.Path(args.directory) / "learning_curve.png"
    try:
        catch_play.record(log, args.episodes, args.seed)
        snapshots = train(log, args.updates, args.seed)
    except envlogger.errors.EnvLoggerError as error:
        sys.exit(f"error: {error}")

    random_return = catch_play.play(
        catch_play.random_policy(args.seed), args.test_episodes, args.seed
    )
    network = make_network()
    policy = greedy_policy(network)
    curve = []
    for num_updates, weights in tqdm.tqdm(snapshots, "Playing", disable=None):
        network.set_weights(weights)
        curve.append((num_updates, catch_play.play(policy, _CURVE_EPISODES, args.seed)))
    trained_return = catch_play.play(policy, args.test_episodes, args.seed)
    draw(curve, random_return, picture)
    print(f"Mean return over {args.test_episodes} episodes")
    print(f"  random agent   {random_return:5.2f}")
    print(f"  trained agent  {trained_return:5.2f}")
    print(f"Learning curve: {picture}")


def greedy_policy(network: Any) -> catch_play.Policy:
    """Returns a policy that takes the action of the highest value."""
    values = tf.function(network)
    return lambda observation: int(np.argmax(values(observation[None])[0]))


def make_network() -> Any:
    """Returns a network from boards (B, 10, 5) to values (B, 3)."""
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            layers.Input((10, 5)),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(catch_play.NUM_ACTIONS),
        ]
    )


def train(log: pathlib.Path, num_updates: int, seed: int) -> list[tuple[int, Any]]:
    """Trains a network on a log, by Q-learning with a target network (Mnih et al., 2015).

    Returns:
      Numbers of updates, and the weights of the network after so many.
    """
    tf.keras.utils.set_random_seed(seed)
    network, target = make_network(), make_network()
    target.set_weights(network.get_weights())
    optimizer = tf.keras.optimizers.Adam(_LEARNING_RATE)
    loss_of = tf.keras.losses.Huber()

    transitions = envlogger.tfds.transitions(
        log,
        gamma=_GAMMA,
        batch_size=_BATCH_SIZE,
        shuffle=envlogger.tfds.Shuffle(steps=10_000, seed=seed),
    ).repeat()

    @tf.function  # type: ignore[untyped-decorator]
    def update(batch: dict[str, Any]) -> Any:
        reward, discount = (tf.cast(batch[key], tf.float32) for key in ("reward", "discount"))
        # The discount is 0 where the episode terminated: nothing comes after that.
        value = reward + discount * tf.reduce_max(target(batch["next_observation"]), axis=1)
        with tf.GradientTape() as tape:
            chosen = tf.gather(network(batch["observation"]), batch["action"], axis=1, batch_dims=1)
            loss = loss_of(value, chosen)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return loss

    snapshots = [(0, network.get_weights())]
    period = max(num_updates // _CURVE_POINTS, 1)
    bar = tqdm.tqdm(transitions.take(num_updates), "Training", num_updates, disable=None)
    for i, batch in enumerate(bar, 1):
        loss = update(batch)
        if i % _TARGET_PERIOD == 0:
            target.set_weights(network.get_weights())
        if i % period == 0 or i == num_updates:
            snapshots.append((i, network.get_weights()))
            bar.set_postfix_str(f"loss {float(loss):.4f}")
    return snapshots


def draw(curve: Sequence[tuple[int, float]], random_return: float, picture: pathlib.Path) -> None:
    """Draws the learning curve."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(*np.transpose(curve), marker=".", color="#1f6f8b", label="greedy agent")
    axes.axhline(random_return, color="#9aa5b1", linestyle="--", label="random agent")
    axes.set(
        title="DQN trained on a random agent's log of Catch",
        xlabel="updates of the network",
        ylabel=f"mean return of {_CURVE_EPISODES} episodes",
        ylim=(-1.05, 1.05),
    )
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
