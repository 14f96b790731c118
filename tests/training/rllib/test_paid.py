import math

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from carl.training.rllib.paid import paid_by, trained_on
from carl.training.rllib.replay import VersionedReplayBuffer


def episode(version: int, length: int) -> SingleAgentEpisode:
    observations = [np.zeros(2, np.float32)] * (length + 1)
    made = SingleAgentEpisode(
        observations=observations,
        actions=[0] * length,
        rewards=[float(version)] * length,
        terminated=True,
        len_lookback_buffer=0,
    )
    made.custom_data["reward_version"] = np.full(length, version)
    return made


def test_steps_are_counted_by_the_version_that_paid_them():
    assert paid_by([episode(1, 3), episode(2, 4), episode(1, 5)]) == {1: 8, 2: 4}
    sampled = {"env_runners": {"paid_by": {"1": 8.0, "2": 4.0, "0": math.nan}}}
    assert trained_on(sampled) == {1: 8, 2: 4}
    assert trained_on({"replay_buffer": {"paid_by": {"1": 5.0}}, **sampled}) == {1: 5}
    assert trained_on({"replay_buffer": {}, **sampled}) == {}, "nothing was learned from yet"
    assert trained_on({}) == {}


def test_what_is_replayed_knows_its_version_after_older_episodes_are_gone():
    buffer = VersionedReplayBuffer(capacity=40)
    for version in range(1, 11):
        buffer.add([episode(version, 10)])
    sampled = buffer.sample(num_items=200, n_step=1, gamma=0.9, sample_episodes=True, lookback=0)
    for one in sampled:
        assert set(one.custom_data["reward_version"]) == set(one.get_rewards()), "the fake pays its version"
    metered = buffer.get_metrics()["paid_by"]
    assert {int(version): steps.peek() for version, steps in metered.items()} == paid_by(sampled)
    assert set(paid_by(sampled)) == {7, 8, 9, 10}
