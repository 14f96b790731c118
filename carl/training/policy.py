"""A trained policy: observations in, actions out, with no environment and no connector around it."""

from pathlib import Path
from typing import Any

import numpy as np

from carl.artefacts import STATE
from carl.errors import StoreError, briefly
from carl.training.checkpoint import ALGORITHM, check
from carl.training.rllib.acting import choose
from carl.training.rllib.spaces import Actions, Observations
from carl.training.rllib.stored import read_module


class Policy:
    """The acting half of an RLModule. Picklable; sampling draws from torch's global generator."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._observations, self._actions = Observations(module.observation_space), Actions(module.action_space)

    @classmethod
    def of(cls, checkpoint: Path) -> "Policy":
        """The policy of a training's checkpoint; raises StoreError."""
        if (checkpoint / STATE).exists():
            check(checkpoint)
        try:
            return cls(read_module(checkpoint / ALGORITHM))
        except Exception as error:  # unpickling raises whatever it stumbles over
            raise StoreError(
                f"cannot read a policy from {checkpoint}: it is damaged, or of another version of carl or Ray "
                f"({type(error).__name__}: {briefly(error)}); train again"
            ) from error

    def act(self, observations: Any, *, greedy: bool) -> Any:
        """Actions for a vector environment's ``step``, for its observations of N slots as PaidVectorEnv gives them.

        Greedy takes the distribution's mode, otherwise it is sampled. Raises TaskError if it is not finite.
        """
        packed = np.ascontiguousarray(self._observations.pack(observations))
        return choose(self._module, self._actions, packed, greedy=greedy).actions
