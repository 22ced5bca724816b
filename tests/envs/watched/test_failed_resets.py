"""An episode that ended as it should stays so, even when the reset after it goes wrong."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.errors import ConfigError, EnvironmentFault

pytestmark = pytest.mark.faults


def test_the_last_step_is_told_as_ever_and_the_new_episode_is_another_s(watch, tmp_path):
    env = watch({}, {"plan": [("reset 2", "raise")], "record": tmp_path / "once"})
    plain = watch({}, {})
    for each in (env, plain):
        each.reset()
        for _ in range(4):
            each.step([1, 2])
    (seen, rewards, dones, infos), (other, other_rewards, other_dones, other_infos) = (
        env.step([1, 2]),
        plain.step([1, 2]),
    )
    assert (rewards.tolist(), dones.tolist()) == (other_rewards.tolist(), other_dones.tolist())
    assert str(infos) == str(other_infos)
    assert "worker_restarted" not in infos[1]
    np.testing.assert_array_equal(seen[0], other[0])
    assert seen[1, 0] not in (10, 11)
    assert env.restarts == [0, 1]
    assert env.reset_infos[1] == {"episode number": 0}
    assert not env.step([1, 2])[2].any()


def test_one_too_many_is_raised_with_what_the_reset_raised(watch):
    env = watch({"plan": [("reset 2", "raise")]}, restarts=0)
    env.reset()
    for _ in range(4):
        env.step([0])
    with pytest.raises(EnvironmentFault, match="raised ZeroDivisionError") as caught:
        env.step([0])
    assert "in reset" in caught.value.traceback


def test_a_refusal_is_the_caller_s(watch):
    env = watch({"plan": [("reset 2", "refuse")]})
    env.reset()
    for _ in range(4):
        env.step([0])
    with pytest.raises(ConfigError, match="no such action"):
        env.step([0])
