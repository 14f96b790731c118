"""A trained policy: observations in, actions out, with no environment and no connector around it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule

from carl.artefacts import STATE
from carl.errors import StoreError, briefly
from carl.training.checkpoint import ALGORITHM, check
from carl.training.rllib.divergence import diverging
from carl.training.rllib.spaces import Actions, Observations

MODULE_PATH = Path("learner_group") / "learner" / "rl_module" / DEFAULT_MODULE_ID
"""Where RLlib keeps the module in what ``Algorithm.save_to_path`` writes."""


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
        path = (checkpoint / ALGORITHM / MODULE_PATH).resolve()
        try:
            return cls(RLModule.from_checkpoint(path))
        except Exception as error:  # unpickling raises whatever it stumbles over
            raise StoreError(
                f"cannot read a policy from {checkpoint}: it is damaged, or of another version of carl or Ray "
                f"({type(error).__name__}: {briefly(error)}); train again"
            ) from error

    @torch.no_grad()
    @diverging()
    def act(self, observations: Any, *, greedy: bool) -> Any:
        """Actions for a vector environment's ``step``, for its observations of N slots as CodeReward gives them.

        Greedy takes the distribution's mode, otherwise it is sampled.
        """
        batch = {"obs": torch.from_numpy(np.ascontiguousarray(self._observations.pack(observations)))}
        if greedy:
            logits = self._module.forward_inference(batch)["action_dist_inputs"]
            drawn = self._module.get_inference_action_dist_cls().from_logits(logits).to_deterministic().sample()
        else:
            logits = self._module.forward_exploration(batch)["action_dist_inputs"]
            drawn = self._module.get_exploration_action_dist_cls().from_logits(logits).sample()
        return self._actions.unpack(joined(drawn).numpy())


def joined(drawn: Any) -> torch.Tensor:
    """What a distribution drew in one tensor: ``[N, K]`` of choices and numbers, if it draws both."""
    return torch.cat(drawn, dim=1) if isinstance(drawn, tuple) else drawn
