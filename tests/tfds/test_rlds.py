# SPDX-License-Identifier: Apache-2.0
"""rlds' own transformations on a logged dataset, against numpy; and how rlds gets imported."""

from __future__ import annotations

import textwrap
import warnings

import helpers
import numpy as np
import processes
import pytest
import tf_reading

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the imports say is not ours
    import tensorflow as tf
    import tensorflow_datasets as tfds

    import envlogger.tfds

    rlds = envlogger.tfds.import_rlds()

LENGTHS = [5, 3, 6]


def _timesteps(index, length):
    rng = np.random.default_rng(index)
    observations = rng.standard_normal((length, 2)).astype(np.float32)
    rewards = rng.standard_normal(length)
    # The second episode is left by reset(); the others terminate.
    is_left = index == 1
    return [
        helpers.first(observations[0]),
        *(helpers.mid(observations[t], rewards[t]) for t in range(1, length - 1)),
        (helpers.mid if is_left else helpers.last)(observations[-1], rewards[-1]),
    ]


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Three episodes, as stock TFDS reads them."""
    path = tmp_path_factory.mktemp("rlds") / "run"
    helpers.record(path, [_timesteps(i, length) for i, length in enumerate(LENGTHS)])
    builder = tfds.builder_from_directory(path)
    return builder.as_dataset(split="train", read_config=tf_reading.IN_ORDER)


@pytest.fixture(scope="module")
def episodes():
    """The same as numpy columns, in RLDS' alignment."""
    result = []
    for i, length in enumerate(LENGTHS):
        steps = _timesteps(i, length)
        result.append(
            {
                "observation": np.stack([step.observation for step in steps]),
                "action": np.array([*range(length - 1), 0]),
                "reward": np.array([*(step.reward for step in steps[1:]), 0.0]),
                "is_first": np.arange(length) == 0,
                "is_last": np.arange(length) == length - 1,
                "is_terminal": (np.arange(length) == length - 1) & (i != 1),
            }
        )
    return result


def _columns(steps):
    return next(iter(steps.batch(1000).as_numpy_iterator()))


def _steps(logged):
    return [episode[rlds.STEPS] for episode in logged]


def _assert_columns(got, expected, names=("observation", "action", "reward", "is_last")):
    for name in names:
        np.testing.assert_array_equal(got[name], expected[name])


def test_the_dataset_has_all_of_rlds_fields(logged, episodes):
    assert set(rlds.CORE_STEP_FIELDS) <= logged.element_spec[rlds.STEPS].element_spec.keys()
    for steps, expected in zip(_steps(logged), episodes, strict=True):
        _assert_columns(_columns(steps), expected, expected)


@pytest.mark.parametrize(("size", "shift"), [(2, 1), (3, 2), (2, 2)])
@pytest.mark.parametrize("drop_remainder", [False, True])
def test_batch(logged, episodes, size, shift, drop_remainder):
    for steps, expected in zip(_steps(logged), episodes, strict=True):
        batches = rlds.transformations.batch(
            steps, size=size, shift=shift, drop_remainder=drop_remainder
        )

        starts = range(0, len(expected["reward"]), shift)
        if drop_remainder:
            starts = [t for t in starts if t + size <= len(expected["reward"])]
        got = list(batches.as_numpy_iterator())
        assert len(got) == len(starts)
        for batch, t in zip(got, starts, strict=True):
            _assert_columns(batch, {key: item[t : t + size] for key, item in expected.items()})


@pytest.mark.parametrize("n", [1, 3])
def test_n_step_is_that_of_transitions(logged, episodes, n):
    gamma = 0.9

    def transition(batch):
        weights = tf.constant(gamma, tf.float64) ** tf.range(n, dtype=tf.float64)
        return {
            "observation": batch[rlds.OBSERVATION][0],
            "reward": tf.reduce_sum(weights * batch[rlds.REWARD][:n]),
            "next_observation": batch[rlds.OBSERVATION][n],
        }

    for steps, expected in zip(_steps(logged), episodes, strict=True):
        batches = rlds.transformations.batch(steps, size=n + 1, shift=1, drop_remainder=True)
        got = list(batches.map(transition).as_numpy_iterator())

        assert len(got) == len(expected["reward"]) - n
        for t, item in enumerate(got):
            np.testing.assert_array_equal(item["observation"], expected["observation"][t])
            np.testing.assert_array_equal(item["next_observation"], expected["observation"][t + n])
            total = sum(gamma**k * expected["reward"][t + k] for k in range(n))
            np.testing.assert_allclose(item["reward"], total)


def test_truncation(logged, episodes):
    for steps, expected in zip(_steps(logged), episodes, strict=True):
        truncated = rlds.transformations.truncate_after_condition(
            steps, lambda step: step[rlds.ACTION] == 1
        )

        _assert_columns(_columns(truncated), {key: item[:2] for key, item in expected.items()})


def test_concatenation(logged, episodes):
    first, second, _ = _steps(logged)

    both = _columns(rlds.transformations.concatenate(first, second))

    names = ("observation", "action", "reward", "is_first", "is_terminal")
    joined = {name: np.concatenate([e[name] for e in episodes[:2]]) for name in names}
    _assert_columns(both, joined, names)


def test_concatenation_where_the_episode_terminated(logged):
    def absorbing(step):
        step = rlds.transformations.zeros_from_spec(
            {k: tf.TensorSpec.from_tensor(x) for k, x in step.items()}
        )
        return tf.data.Dataset.from_tensors(step)

    lengths = []
    for steps in _steps(logged):
        joined = rlds.transformations.concat_if_terminal(steps, absorbing)
        lengths.append(len(list(joined)))

    assert lengths == [6, 3, 7]


def test_alignment(logged, episodes):
    for steps, expected in zip(_steps(logged), episodes, strict=True):
        # Each step gets the reward of the next one; or that of the step before, as in dm_env.
        ahead = _columns(rlds.transformations.shift_keys(steps, ["reward"], 1))
        behind = _columns(rlds.transformations.shift_keys(steps, ["reward"], -1))

        front = {key: item[:-1] for key, item in expected.items()}
        back = {key: item[1:] for key, item in expected.items()}
        _assert_columns(ahead, {**front, "reward": expected["reward"][1:]})
        _assert_columns(behind, {**back, "reward": expected["reward"][:-1]})


def test_the_name_of_an_alignment_is_added(logged):
    def add(step):
        alignment = rlds.transformations.AlignmentType.SAR
        return rlds.transformations.add_alignment_to_step(step, alignment)

    for steps in _steps(logged):
        assert {int(step[rlds.ALIGNMENT]) for step in steps.map(add)} == {2}


def test_statistics(logged, episodes):
    def mask(step):
        valid = tf.logical_not(step[rlds.IS_LAST])
        data = {rlds.OBSERVATION: step[rlds.OBSERVATION], rlds.REWARD: step[rlds.REWARD]}
        return data, {rlds.OBSERVATION: tf.constant(True), rlds.REWARD: valid}

    mean, std = rlds.transformations.mean_and_std(logged, mask)

    observations = np.concatenate([e["observation"] for e in episodes])
    rewards = np.concatenate([e["reward"][:-1] for e in episodes])  # without the padding
    for name, values in ((rlds.OBSERVATION, observations), (rlds.REWARD, rewards)):
        np.testing.assert_allclose(mean[name], values.mean(0), rtol=1e-5)
        np.testing.assert_allclose(std[name], values.std(0, ddof=1), rtol=1e-5)


def test_sums_lengths_and_final_steps(logged, episodes):
    for steps, expected in zip(_steps(logged), episodes, strict=True):
        total = rlds.transformations.sum_dataset(steps, lambda step: step[rlds.REWARD])
        final = rlds.transformations.final_step(steps)

        np.testing.assert_allclose(total, expected["reward"].sum())
        assert rlds.transformations.episode_length(steps) == len(expected["reward"])
        _assert_columns(final, {key: item[-1] for key, item in expected.items()})
    total = rlds.transformations.sum_nested_steps(logged, lambda step: step[rlds.REWARD])
    np.testing.assert_allclose(total, sum(e["reward"].sum() for e in episodes))


def test_nested_maps(logged, episodes):
    mapped = rlds.transformations.map_nested_steps(
        logged, lambda step: {**step, rlds.REWARD: 2 * step[rlds.REWARD]}
    )
    heads = rlds.transformations.apply_nested_steps(logged, lambda steps: steps.take(2))

    for episode, expected in zip(mapped, episodes, strict=True):
        _assert_columns(
            _columns(episode[rlds.STEPS]), {**expected, "reward": 2 * expected["reward"]}
        )
        assert "episode_id" in episode
    for episode, expected in zip(heads, episodes, strict=True):
        _assert_columns(
            _columns(episode[rlds.STEPS]), {key: item[:2] for key, item in expected.items()}
        )


# Importing it


def test_patterns_say_what_to_use_instead(logged):
    for call in (
        lambda: rlds.transformations.pattern_map_from_transform(logged, lambda step: step),
        lambda: rlds.transformations.pattern_map(logged, []),
    ):
        with pytest.raises(ImportError) as raised:
            call()
        helpers.check_message(raised, "pattern_map", "Reverb", "transitions", "windows")
    spec = rlds.transformations.step_spec(logged)
    assert spec[rlds.OBSERVATION].shape == (2,)


def _run(program, tmp_path):
    return processes.python(program, cwd=tmp_path).stdout


def test_reverb_is_not_there_afterwards(tmp_path):
    out = _run(
        """
        import importlib.util, sys
        import envlogger.tfds
        assert not {"rlds", "tensorflow"} & sys.modules.keys()

        rlds = envlogger.tfds.import_rlds()

        assert not [name for name in sys.modules if name.startswith("reverb")]
        assert importlib.util.find_spec("reverb") is None
        import rlds as again
        assert rlds is again is envlogger.tfds.import_rlds()
        print(rlds.transformations.batch.__module__)
        """,
        tmp_path,
    )

    assert out == "rlds.transformations.flexible_batch\n"


_WORKING = """
    import types
    structured_writer = types.SimpleNamespace(
        Condition=int, Config=int, Pattern=int, ReferenceStep=int,
        pattern_from_transform=lambda spec, function: "pattern",
        create_config=lambda pattern, table, conditions: "config",
    )
    def PatternDataset(**kwargs):
        return "a real pattern"
"""
_BROKEN = """
    import reverb.part
    class NotFoundError(Exception):
        pass
    raise NotFoundError("libtensorflow_framework.so.2: undefined symbol")
"""


def _install_reverb(tmp_path, content):
    (tmp_path / "reverb").mkdir()
    (tmp_path / "reverb" / "__init__.py").write_text(textwrap.dedent(content))
    (tmp_path / "reverb" / "part.py").write_text("")


def test_a_real_reverb_is_used(tmp_path):
    _install_reverb(tmp_path, _WORKING)

    out = _run(
        """
        import envlogger.tfds
        import tensorflow as tf

        rlds = envlogger.tfds.import_rlds()

        steps = tf.data.Dataset.from_tensors({"is_last": True})
        episodes = tf.data.Dataset.from_tensors(0).map(lambda _: {"steps": steps})
        print(rlds.transformations.pattern_map_from_transform(episodes, lambda step: step))
        import reverb
        print(reverb.__file__ is not None)
        """,
        tmp_path,
    )

    assert out == "a real pattern\nTrue\n"


def test_a_reverb_that_does_not_load_is_told_of(tmp_path):
    _install_reverb(tmp_path, _BROKEN)

    out = _run(
        """
        import sys
        import envlogger.tfds

        rlds = envlogger.tfds.import_rlds()

        assert not [name for name in sys.modules if name.startswith("reverb")]
        try:
            rlds.transformations.pattern_map(None, [])
        except AttributeError:  # None has no steps
            pass
        from rlds.transformations import pattern
        try:
            pattern.reverb.PatternDataset()
        except envlogger.errors.EnvLoggerError as error:
            print(error)
        """,
        tmp_path,
    )

    assert "undefined symbol" in out
    assert "transitions" in out


@pytest.mark.parametrize("package", ["rlds", "tensorflow"])
def test_a_missing_package_is_named(tmp_path, package):
    out = _run(
        f"""
        import sys
        sys.modules["{package}"] = None
        import envlogger.tfds
        try:
            envlogger.tfds.import_rlds()
        except envlogger.errors.MissingExtraError as error:
            print(error)
        assert "reverb" not in sys.modules
        """,
        tmp_path,
    )

    assert f"'{package}'" in out
    assert "pip install 'envlogger[tensorflow]'" in out
