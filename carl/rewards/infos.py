"""What sub-environments put in ``info``, as they put it."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from carl.errors import TaskError

Info = dict[str, Any]


class RawInfos:
    """Keeps each sub-environment's latest ``info`` beside the batch that the vector environment makes of all.

    A batch of gymnasium 1.2.2 takes its types and shapes from the first slot that has a key: True becomes ``np.True_``,
    0.5 beside 0 becomes 0, and keys that begin with ``_`` are taken for masks. A word beside a number, or an array that
    grows, ends gymnasium's step in a ValueError; such a key is batched as an array of objects here.

    Attributes:
        raw: one for each slot, of its latest step or reset.

    Raises:
        TaskError: the vector environment is neither a SyncVectorEnv nor an AsyncVectorEnv.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        base: Any = env.unwrapped
        if not isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv):
            raise TaskError(
                f"{env} does not hand on its sub-environments' own info, which a task's success is read from: use "
                "gymnasium.vector.SyncVectorEnv or AsyncVectorEnv"
            )
        self.raw: list[Info] = [{} for _ in range(base.num_envs)]
        self._batch, self._within = base._add_info, False
        base._add_info = self._add  # through which both hand every info of a step or reset, slot by slot

    def _add(self, infos: Info, info: Info, slot: int) -> Info:
        if self._within:  # a dict in an info, for which gymnasium calls this again
            return self._batched(infos, info, slot)
        self.raw[slot] = info
        if not info:
            return infos
        self._within = True
        try:
            return self._batched(infos, info, slot)
        except Exception:  # numpy and Python complain in many ways of what does not fit the first slot's type
            for key in info:
                self._add_key(infos, key, slot)
            return infos
        finally:
            self._within = False

    def _add_key(self, infos: Info, key: str, slot: int) -> None:
        try:
            self._batched(infos, {key: self.raw[slot][key]}, slot)
        except Exception:  # see above
            mask = infos.get(f"_{key}", np.zeros(len(self.raw), dtype=bool))
            mask[slot] = True
            infos[key], infos[f"_{key}"] = np.full(len(self.raw), None, dtype=object), mask
            for other in np.flatnonzero(mask).tolist():
                infos[key][other] = self.raw[other][key]

    def _batched(self, infos: Info, info: Info, slot: int) -> Info:
        batch: Info = self._batch(infos, info, slot)
        return batch
