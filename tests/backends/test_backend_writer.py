# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc

import dm_env
import pytest

from envlogger import step_data
from envlogger.backends import backend_writer


class _Spy(backend_writer.BackendWriter):
    """Notes the calls that reach a backend."""

    def __init__(self, metadata=None, scheduler=None):
        super().__init__(metadata, scheduler)
        self.calls = []

    def _record_step(self, data, is_new_episode):
        if data.custom_data == "fail":
            raise OSError("disk full")
        self.calls.append((data.custom_data, is_new_episode))

    def _set_episode_metadata(self, data):
        self.calls.append(data)

    def close(self):
        self.calls.append("close")


def _step(name):
    return step_data.StepData(dm_env.transition(0.0, 0), 0, name)


def _keep(*names):
    return lambda data: data.custom_data in names


def test_without_a_scheduler_all_calls_pass():
    spy = _Spy()

    spy.record_step(_step("a0"), is_new_episode=True)
    spy.set_episode_metadata("A")
    spy.record_step(_step("a1"), is_new_episode=False)
    spy.set_episode_metadata(None)
    spy.record_step(_step("b0"), is_new_episode=True)

    assert spy.calls == [("a0", True), "A", ("a1", False), None, ("b0", True)]


def test_first_kept_step_begins_the_episode():
    spy = _Spy(scheduler=_keep("a0", "b1", "b2", "d1"))

    for name in ("a0", "a1", "b0", "b1", "b2", "c0", "c1", "d0", "d1"):
        spy.record_step(_step(name), is_new_episode=name.endswith("0"))

    assert spy.calls == [("a0", True), ("b1", True), ("b2", False), ("d1", True)]


def test_first_step_of_all_begins_an_episode_even_if_not_said():
    spy = _Spy()

    spy.record_step(_step("a1"), is_new_episode=False)

    assert spy.calls == [("a1", True)]


def test_a_step_that_failed_did_not_begin_the_episode():
    spy = _Spy()
    spy.record_step(_step("a0"), is_new_episode=True)

    with pytest.raises(OSError, match="disk full"):
        spy.record_step(_step("fail"), is_new_episode=True)
    spy.record_step(_step("b1"), is_new_episode=False)

    assert spy.calls == [("a0", True), ("b1", True)]


def test_episode_metadata_waits_for_a_kept_step():
    spy = _Spy(scheduler=_keep("a0", "b1"))
    spy.record_step(_step("a0"), is_new_episode=True)

    spy.record_step(_step("b0"), is_new_episode=True)
    spy.set_episode_metadata("B, early")
    buffer = ["B"]
    spy.set_episode_metadata(buffer)
    buffer.append("changed after the call")
    spy.record_step(_step("b1"), is_new_episode=False)

    assert spy.calls == [("a0", True), ("b1", True), ["B"]]


def test_episode_metadata_of_a_dropped_episode_goes_nowhere():
    spy = _Spy(scheduler=_keep("a0", "c0"))
    spy.set_episode_metadata("before all")

    for name in ("a0", "b0", "c0"):
        spy.record_step(_step(name), is_new_episode=True)
        if name == "b0":
            spy.set_episode_metadata("B")

    assert spy.calls == [("a0", True), ("c0", True)]


def test_metadata_is_not_the_callers_dict():
    mine = {"agent": "dqn"}
    spy = _Spy(metadata=mine)
    mine["agent"] = "other"

    assert spy.metadata() == {"agent": "dqn"}
    assert _Spy().metadata() is None


def test_leaving_the_context_closes():
    with _Spy() as spy:
        pass

    assert spy.calls == ["close"]


def test_backend_written_for_envlogger_1_works():
    class Old(backend_writer.BackendWriter):
        def __init__(self, **base_kwargs):
            self.calls = []
            super().__init__(**base_kwargs)

        def _record_step(self, data, is_new_episode):
            self.calls.append((data.custom_data, is_new_episode))

        def set_episode_metadata(self, data):
            self.calls.append(data)

        def close(self):
            pass

    old = Old(metadata={}, scheduler=None)
    old.record_step(_step("a0"), True)
    old.set_episode_metadata("A")

    assert old.calls == [("a0", True), "A"]


def test_backend_without_episode_metadata_says_what_to_override():
    class Minimal(backend_writer.BackendWriter):
        def _record_step(self, data, is_new_episode):
            pass

        def close(self):
            pass

    minimal = Minimal()
    minimal.record_step(_step("a0"), True)

    with pytest.raises(NotImplementedError, match=r"Minimal must override _set_episode_metadata"):
        minimal.set_episode_metadata(1)


# pytest makes an error of an exception in __del__.
def test_failed_construction_leaves_no_noise():
    class Broken(_Spy):
        def __init__(self):
            raise OSError("no space")

        def close(self):
            raise AssertionError("nothing was opened")

    with pytest.raises(OSError, match="no space"):
        Broken()
    gc.collect()


def test_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        backend_writer.BackendWriter()
