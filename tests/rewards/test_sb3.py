from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.logger import KVWriter, Logger

from carl.errors import TaskError
from carl.rewards.mix import Mix
from carl.rewards.sb3 import Sb3VecEnv
from carl.rewards.vector import PaidVectorEnv
from tests.fakes.corridor import CORRIDOR, Corridor, Furthest

pytestmark = pytest.mark.usefixtures("one_thread")


def adapted(*patience: int, length: int = 4) -> Sb3VecEnv:
    envs = SyncVectorEnv([partial(Corridor, length, steps) for steps in patience])
    return Sb3VecEnv(PaidVectorEnv(envs, CORRIDOR, Furthest(length=length)))


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
    assert env.env_is_wrapped(PaidVectorEnv) == [False, False]
    assert env.get_images()[1][0, 0, 0] == 2
    env.close()


def test_an_episode_s_end_brings_its_sums():
    env = adapted(2, 3)
    env.reset()
    ends = []
    for action in (1, 1, 0, 1, 1, 1):
        infos = env.step(np.array([action, 1]))[3]
        ends.append([(info["episode"]["r"], info["episode"]["l"]) if "episode" in info else None for info in infos])
        assert [info.get("is_success") for info in infos] == [False if end else None for end in ends[-1]]
    assert ends == [
        [None, None],
        [(0.5, 2), None],
        [None, (0.75, 3)],
        [(0.25, 2), None],
        [None, None],
        [(0.5, 2), (0.75, 3)],
    ]
    assert 0.0 <= infos[0]["episode"]["t"] <= infos[1]["episode"]["t"]
    env.reset()
    env.step(np.array([1, 1]))
    env.reset()
    env.step(np.array([1, 1]))
    assert env.step(np.array([0, 0]))[3][0]["episode"]["l"] == 2, "a reset begins new episodes"


def test_an_episode_that_never_ends_is_truncated_for_it_too(monkeypatch):
    monkeypatch.setattr("carl.task.LONGEST", 3)
    env = adapted(1_000, 1_000)
    env.reset()
    dones = [env.step(np.array([0, 0])) for _ in range(6)]
    assert [done.all() for _, _, done, _ in dones] == [False, False, True] * 2
    assert dones[2][3][0]["TimeLimit.truncated"]
    assert env.get_attr("steps") == [0, 0], "begun anew"


class Told(Corridor):
    def step(self, action):
        *stepped, _ = super().step(action)
        return *stepped, {"_won": self.position == 4, "seen": list(range(self.position))}


def test_a_slot_s_info_is_its_environment_s_own_and_what_the_reward_says():
    env = Sb3VecEnv(PaidVectorEnv(SyncVectorEnv([Told, Told]), CORRIDOR, Furthest()))
    env.reset()
    info = env.step(np.array([0, 1]))[3][1]
    assert {key: info[key] for key in ("_won", "seen")} == {"_won": False, "seen": [0]}
    assert (info["success"], info["reward_version"], info["env_reward"]) == (False, 1, 0.0)


class Watched(Corridor):
    """Observes a Dict, counts from 3, and acts from 5 on."""

    def __init__(self) -> None:
        super().__init__()
        at = gym.spaces.Discrete(self.length + 1, start=3)
        self.observation_space = gym.spaces.Dict(at=at, steps=gym.spaces.Box(0, 99, (1,), np.float32))
        self.action_space = gym.spaces.Discrete(2, start=5)

    def step(self, action):
        assert self.action_space.contains(action)
        return super().step(action - 5)

    def _observation(self):
        return {"at": self.position + 3, "steps": np.array([self.steps], np.float32)}


def test_dict_observations_are_passed_on_and_starts_are_honoured():
    env = Sb3VecEnv(PaidVectorEnv(SyncVectorEnv([Watched] * 2), CORRIDOR, Furthest(), mix=Mix()))
    assert env.action_space == gym.spaces.Discrete(2)
    assert env.observation_space["at"] == gym.spaces.Discrete(5)
    assert env.reset()["at"].tolist() == [0, 0]
    for _ in range(4):
        observations, _, done, infos = env.step(np.array([1, 0]))
    assert done.tolist() == [True, False]
    assert {key: part.tolist() for key, part in infos[0]["terminal_observation"].items()} == {"at": 4, "steps": [4.0]}
    assert {key: part.tolist() for key, part in observations.items()} == {"at": [0, 0], "steps": [[0.0], [4.0]]}
    model = PPO("MultiInputPolicy", env, n_steps=16, batch_size=32, n_epochs=1, device="cpu").learn(64)
    assert model.num_timesteps == 64


def test_a_start_in_several_dimensions_is_honoured():
    class Shifted(Watched):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = gym.spaces.MultiDiscrete([2, 3], start=[5, 1])

        def step(self, action):
            assert self.action_space.contains(action)
            return super(Watched, self).step(action[0] - 5)

    env = Sb3VecEnv(PaidVectorEnv(SyncVectorEnv([Shifted] * 2), CORRIDOR, Furthest(), mix=Mix()))
    assert env.action_space == gym.spaces.MultiDiscrete([2, 3])
    env.reset()
    assert env.step(np.array([[1, 2], [0, 0]]))[1].tolist() == [0.25, 0.0]


BOX, DISCRETE = gym.spaces.Box(0.0, 1.0, (5,), np.float32), gym.spaces.Discrete(2)


@pytest.mark.parametrize(
    ("observed", "acted", "words"),
    [
        (gym.spaces.Tuple((BOX, DISCRETE)), DISCRETE, "no policy for observations in Tuple"),
        (gym.spaces.Dict(a=gym.spaces.Dict(b=BOX)), DISCRETE, "no policy for observations in Dict"),
        (BOX, gym.spaces.Dict(a=DISCRETE), "no policy for actions in Dict"),
        (BOX, gym.spaces.Tuple((DISCRETE,)), "no policy for actions in Tuple"),
    ],
)
def test_what_stable_baselines_has_no_policy_for_is_refused_when_built(observed, acted, words):
    class Other(Corridor):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space, self.action_space = observed, acted

    with pytest.raises(TaskError, match=words):
        Sb3VecEnv(PaidVectorEnv(SyncVectorEnv([Other]), CORRIDOR, Furthest(), mix=Mix()))


class Remembered(KVWriter):
    """Keeps the last figures that were logged."""

    def write(self, key_values, key_excluded, step=0):
        self.logged = dict(key_values)

    def close(self):
        pass


def test_ppo_learns_the_corridor_from_the_code_reward():
    env = adapted(*[20] * 4, length=6)
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=64, learning_rate=3e-3, seed=0, device="cpu")
    model.set_logger(Logger(None, [writer := Remembered()]))
    model.learn(4_000)
    assert 0.9 < writer.logged["rollout/ep_rew_mean"] <= 1.0
    assert 6 <= writer.logged["rollout/ep_len_mean"] < 12
    assert writer.logged["rollout/success_rate"] > 0.9
    env.seed(1)
    observations, returns, over = env.reset(), np.zeros(4), np.zeros(4, dtype=bool)
    for _ in range(6):
        actions, _ = model.predict(observations, deterministic=True)
        observations, rewards, done, _ = env.step(actions)
        returns += np.where(over, 0.0, rewards)
        over |= done
    np.testing.assert_allclose(returns, 1.0, err_msg="six steps right earn everything")
