"""What a vector environment shows after a step: only what a source needs of it is filmed, flattened or copied."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from carl.errors import RewardError
from carl.rewards.frames import Frames
from carl.rewards.infos import RawInfos
from carl.rewards.source import Need, RewardSource, Seen
from carl.task import Task


class Views:
    """Views of the slots of ``env``, a vector environment of ``task``, for its sources."""

    def __init__(self, task: Task, env: gym.vector.VectorEnv[Any, Any, Any], infos: RawInfos) -> None:
        self._task, self._env, self._infos = task, env, infos
        self._frames: Frames | None = None
        self._observed: Any = None
        self._acted: Any = None
        self._paid: NDArray[np.float64] | None = None

    def prepare(self, source: RewardSource) -> None:
        """Raise RewardError if this environment cannot show what ``source`` needs."""
        if Need.FRAMES in source.needs and self._frames is None:
            self._frames = Frames(self._task, self._sub_environments(source.id))
        single = self._env.single_observation_space, self._env.single_action_space
        for need, space in zip((Need.OBSERVATIONS, Need.ACTIONS), single, strict=True):
            if need in source.needs and not space.is_np_flattenable:
                raise RewardError(f"reward {source.id} needs {need}, and gymnasium cannot flatten {space}")

    def stepped(self, observations: Any, actions: Any = None, env_rewards: NDArray[np.float64] | None = None) -> None:
        """The environment has come to ``observations`` of all N slots, by ``actions``; None for a reset."""
        self._observed, self._acted, self._paid = observations, actions, env_rewards

    def seen(self, needs: frozenset[Need], slots: NDArray[np.intp], began: NDArray[np.bool_]) -> Seen:
        """What ``needs`` names of ``slots`` (``intp[M]``, ascending) after the last step; raises TaskError if the
        camera gives no frame."""
        return Seen(
            slots,
            began,
            frames=self._frames.take(slots) if self._frames and Need.FRAMES in needs else None,
            observations=self._observations(slots) if Need.OBSERVATIONS in needs else None,
            actions=self._actions(slots, began) if Need.ACTIONS in needs else None,
            env_reward=self._env_reward(slots, began) if Need.ENV_REWARD in needs else None,
            text=self._text(slots) if Need.TEXT in needs else None,
        )

    def _observations(self, slots: NDArray[np.intp]) -> NDArray[np.float32]:
        env = self._env
        return _flat(env.single_observation_space, env.observation_space, self._observed)[slots]

    def _actions(self, slots: NDArray[np.intp], began: NDArray[np.bool_]) -> NDArray[np.float32]:
        space = self._env.single_action_space
        if self._acted is None:
            return np.zeros((len(slots), gym.spaces.flatdim(space)), dtype=np.float32)
        actions = _flat(space, self._env.action_space, self._acted)[slots]
        actions[began] = 0.0
        return actions

    def _env_reward(self, slots: NDArray[np.intp], began: NDArray[np.bool_]) -> NDArray[np.float64]:
        if self._paid is None:
            return np.zeros(len(slots))
        return np.where(began, 0.0, self._paid[slots])

    def _text(self, slots: NDArray[np.intp]) -> list[str]:
        return [str(self._infos.raw[slot].get("text", self._task.description)) for slot in slots.tolist()]

    def _sub_environments(self, source: str) -> list[gym.Env[Any, Any]]:
        envs = getattr(self._env.unwrapped, "envs", None)
        if envs is None:
            raise RewardError(
                f"reward {source} needs frames, and {self._env} hides its sub-environments from the task's camera: use "
                "gymnasium.vector.SyncVectorEnv"
            )
        return list(envs)


def _flat(space: gym.Space[Any], batched: gym.Space[Any], values: Any) -> NDArray[np.float32]:
    """``values`` of ``batched``, N of ``space``, as ``float32[N, D]``."""
    if isinstance(space, gym.spaces.Box):
        return np.asarray(values, dtype=np.float32).reshape(len(values), -1)
    rows = [gym.spaces.flatten(space, value) for value in iterate(batched, values)]
    return np.array(rows, dtype=np.float32)
