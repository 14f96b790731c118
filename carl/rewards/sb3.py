"""Train with Stable-Baselines3 on a code reward: its VecEnv around a gymnasium vector environment."""

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from carl.errors import ConfigError, TaskError
from carl.rewards.infos import RawInfos
from carl.rewards.vector import JUDGED

try:
    from stable_baselines3.common.env_util import is_wrapped
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
except ImportError as error:
    raise ConfigError("Stable-Baselines3 is missing: pip install 'code-as-reward[sb3]'") from error

FLAT = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""Spaces that Stable-Baselines3 acts in and observes; a Dict of them it observes as well."""


class Sb3VecEnv(VecEnv):
    """A NEXT_STEP vector environment, such as PaidVectorEnv, as Stable-Baselines3 wants it.

    Stable-Baselines3 expects a slot that ended to be reset within the same step, so slots that ended are reset by
    mask right away; the last observation travels as ``terminal_observation``. Its spaces begin at 0: a ``start`` is
    taken off observations and added to actions.

    A slot's info is its sub-environment's own, with PaidVectorEnv's JUDGED. Where an episode ended it holds ``episode``
    (the rewards' sum ``r``, the steps ``l``, and the seconds ``t`` since this was built), from which Stable-Baselines3
    logs ``rollout/ep_rew_mean`` and ``ep_len_mean``, and ``is_success``, from which it logs ``rollout/success_rate``.

    Raises:
        TaskError: Stable-Baselines3 has no policy for the observations or actions, such as Tuple or a Dict in a Dict.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        self.env: Any = env
        self._actions: NDArray[Any] = np.empty(0)
        self._infos = RawInfos(env)
        self._returns, self._lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.int64)
        self._since = time.perf_counter()
        observed, acted = env.single_observation_space, env.single_action_space
        _check(observed, "observations", [*FLAT, spaces.Dict])
        _check(acted, "actions", FLAT)
        super().__init__(env.num_envs, _from_zero(observed), _from_zero(acted))

    def reset(self) -> VecEnvObs:
        """The first observations, one row a slot. Uses the seeds of ``seed`` once."""
        observations, infos = self.env.reset(seed=list(self._seeds))
        self.reset_infos = [self._info(infos, slot) for slot in range(self.num_envs)]
        self._returns[:], self._lengths[:] = 0.0, 0
        self._reset_seeds()
        shown: VecEnvObs = self._shown(observations)
        return shown

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep actions for ``step_wait``; Stable-Baselines3 counts Discrete actions from 0."""
        self._actions = actions + _start(self.env.single_action_space)

    def step_wait(self) -> VecEnvStepReturn:
        """Observations, rewards, dones and infos of one step.

        Slots that ended are reset at once, as Stable-Baselines3 expects: their last observation is
        ``terminal_observation`` in their info.
        """
        observations, rewards, terminated, truncated, batched = self.env.step(self._actions)
        observations, done = self._shown(observations), terminated | truncated
        infos = [self._info(batched, slot) for slot in range(self.num_envs)]
        self._returns += rewards
        self._lengths += 1
        for slot, info in enumerate(infos):
            info["TimeLimit.truncated"] = bool(truncated[slot] and not terminated[slot])
            if done[slot]:
                info["terminal_observation"] = _row(observations, slot)
                info["episode"] = self._episode(slot)
                if "success" in info:
                    info["is_success"] = bool(info["success"])
        if done.any():
            began, batched = self.env.reset(options={"reset_mask": done})
            observations = self._shown(began)
            self._returns[done], self._lengths[done] = 0.0, 0
            for slot in np.flatnonzero(done).tolist():
                self.reset_infos[slot] = self._info(batched, slot)
        return observations, rewards.astype(np.float32), done, infos

    def _info(self, batched: dict[str, Any], slot: int) -> dict[str, Any]:
        return self._infos.raw[slot] | {key: batched[key][slot] for key in JUDGED if key in batched}

    def _episode(self, slot: int) -> dict[str, Any]:
        seconds = round(time.perf_counter() - self._since, 6)
        return {"r": float(self._returns[slot]), "l": int(self._lengths[slot]), "t": seconds}

    def _shown(self, observations: Any) -> Any:
        """A copy of ``observations``, as Stable-Baselines3 counts them."""
        space = self.env.single_observation_space
        if isinstance(space, spaces.Dict):
            return {key: observations[key] - _start(part) for key, part in space.items()}
        return observations - _start(space)

    def close(self) -> None:
        """Close the environments and the reward."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of each environment in ``indices``, wrappers included."""
        return [env.get_wrapper_attr(attr_name) for env in self._targets(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the attribute in each environment in ``indices``, wrappers included."""
        for env in self._targets(indices):
            env.set_wrapper_attr(attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """What the method returns in each environment in ``indices``, wrappers included."""
        return [env.get_wrapper_attr(method_name)(*method_args, **method_kwargs) for env in self._targets(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether each environment in ``indices`` has a wrapper of that class."""
        return [is_wrapped(env, wrapper_class) for env in self._targets(indices)]

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """What each environment renders."""
        return self.env_method("render")

    def _targets(self, indices: VecEnvIndices) -> list[Any]:
        envs = self.env.unwrapped.envs
        return [envs[slot] for slot in self._get_indices(indices)]


def _check(space: spaces.Space[Any], what: str, known: Sequence[type]) -> None:
    """Raise TaskError unless Stable-Baselines3 can have ``space`` for its observations or actions (``what``)."""
    parts = list(space.values()) if isinstance(space, spaces.Dict) else []
    if not isinstance(space, tuple(known)) or not all(isinstance(part, FLAT) for part in parts):
        raise TaskError(f"Stable-Baselines3 has no policy for {what} in {space}: flatten them in the task's make()")


def _start(space: spaces.Space[Any]) -> Any:
    """What ``space`` counts from, of its dtype: 0 but for some Discrete and MultiDiscrete."""
    assert space.dtype is not None  # FLAT have one
    return np.asarray(getattr(space, "start", 0), dtype=space.dtype)


def _from_zero(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """``space``, counted from 0."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _from_zero(part) for key, part in space.items()})
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec, dtype=space.dtype)  # type: ignore[arg-type]  # gymnasium's annotation
    return space


def _row(observations: Any, slot: int) -> Any:
    """One slot's part of observations, copied."""
    if isinstance(observations, dict):
        return {key: values[slot].copy() for key, values in observations.items()}
    return observations[slot].copy()
