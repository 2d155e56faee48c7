# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime
import itertools
import pickle

import dm_env
import numpy as np
import pytest

from envlogger import errors, step_data
from envlogger.backends import schedulers

FIRST, MID, LAST = (
    step_data.StepData(timestep, None)
    for timestep in (dm_env.restart(0), dm_env.transition(0.0, 0), dm_env.termination(0.0, 0))
)
EPISODE = [FIRST, MID, MID, LAST]
ABANDONED = [FIRST, MID]
EPISODE_SCHEDULERS = {
    "every": lambda: schedulers.NEpisodeScheduler(2),
    "bernoulli": lambda: schedulers.BernoulliEpisodeScheduler(0.5, seed=3),
    "list": lambda: schedulers.ListEpisodeScheduler([0, 2, 5, 6]),
}


def _decide(scheduler, *episodes):
    """Returns the decisions, one list per episode."""
    return [[scheduler(step) for step in episode] for episode in episodes]


class TestStepSchedulers:
    @pytest.mark.parametrize("interval", [1, 2, 3, 10])
    def test_every_nth(self, interval):
        scheduler = schedulers.NStepScheduler(step_interval=interval)

        assert [scheduler(step) for step in EPISODE * 5] == [i % interval == 0 for i in range(20)]

    @pytest.mark.parametrize(
        "steps", [[0, 1, 5], (5, 1, 0, 0), np.array([0, 1, 5]), np.array([5, 0, 1], np.uint8)]
    )
    def test_listed(self, steps):
        scheduler = schedulers.ListStepScheduler(desired_steps=steps)

        assert [scheduler(None) for _ in range(7)] == [i in (0, 1, 5) for i in range(7)]

    @pytest.mark.parametrize(
        ("probability", "low", "high"), [(0, 0, 0), (1, 1, 1), (0.2, 0.1, 0.3)]
    )
    def test_bernoulli_keeps_the_fraction(self, probability, low, high):
        scheduler = schedulers.BernoulliStepScheduler(keep_probability=probability, seed=0)

        assert low <= np.mean([scheduler(MID) for _ in range(1000)]) <= high

    def test_bernoulli_is_repeatable_and_draws_as_envlogger_1(self):
        scheduler = schedulers.BernoulliStepScheduler(keep_probability=0.5, seed=7)

        expected = np.random.default_rng(7).random(100) < 0.5
        assert [scheduler() for _ in range(100)] == expected.tolist()

    def test_may_be_called_without_a_step(self):
        for scheduler in (
            schedulers.NStepScheduler(1),
            schedulers.BernoulliStepScheduler(1.0),
            schedulers.ListStepScheduler([0]),
        ):
            assert scheduler() is True


class TestTimeScheduler:
    @pytest.mark.parametrize("interval", [2, 2.0, datetime.timedelta(seconds=2)])
    def test_true_after_each_interval(self, interval):
        now = 10.0
        scheduler = schedulers.TimeScheduler(interval, clock=lambda: now)

        decisions = []
        for now in (10.0, 11.9, 12.0, 12.1, 13.9, 15.0, 16.9, 17.0):  # noqa: B007
            decisions.append(scheduler(MID))

        assert decisions == [False, False, True, False, False, True, False, True]

    def test_default_clock_runs(self):
        scheduler = schedulers.TimeScheduler(1e-9)

        assert any(scheduler() for _ in range(1000))


class TestEpisodeSchedulers:
    def test_every_nth(self):
        scheduler = schedulers.NEpisodeScheduler(episode_interval=3)

        assert _decide(scheduler, *[EPISODE] * 7) == [[i % 3 == 0] * 4 for i in range(7)]

    @pytest.mark.parametrize("episodes", [[1, 4], np.array([4, 1], np.int32)])
    def test_listed(self, episodes):
        scheduler = schedulers.ListEpisodeScheduler(desired_episodes=episodes)

        assert _decide(scheduler, *[EPISODE] * 6) == [[i in (1, 4)] * 4 for i in range(6)]

    @pytest.mark.parametrize(
        ("probability", "low", "high"), [(0, 0, 0), (1, 1, 1), (0.2, 0.1, 0.3)]
    )
    def test_bernoulli_keeps_the_fraction(self, probability, low, high):
        scheduler = schedulers.BernoulliEpisodeScheduler(keep_probability=probability, seed=0)

        assert low <= np.mean(_decide(scheduler, *[EPISODE] * 1000)) <= high

    def test_bernoulli_draws_as_envlogger_1(self):
        scheduler = schedulers.BernoulliEpisodeScheduler(keep_probability=0.5, seed=7)

        expected = np.random.default_rng(7).random(100) < 0.5
        first_steps = [episode[0] for episode in _decide(scheduler, *[EPISODE] * 100)]
        assert first_steps == expected.tolist()

    @pytest.mark.parametrize("make", EPISODE_SCHEDULERS.values(), ids=EPISODE_SCHEDULERS)
    def test_one_decision_per_episode_whichever_way_it_ends(self, make):
        # All orders of complete, abandoned, reset-at-once and one-step episodes.
        kinds = [EPISODE, ABANDONED, [FIRST], [FIRST, LAST]]
        for episodes in itertools.permutations(kinds * 2, 5):
            complete = [decisions[0] for decisions in _decide(make(), *[EPISODE] * 5)]

            decided = _decide(make(), *episodes)

            assert [set(decisions) for decisions in decided] == [{keep} for keep in complete]

    @pytest.mark.parametrize("make", EPISODE_SCHEDULERS.values(), ids=EPISODE_SCHEDULERS)
    def test_steps_without_a_first_begin_an_episode_after_last(self, make):
        complete = [decisions[0] for decisions in _decide(make(), *[EPISODE] * 3)]

        decided = _decide(make(), [MID, LAST], [MID, MID, LAST], [LAST])

        assert [set(decisions) for decisions in decided] == [{keep} for keep in complete]

    def test_decisions_are_bools(self):
        for make in EPISODE_SCHEDULERS.values():
            assert type(make()(FIRST)) is bool


class TestArguments:
    @pytest.mark.parametrize(
        "make", [schedulers.NStepScheduler, schedulers.NEpisodeScheduler], ids=str
    )
    @pytest.mark.parametrize("value", [0, -1, 2.5, "2", None, True])
    def test_must_be_a_count(self, make, value):
        with pytest.raises(
            errors.OptionError, match=r"_interval: got .*expected an integer of at least 1"
        ):
            make(value)

    @pytest.mark.parametrize(
        "value", [0, -1.5, float("nan"), datetime.timedelta(seconds=-1), "1", None]
    )
    def test_must_be_a_time(self, value):
        with pytest.raises(errors.OptionError, match=r"interval: got .*expected a timedelta, or"):
            schedulers.TimeScheduler(value)

    @pytest.mark.parametrize(
        "make", [schedulers.BernoulliStepScheduler, schedulers.BernoulliEpisodeScheduler]
    )
    @pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), "0.5", None])
    def test_must_be_a_probability(self, make, value):
        with pytest.raises(
            errors.OptionError, match=r"keep_probability: got .*expected a number in \[0, 1\]"
        ):
            make(value)

    @pytest.mark.parametrize(
        "make", [schedulers.ListStepScheduler, schedulers.ListEpisodeScheduler]
    )
    def test_must_be_a_list_of_integers(self, make):
        with pytest.raises(
            errors.OptionError, match=r"desired_\w+: got an array of float64, expected one of int"
        ):
            make(np.array([1.0, 2.0]))
        for value in ([1, 2.5], 3):
            with pytest.raises(errors.OptionError, match="expected a sequence of integers"):
                make(value)
        for empty in ([], np.array([], np.int64)):
            with pytest.raises(errors.OptionError, match="got none, expected at least one"):
                make(empty)


@pytest.mark.parametrize("make", EPISODE_SCHEDULERS.values(), ids=EPISODE_SCHEDULERS)
def test_state_survives_pickling(make):
    scheduler = make()
    _decide(scheduler, EPISODE, ABANDONED)

    restored = pickle.loads(pickle.dumps(scheduler))

    assert _decide(restored, *[EPISODE] * 5) == _decide(scheduler, *[EPISODE] * 5)
