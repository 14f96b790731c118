from functools import partial

import numpy as np
from gymnasium.vector import SyncVectorEnv
from stable_baselines3 import PPO

from carl.rewards.sb3 import Sb3VecEnv
from carl.rewards.vector import CodeReward
from tests.fakes.corridor import CORRIDOR, Corridor, Furthest


def adapted(*patience: int, length: int = 4) -> Sb3VecEnv:
    envs = SyncVectorEnv([partial(Corridor, length, steps) for steps in patience])
    return Sb3VecEnv(CodeReward(envs, CORRIDOR, Furthest(length=length)))


def test_slots_that_ended_are_reset_within_the_step():
    env = adapted(2, 20)
    env.seed(3)
    assert env.reset().shape == (2, 13)
    assert env.get_attr("seeds") == [[3], [4]]
    _, rewards, done, _ = env.step(np.array([1, 1]))
    assert rewards.tolist() == [0.25, 0.25]
    assert not done.any()
    observations, rewards, done, infos = env.step(np.array([1, 1]))
    assert rewards.tolist() == [0.25, 0.25]
    assert done.tolist() == [True, False]
    assert infos[0]["TimeLimit.truncated"]
    assert not infos[1]["TimeLimit.truncated"]
    assert infos[0]["terminal_observation"][[2, 5]].tolist() == [1.0, 0.5]
    assert "terminal_observation" not in infos[1]
    assert observations[0, [0, 5]].tolist() == [1.0, 0.0], "the new episode's first observation"
    assert observations[1, [2, 5]].tolist() == [1.0, 0.5], "the other goes on"
    _, rewards, done, _ = env.step(np.array([1, 1]))
    assert rewards.tolist() == [0.25, 0.25], "no reset step reaches the learner"
    assert not done.any()


def test_attributes_and_methods_reach_the_sub_environments():
    env = adapted(5, 5)
    env.reset()
    env.set_attr("position", 2, indices=1)
    assert env.get_attr("position") == [0, 2]
    assert env.env_is_wrapped(CodeReward) == [False, False]
    assert env.get_images()[1][0, 0, 0] == 2
    env.close()


def test_ppo_learns_the_corridor_from_the_code_reward():
    env = adapted(*[20] * 4, length=6)
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=64, learning_rate=3e-3, seed=0, device="cpu")
    model.learn(4_000)
    env.seed(1)
    observations, returns, over = env.reset(), np.zeros(4), np.zeros(4, dtype=bool)
    for _ in range(6):
        actions, _ = model.predict(observations, deterministic=True)
        observations, rewards, done, _ = env.step(actions)
        returns += np.where(over, 0.0, rewards)
        over |= done
    np.testing.assert_allclose(returns, 1.0, err_msg="six steps right earn everything")
