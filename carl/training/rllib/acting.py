"""How an RLModule acts, in an env runner as in evaluation: forward pass, distribution, actions of the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from carl.training.rllib.divergence import diverging
from carl.training.rllib.spaces import Actions


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a module chose for N slots.

    Attributes:
        actions: what a vector environment's ``step`` takes.
        drawn: what was drawn from the distribution, ``[N]`` or ``[N, K]``; on the module's device.
        outputs: the module's own outputs by name, ``[N, ...]`` each; among them the distribution's inputs.
        distribution: RLlib's distribution that ``drawn`` comes from.
    """

    actions: Any
    drawn: torch.Tensor
    outputs: Mapping[str, torch.Tensor]
    distribution: Any

    @torch.no_grad()
    def columns(self) -> dict[str, NDArray[Any]]:
        """What learning needs of the step, ``[N, ...]`` by name: outputs, ``actions`` as drawn, ``action_logp``."""
        logp = self.distribution.logp(self.drawn)
        columns = {**self.outputs, "actions": self.drawn, "action_logp": logp}
        return {name: values.cpu().numpy() for name, values in columns.items()}


@torch.no_grad()
@diverging()
def choose(
    module: Any, actions: Actions, packed: NDArray[Any], *, greedy: bool, device: Any = None, **forward: Any
) -> Chosen:
    """Actions for ``packed`` observations ``[N, D]``, as ``carl.training.rllib.spaces.Observations`` packs them.

    Greedy takes the distribution's mode; otherwise it is sampled by torch's global generator, and ``forward`` goes to
    the module's ``forward_exploration``. Raises TaskError if the distribution's parameters are not finite.
    """
    batch = {"obs": torch.from_numpy(packed).to(device)}
    if greedy:
        outputs = module.forward_inference(batch)
        distribution = module.get_inference_action_dist_cls().from_logits(outputs["action_dist_inputs"])
        distribution = distribution.to_deterministic()
    else:
        outputs = module.forward_exploration(batch, **forward)
        distribution = module.get_exploration_action_dist_cls().from_logits(outputs["action_dist_inputs"])
    drawn = _joined(distribution.sample())
    return Chosen(actions.unpack(drawn.cpu().numpy()), drawn, outputs, distribution)


def _joined(drawn: Any) -> torch.Tensor:
    """One tensor of what was drawn: ``[N, K]`` of choices and numbers, if the distribution draws both."""
    return torch.cat(drawn, dim=1) if isinstance(drawn, tuple) else drawn
