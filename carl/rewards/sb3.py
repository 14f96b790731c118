"""Train with Stable-Baselines3 on a code reward: its VecEnv around a gymnasium vector environment."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from carl.errors import ConfigError
from carl.rewards.vector import info_of

try:
    from stable_baselines3.common.env_util import is_wrapped
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
except ImportError as error:
    raise ConfigError("Stable-Baselines3 is missing: pip install 'code-as-reward[sb3]'") from error


class Sb3VecEnv(VecEnv):
    """A NEXT_STEP vector environment, such as CodeReward, as Stable-Baselines3 wants it.

    Stable-Baselines3 expects a slot that ended to be reset within the same step, so slots that ended are reset by
    mask right away; the last observation travels as ``terminal_observation``.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        self.env: Any = env
        self._actions: NDArray[Any] = np.empty(0)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        observations, infos = self.env.reset(seed=list(self._seeds))
        self.reset_infos = [info_of(infos, slot) for slot in range(self.num_envs)]
        self._reset_seeds()
        return np.asarray(observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminated, truncated, batched = self.env.step(self._actions)
        infos = [info_of(batched, slot) for slot in range(self.num_envs)]
        done = terminated | truncated
        for slot in range(self.num_envs):
            infos[slot]["TimeLimit.truncated"] = bool(truncated[slot] and not terminated[slot])
        if done.any():
            for slot in np.flatnonzero(done).tolist():
                infos[slot]["terminal_observation"] = observations[slot]
            observations, began = self.env.reset(options={"reset_mask": done})
            for slot in np.flatnonzero(done).tolist():
                self.reset_infos[slot] = info_of(began, slot)
        return observations, rewards.astype(np.float32), done, infos

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [env.get_wrapper_attr(attr_name) for env in self._targets(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        for env in self._targets(indices):
            env.set_wrapper_attr(attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        return [env.get_wrapper_attr(method_name)(*method_args, **method_kwargs) for env in self._targets(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        return [is_wrapped(env, wrapper_class) for env in self._targets(indices)]

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        return self.env_method("render")

    def _targets(self, indices: VecEnvIndices) -> list[Any]:
        envs = self.env.unwrapped.envs
        return [envs[slot] for slot in self._get_indices(indices)]
