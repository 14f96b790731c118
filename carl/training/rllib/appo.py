"""RLlib's APPO, which ends where RLlib would wait without end."""

import time
from typing import Any

from ray.rllib.algorithms import appo
from ray.rllib.algorithms.appo.torch.appo_torch_learner import APPOTorchLearner
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from carl.training.rllib.divergence import FiniteLearner
from carl.training.rllib.failures import RaisesReported

_APPO: Any = appo.APPO  # RLlib leaves these untyped
_APPOTorchLearner: Any = APPOTorchLearner

ITERATION_STEPS, ITERATION_S = 2048, 30.0
"""Environment steps of a training iteration, and the seconds after which it ends without them."""


class APPO(RaisesReported, _APPO):  # type: ignore[misc]
    """RLlib's, but when all env runners are down it does not sample in the driver, where there are no environments."""

    def training_step(self) -> None:
        """Several of RLlib's; none while all env runners are down. It brings them back between two of these."""
        goal, deadline = self._sampled() + ITERATION_STEPS, time.monotonic() + ITERATION_S
        while self.env_runner_group.num_healthy_remote_workers() and self._sampled() < goal:
            super().training_step()
            if time.monotonic() > deadline:
                break

    def _sampled(self) -> int:
        return int(self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))


class APPOLearner(FiniteLearner, _APPOTorchLearner):  # type: ignore[misc]
    """The same updates, in RLlib's thread. What goes wrong there ends the training; RLlib would wait without end."""

    _failure: Exception | None = None

    def update(self, training_data: Any, **kwargs: Any) -> Any:
        """RLlib's update; raises what failed in the learner's thread. Empty for a batch lost with its env runner."""
        training_data.solve_refs()
        if training_data.episodes == []:
            return {}
        result = super().update(training_data, **kwargs)
        if self._failure is not None:
            raise self._failure
        return result

    def _update(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._update(*args, **kwargs)
        except Exception as error:  # whatever it is, update raises it
            self._failure = error
            self._agg_event.set()
            raise SystemExit from error  # ends the thread silently; update has the error
